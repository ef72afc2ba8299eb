/** `cacheport ls`: the entries of a store as a table, a tree or JSON. */
import { BUILD_OPTION, openAllBuilds } from "./cli-builds.ts";
import type { Build } from "./explain-build.ts";
import { defineCommand } from "./cli-command.ts";
import type { CommandContext } from "./cli-command.ts";
import { gcHint } from "./cli-hints.ts";
import { count, printable } from "./cli-text.ts";
import type { ContentReader, NamedEntry, NameQuery, Store } from "./content-store.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { shortDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import { matchesName } from "./layout-index.ts";
import { listEntries } from "./list.ts";
import type { ListedEntry } from "./list.ts";
import type { Location } from "./location.ts";
import { openSource, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { formatPlatform } from "./platform.ts";
import type { Amount } from "./reachable.ts";
import { formatTable } from "./cli-table.ts";
import { contentTrees, formatTree, nameTree } from "./cli-tree.ts";
import { formatBytes } from "./units.ts";
import type { WalkOptions } from "./walk.ts";

/** `cacheport ls LOC`: the names in a store and what they are. */
export const lsCommand = defineCommand({
  name: "ls",
  summary: "List the names in a layout, an archive, a repository or an object store",
  description:
    "Lists the entries of index.json, or the tags of a repository, in their own order: what each one is, how much it weighs, for which platform. With a name only that entry. SIZE is the content that the entry lists itself; an index of manifests shows none. What no name reaches in a layout folder or an object store is told in one line on standard error.",
  operands: [{ name: "LOC", description: "What to list", kind: "location" }],
  options: [
    { name: "tree", description: "Show all content below each entry" },
    BUILD_OPTION,
    { name: "digests", description: "Show whole digests" },
    {
      name: "names",
      description: "Print the names alone, one a line; a registry is asked for no more",
    },
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
    const { store, location, query } = await openSource(args.location(0), settings, {
      documentsOnly: true,
    });
    try {
      if (args.flag("names")) {
        const names = await onlyNames(store, location.kind, query);
        await context.result(names, () => names.map((name) => `${name}\n`).join(""));
        return;
      }
      const seen = new Set<Digest>();
      const entries = await namedEntries(store, location.kind, query);
      const isAll = query.name === undefined && query.digest === undefined;
      if (args.flag("tree")) {
        const builds = await openAllBuilds(args.values("build"), settings);
        await printTree(context, store, entries, settings, builds);
      } else {
        const listed = await listEntries(store, entries, { ...settings, seen });
        if (listed.length === 0) context.note(`There are no names in ${location.text}`);
        const unreached = isAll ? ((await store.unreached?.()) ?? []) : [];
        await context.result([...listed, ...unreached.map(unreachedEntry)], () =>
          renderTable(listed, context, args.flag("digests")),
        );
        if (unreached.length > 0) {
          const amount = { blobs: unreached.length, bytes: totalSize(unreached) };
          context.note(amountLine(location.text, amount));
        }
      }
      if (isAll && location.kind === "directory") {
        const amount = await unreachedAmount(store, location.path, { entries, seen }, settings);
        if (amount && amount.blobs > 0) context.note(amountLine(location.text, amount));
      }
    } finally {
      await store.close();
    }
  },
});

/**
 * What no name reaches in a layout folder; undefined where it cannot be told.
 *
 * @param known All entries, and what was seen that they reach.
 */
async function unreachedAmount(
  store: Store,
  folder: string,
  { entries, seen }: { entries: readonly NamedEntry[]; seen: ReadonlySet<Digest> },
  settings: StoreSettings,
): Promise<Amount | undefined> {
  try {
    const { blobNames } = await import("./layout-reader.ts");
    // As it mostly is: the listing has met all that is there.
    if (blobNames(folder).every((digest) => seen.has(digest))) return undefined;
    const { measureUnreached } = await import("./reachable.ts");
    return (await measureUnreached(store, folder, entries, settings)) ?? undefined;
  } catch (error) {
    // The names are listed: what lies beside them is no reason to fail.
    if (isCacheportError(error) && error.code !== "INTERRUPTED") return undefined;
    throw error;
  }
}

/** How much no name reaches, and how to remove it. */
function amountLine(place: string, { blobs, bytes }: Amount): string {
  const what = `${count(blobs, "blob")} (${formatBytes(bytes)})`;
  return `No name reaches ${what}: ${printable(gcHint(place))}`;
}

/** The names that a query asks for, without asking what they stand for. */
async function onlyNames(
  store: Store,
  kind: Location["kind"],
  query: NameQuery,
): Promise<string[]> {
  const isAll = query.name === undefined && query.digest === undefined;
  if (isAll && store.listNames) return await store.listNames();
  const entries = await namedEntries(store, kind, query);
  return entries.flatMap(({ imageName, refName }) => imageName ?? refName ?? []);
}

/** A blob that no name reaches, as a line of the listing. */
function unreachedEntry({ digest, mediaType, size }: Descriptor): ListedEntry {
  return {
    digest,
    mediaType,
    size,
    kind: null,
    refName: null,
    imageName: null,
    platform: null,
    contentSize: size,
    problem: "no name reaches this blob",
  };
}

/** The entries that a query asks for; all without one. */
async function namedEntries(
  store: Store,
  kind: Location["kind"],
  query: NameQuery,
): Promise<NamedEntry[]> {
  const { name, digest } = query;
  const isAll = name === undefined && digest === undefined;
  // A repository may have thousands of tags, each of which costs a request, and so may a bucket.
  if (isAll || (kind !== "registry" && kind !== "object")) {
    const entries = (await store.list()).filter(
      (entry) =>
        (digest === undefined || entry.descriptor.digest === digest) &&
        (name === undefined || matchesName(entry, name)),
    );
    if (isAll || entries.length > 0) return entries;
  }
  // A name that is not there is answered as everywhere: with the names that are.
  const { descriptor, entry } = await store.resolve(query);
  return [entry ?? { descriptor }];
}

async function printTree(
  context: CommandContext,
  store: ContentReader,
  entries: Parameters<typeof listEntries>[1],
  options: WalkOptions,
  builds: readonly Build[],
): Promise<void> {
  const stepOf = await layerNames(store, entries, builds, options);
  const trees = (await contentTrees(store, entries, options)).map((tree) => nameTree(tree, stepOf));
  await context.result(trees, () => trees.map((tree) => formatTree(tree)).join(""));
}

/** The steps that made the layers of the caches among entries; none without a build. */
async function layerNames(
  store: ContentReader,
  entries: readonly NamedEntry[],
  builds: readonly Build[],
  options: WalkOptions,
): Promise<(digest: string) => string | undefined> {
  if (builds.length === 0) return () => undefined;
  const [{ cacheLabels }, { tryReadCache }] = await Promise.all([
    import("./explain-labels.ts"),
    import("./cache-read.ts"),
  ]);
  const labels: ReturnType<typeof cacheLabels>[] = [];
  for (const { descriptor, problem } of entries) {
    const set = problem === undefined && (await tryReadCache(store, descriptor, options));
    if (set) labels.push(...set.caches.map((cache) => cacheLabels(cache, builds)));
  }
  return (digest) => labels.map((one) => one.layer(digest)).find((name) => name !== undefined);
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
  const problems = entries.flatMap(({ problem }) => (problem === null ? [] : [`! ${problem}\n`]));
  return formatTable(columns, rows, { colors }) + problems.join("");
}
