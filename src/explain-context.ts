/**
 * A folder on disk as a build's context: what the client would send of it.
 *
 * Sources: tonistiigi/fsutil (filter.go: patterns; a directory that is left out is
 * sent all the same for the sake of what is in it), BuildKit frontend/dockerui
 * (.dockerignore as `local.excludepatterns`).
 */
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import type { Stats } from "node:fs";
import { createHasher } from "./digest.ts";
import type { Hasher } from "./digest.ts";
import { CacheportError, systemCode, systemError } from "./errors.ts";
import { PatternList } from "./explain-patterns.ts";
import type { ParentMatches } from "./explain-patterns.ts";
import { headerDigest, linkEntry, ROOT_ENTRY, startFileHash } from "./explain-tree.ts";
import type { FileTree, TreeEntry, TreeType } from "./explain-tree.ts";
import { compareBytes } from "./go-json.ts";
import { join, resolve } from "./paths.ts";

/** Bytes that are read at once. */
const PIECE = 1024 * 1024;

interface Node {
  entry: TreeEntry;
  excludes: ParentMatches;
  includes: ParentMatches;
}

/** A context folder. Nothing is read before it is asked for. */
export class ContextTree implements FileTree {
  readonly folder: string;
  readonly #exclude: PatternList | undefined;
  readonly #include: PatternList | undefined;
  readonly #folders = new Map<string, ReadonlyMap<string, Node>>();
  readonly #reads: { files: number };
  readonly #later: ReadonlySet<string>;

  /**
   * @param exclude The patterns of .dockerignore, as the provenance has them.
   * @param include Patterns that files must match, where the client sends only some.
   * @param later Whole paths of files that came after the build had read its context.
   * @throws {CacheportError} LOCATION_NOT_FOUND
   */
  constructor(
    folder: string,
    exclude: readonly string[],
    include: readonly string[] = [],
    later: readonly string[] = [],
  ) {
    this.#later = new Set(later);
    this.folder = resolve(folder);
    this.#exclude = exclude.length > 0 ? new PatternList(exclude) : undefined;
    this.#include = include.length > 0 ? new PatternList(include) : undefined;
    this.#reads = { files: 0 };
    let stats: Stats | undefined;
    try {
      stats = lstatSync(`${this.folder}/.`);
    } catch (error) {
      if (!["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? ""))
        throw systemError(`Cannot read context "${folder}"`, error);
    }
    if (!stats?.isDirectory())
      throw new CacheportError(
        "LOCATION_NOT_FOUND",
        `Cannot read context "${folder}": there is no such folder`,
        { hint: "--context takes the folder that the build was given, or NAME=FOLDER" },
      );
  }

  /** Files whose content was read. */
  get filesRead(): number {
    return this.#reads.files;
  }

  entry(path: string): TreeEntry | undefined {
    return path === "" ? ROOT_ENTRY : this.#node(path)?.entry;
  }

  children(path: string): readonly string[] {
    return [...this.#list(path).keys()];
  }

  #node(path: string): Node | undefined {
    const cut = path.lastIndexOf("/");
    const parent = path.slice(0, cut);
    if (parent !== "" && this.#node(parent)?.entry.type !== "directory") return undefined;
    return this.#list(parent).get(path.slice(cut + 1));
  }

  /** What is sent of a directory, in byte order. */
  #list(path: string): ReadonlyMap<string, Node> {
    const known = this.#folders.get(path);
    if (known) return known;
    const parent = path === "" ? undefined : this.#node(path);
    const nodes = new Map<string, Node>();
    this.#folders.set(path, nodes);
    if (parent && parent.entry.type !== "directory") return nodes;
    for (const name of this.#names(path).toSorted(compareBytes)) {
      const own = `${path}/${name}`;
      const relative = own.slice(1);
      if (this.#later.size > 0 && this.#later.has(join(this.folder, relative))) continue;
      const excluded = this.#exclude?.match(relative, parent?.excludes);
      const included = this.#include?.match(relative, parent?.includes);
      const isOut = excluded?.isMatch === true || included?.isMatch === false;
      const mayHold = this.#include !== undefined || this.#exclude?.hasExclusions === true;
      if (isOut && !mayHold) continue;
      const entry = this.#read(own);
      if (!entry) continue;
      const node = {
        entry,
        excludes: excluded?.matches ?? [],
        includes: included?.matches ?? [],
      };
      if (isOut) {
        if (entry.type !== "directory") continue;
        nodes.set(name, node);
        if (this.#list(own).size === 0) nodes.delete(name);
      } else nodes.set(name, node);
    }
    return nodes;
  }

  #names(path: string): string[] {
    try {
      return readdirSync(join(this.folder, path));
    } catch (error) {
      throw systemError(`Cannot read context "${this.folder}"`, error);
    }
  }

  /** Reads an entry; undefined for what is not sent, as a socket, and for what has gone. */
  #read(path: string): TreeEntry | undefined {
    const full = join(this.folder, path);
    try {
      const stats = lstatSync(full);
      if (stats.isSymbolicLink()) return linkEntry(readlinkSync(full));
      const type = typeOf(stats);
      return type && this.#entry(full, stats, type);
    } catch (error) {
      if (systemCode(error) === "ENOENT") return undefined;
      throw systemError(`Cannot read "${full}"`, error);
    }
  }

  #entry(full: string, stats: Stats, type: TreeType): TreeEntry {
    const size = type === "file" ? stats.size : 0;
    // The client's owner does not count: the files become root's.
    const fields = { type, mode: stats.mode & 0o7777, uid: 0, gid: 0, size, link: "" };
    const reads = this.#reads;
    const hashed = (hasher: Hasher): string => {
      if (type !== "file") return hasher.digest();
      reads.files++;
      hashFile(full, hasher);
      return hasher.digest();
    };
    let digest: string | undefined;
    return {
      ...fields,
      digest: () =>
        (digest ??= type === "file" ? hashed(startFileHash(fields)) : headerDigest(fields)),
      contentDigest: () => hashed(createHasher()),
    };
  }
}

function typeOf(stats: Stats): TreeType | undefined {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  if (stats.isFIFO()) return "fifo";
  return undefined;
}

function hashFile(path: string, hasher: Hasher): void {
  const file = openSync(path, "r");
  try {
    const piece = Buffer.allocUnsafe(PIECE);
    for (;;) {
      const count = readSync(file, piece);
      if (count === 0) return;
      hasher.update(piece.subarray(0, count));
    }
  } catch (error) {
    throw systemError(`Cannot read "${path}"`, error);
  } finally {
    closeSync(file);
  }
}
