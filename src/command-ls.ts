import type { CommandContext, CommandSpec } from "./command.ts";
import type { ContentReader } from "./content-store.ts";
import { shortDigest } from "./digest.ts";
import { matchesName } from "./layout-index.ts";
import { listEntries } from "./list-entries.ts";
import type { ListedEntry } from "./list-entries.ts";
import { openSource, storeSettings } from "./open-store.ts";
import { formatPlatform } from "./platform.ts";
import { formatTable } from "./table.ts";
import { contentTree, formatTree } from "./tree.ts";
import { formatBytes } from "./units.ts";
import type { WalkOptions } from "./walk.ts";

/** `cacheport ls LOC`: the names in a store and what they are. */
export const lsCommand: CommandSpec = {
  name: "ls",
  summary: "List the names in a layout, an archive or a repository",
  description:
    "Lists the entries of index.json, or the tags of a repository, in their own order: what each one is, how much it weighs, for which platform. With a name only that entry. SIZE is the content that the entry lists itself; an index of manifests shows none.",
  operands: [{ name: "LOC", description: "What to list", kind: "location" }],
  options: [
    { name: "tree", description: "Show all content below each entry" },
    { name: "digests", description: "Show whole digests" },
  ],
  examples: [
    {
      command: "cacheport ls ./cache",
      description: "The names in a cache folder",
    },
    {
      command: "cacheport ls image.tar --tree",
      description: "All content of an archive",
    },
    {
      command: "cacheport ls registry.example/app/cache --json",
      description: "The tags of a repository, for scripts",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const { store, query } = await openSource(args.operand(0), settings);
    try {
      const all = await store.list();
      const entries = all.filter(
        (entry) =>
          (query.digest === undefined ||
            entry.descriptor.digest === query.digest) &&
          (query.name === undefined || matchesName(entry, query.name)),
      );
      // A name that is not there is answered as everywhere: with the names that are.
      if (
        entries.length === 0 &&
        (query.name !== undefined || query.digest !== undefined)
      ) {
        const { descriptor } = await store.resolve(query);
        entries.push({ descriptor });
      }
      if (args.flag("tree")) {
        await printTree(context, store, entries, settings);
      } else {
        const listed = await listEntries(store, entries, settings);
        await context.result(listed, () =>
          renderTable(listed, context, args.flag("digests")),
        );
      }
    } finally {
      await store.close();
    }
  },
};

async function printTree(
  context: CommandContext,
  store: ContentReader,
  entries: Parameters<typeof listEntries>[1],
  options: WalkOptions,
): Promise<void> {
  const trees = await Promise.all(
    entries.map((entry) => contentTree(store, entry, options)),
  );
  await context.result(trees, () =>
    trees.map((tree) => formatTree(tree)).join(""),
  );
}

function renderTable(
  entries: readonly ListedEntry[],
  { colors }: CommandContext,
  wholeDigests: boolean,
): string {
  if (entries.length === 0) return "";
  const columns = [
    { title: "NAME" },
    { title: "KIND" },
    { title: "SIZE", align: "right" as const },
    { title: "PLATFORM" },
    { title: "DIGEST" },
  ];
  const rows = entries.map((entry) => [
    entry.imageName ?? entry.refName ?? "-",
    entry.kind ?? "broken",
    entry.contentSize === null ? "-" : formatBytes(entry.contentSize),
    entry.platform ? formatPlatform(entry.platform) : "-",
    wholeDigests ? entry.digest : shortDigest(entry.digest),
  ]);
  const problems = entries.flatMap(({ problem }) =>
    problem === null ? [] : [`! ${problem}\n`],
  );
  return formatTable(columns, rows, { colors }) + problems.join("");
}
