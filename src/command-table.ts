/**
 * The list of all commands. It holds only what the list of commands shows; a
 * command's own module, with all that it imports, is loaded when it is asked for.
 */
import type { CommandEntry } from "./cli-command.ts";

/** All commands, in the order of the help. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "convert",
    summary: "Convert a build cache to another shape, in place or on the way to another store",
    load: async () => (await import("./command-convert.ts")).convertCommand,
  },
  {
    name: "copy",
    summary: "Copy images, indexes, caches or any artifact; digests stay as they are",
    load: async () => (await import("./command-copy.ts")).copyCommand,
  },
  {
    name: "ls",
    summary: "List the names in a layout, an archive, a repository or an object store",
    load: async () => (await import("./command-ls.ts")).lsCommand,
  },
  {
    name: "inspect",
    summary: "Show what is inside a cache, an image or an index",
    load: async () => (await import("./command-inspect.ts")).inspectCommand,
  },
  {
    name: "resolve",
    summary: "Print the digest and descriptor of what a location names",
    load: async () => (await import("./command-resolve.ts")).resolveCommand,
  },
  {
    name: "cat",
    summary: "Print the bytes of a manifest or a blob",
    load: async () => (await import("./command-cat.ts")).catCommand,
  },
  {
    name: "verify",
    summary: "Check digests, sizes, media types and what BuildKit would refuse",
    load: async () => (await import("./command-verify.ts")).verifyCommand,
  },
  {
    name: "gc",
    summary: "Remove the blobs of a layout folder or an object store that no name reaches",
    load: async () => (await import("./command-gc.ts")).gcCommand,
  },
  {
    name: "du",
    summary: "Show what costs how much in a layout folder",
    load: async () => (await import("./command-du.ts")).duCommand,
  },
  {
    name: "heal",
    summary: "Let BuildKit find the whole cache, every time",
    load: async () => (await import("./command-convert.ts")).healCommand,
  },
  {
    name: "prune",
    summary: "Drop results from a cache by size and age",
    load: async () => (await import("./command-prune.ts")).pruneCommand,
  },
  {
    name: "expire",
    summary: "Remove caches by age, count and name",
    load: async () => (await import("./command-expire.ts")).expireCommand,
  },
  {
    name: "merge",
    summary: "Merge several caches into one",
    load: async () => (await import("./command-merge.ts")).mergeCommand,
  },
  {
    name: "diff",
    summary: "Show what one cache has and another has not, and where they part",
    load: async () => (await import("./command-diff.ts")).diffCommand,
  },
  {
    name: "explain",
    summary: "Say of each step of a build whether a cache serves it, and if not, why",
    load: async () => (await import("./command-explain.ts")).explainCommand,
  },
  {
    name: "tag",
    summary: "Give further names to what a location names",
    load: async () => (await import("./command-tag.ts")).tagCommand,
  },
  {
    name: "untag",
    summary: "Remove names from a layout, an archive, a repository or an object store",
    load: async () => (await import("./command-untag.ts")).untagCommand,
  },
  {
    name: "serve",
    summary: "Serve locations as a registry on this machine",
    load: async () => (await import("./command-serve.ts")).serveCommand,
  },
  {
    name: "ref",
    summary: "Parse, normalise and explain an image reference",
    load: async () => (await import("./command-ref.ts")).refCommand,
  },
  {
    name: "schema",
    summary: "Print the JSON Schema of what a command prints with --json",
    load: async () => (await import("./command-schema.ts")).schemaCommand,
  },
  {
    name: "version",
    summary: "Print the version, and what the program was built from and for",
    load: async () => (await import("./command-version.ts")).versionCommand,
  },
  {
    name: "self-check",
    summary: "Find out whether cacheport can do its work on this machine",
    load: async () => (await import("./command-self-check.ts")).selfCheckCommand,
  },
  {
    name: "completion",
    summary: "Print a script that completes cacheport's commands in a shell",
    load: async () => (await import("./command-completion.ts")).completionCommand,
  },
  {
    name: "__complete",
    summary: "Print the locations that a text may become",
    hidden: true,
    load: async () => (await import("./command-completion.ts")).completeCommand,
  },
  {
    name: "__man",
    summary: "Print the manual page",
    hidden: true,
    load: async () => (await import("./cli-man.ts")).manCommand,
  },
];
