/**
 * Paths, in one place: `node:path` for files of this machine, its POSIX form for
 * names inside archives. (`@std/path` would do the same; it is published on a
 * registry that an install from the npm registry does not reach.)
 */
export { basename, dirname, isAbsolute, join, resolve } from "node:path";
export { posix } from "node:path";
