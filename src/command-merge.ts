/** `cacheport merge`: opens the sources and the target; what becomes of them is merge.ts. */
import { arch } from "node:os";
import { CACHE_SHAPES } from "./cache-manifest.ts";
import type { CacheShape, ReadableShape } from "./cache-manifest.ts";
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { EntryName, NamedEntry, NameUpdate, Store } from "./content-store.ts";
import { shapeOfAttributes } from "./location-attributes.ts";
import { totalSize } from "./descriptor.ts";
import type { Platform } from "./descriptor.ts";
import { NOTHING_MOVED } from "./copy.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { planIndex, planMerge } from "./merge.ts";
import type { CacheSource, MergePlan } from "./merge.ts";
import { defaultName, folderNear, locationName, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { SourceStores } from "./location-sources.ts";
import { formatPlatform, localPlatform, parsePlatform } from "./platform.ts";
import { readCache } from "./cache-read.ts";
import type { CacheSet } from "./cache-read.ts";
import { chooseNames, fitNames, nameTexts } from "./location-names.ts";
import type { Preference } from "./cache-donors.ts";
import { BUILD_OPTION, openAllBuilds } from "./cli-builds.ts";
import { conflictTable, nameConflicts, placeConflicts } from "./cli-conflicts.ts";
import type { PlacedConflict } from "./cli-conflicts.ts";
import { dropBlobs } from "./cache-prune.ts";
import type { DroppedResults } from "./cache-prune.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { DELETE_REPLACED_OPTION, settleNames } from "./cli-replaced.ts";
import { isNewTarget, TargetBefore } from "./cli-target.ts";
import type { Written } from "./cli-target.ts";
import { count } from "./cli-text.ts";
import {
  droppedText,
  formatTransfer,
  noteImportLimits,
  printTransfer,
  runTransfer,
  transferResult,
} from "./cli-transfer.ts";
import type { TransferResult } from "./cli-transfer.ts";
import { findMissing } from "./convert.ts";
import { configBlob, shapesToTry } from "./plan.ts";
import type { PlanPart } from "./plan.ts";
import { formatBytes } from "./units.ts";

/** `cacheport merge SRC... DST`: several caches as one. */
export const mergeCommand = defineCommand({
  name: "merge",
  summary: "Merge several caches into one",
  description:
    "Writes one cache that has what each of the sources has. Jobs of a matrix, or of several platforms, would overwrite each other's cache: let each export its own and a last job merge them. Records with the same key and inputs become one, with the newest result; layers are shared. The order of the sources does not matter, and DST may be the place of one of them.\n\nA build with the merge finds what it would have found with any of the sources. Caches of images (inline) and indexes of caches can be sources, too. The result has the name that stands in DST or that --tag gives, else the one that all sources have, else latest.\n\nWith --as-index the caches stay apart, one for each platform, in an index from which convert --platform takes one again; BuildKit itself does not import such an index.",
  operands: [
    {
      name: "SRC",
      description: "The caches to merge",
      kind: "location",
      repeat: true,
    },
    { name: "DST", description: "Where to write the result", kind: "location", target: true },
  ],
  options: [
    {
      name: "to",
      value: "SHAPE",
      choices: [...CACHE_SHAPES, "auto"],
      description:
        "Shape to write (default image-manifest); auto takes the one that all sources have",
    },
    {
      name: "tag",
      short: "t",
      value: "NAME",
      repeat: true,
      description: "Name of the result, a tag or a full image name",
    },
    {
      name: "prefer",
      value: "WHOSE",
      choices: ["newest", "first"],
      description:
        "Where caches have other results for the same records: those of the cache with the newest one (default), or of the first source",
    },
    BUILD_OPTION,
    {
      name: "drop-missing",
      description: "Drop the results that need a blob which is not there",
    },
    {
      name: "exact",
      description: "BuildKit's own bytes: join no leaves",
    },
    DELETE_REPLACED_OPTION,
    {
      name: "as-index",
      description: "Write an index with one cache for each platform",
    },
    {
      name: "platform",
      value: "OS/ARCH[/VARIANT]",
      repeat: true,
      description:
        "With --as-index: the platform of each source that does not say it, in their order",
    },
    {
      name: "dry-run",
      description: "Say what would be written and write nothing",
    },
  ],
  examples: [
    {
      command: "cacheport merge ./cache-amd64 ./cache-arm64 ./cache",
      description: "One cache for builds on both platforms",
    },
    {
      command:
        "cacheport merge registry.example/app/cache:job-1 registry.example/app/cache:job-2 registry.example/app/cache:main",
      description: "The caches of two jobs, in their registry",
    },
    {
      command: "cacheport merge ./cache:main ./cache:feature ./cache:main",
      description: "Add what a branch has to the cache of main",
    },
    {
      command:
        "cacheport merge --as-index --platform linux/amd64 --platform linux/arm64 ./cache-amd64 ./cache-arm64 ./cache",
      description: "Both caches under one name, each for its platform",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const target = args.location(args.locations.length - 1);
    await refuseForgottenTarget(args.locations, settings);
    const shape = chosenShape(args, target);
    const stores = new SourceStores(settings, folderNear(target));
    try {
      const inputs: MergeInput[] = [];
      for (const place of args.locations.slice(0, -1)) {
        const { store, location, query } = await stores.open(place);
        const { descriptor, entry } = await store.resolve(query);
        const set = await readCache(store, descriptor, settings);
        inputs.push({ location, store, entry, set });
      }
      for (const note of targetNotes(target)) context.note(note);
      await merge(context, args, settings, inputs, target, shape);
    } finally {
      await stores.close();
    }
  },
});

/**
 * One cache is nothing to merge: where two locations are there, the target was forgotten as
 * a rule, and the second cache would be replaced by the first one.
 *
 * @throws {CacheportError} USAGE
 */
async function refuseForgottenTarget(
  locations: readonly Location[],
  settings: StoreSettings,
): Promise<void> {
  const place = locations[1];
  if (!place || locations.length !== 2 || (await isNewTarget(place, settings))) return;
  const [source, target] = locations.map(({ text }) => text);
  throw new CacheportError(
    "USAGE",
    `Cannot merge "${source}" alone into "${target}": a merge takes two caches or more, then the target`,
    {
      hint: `To add one to the other: cacheport merge ${source} ${target} ${target}; for a copy: cacheport copy ${source} ${target}`,
    },
  );
}

type MergeArguments = Arguments<
  SharedFlag | "as-index" | "delete-replaced" | "drop-missing" | "dry-run" | "exact",
  SharedValue | "build" | "platform" | "prefer" | "tag"
>;

/** A cache of a source, and how the user wrote the source. */
interface MergeSource extends CacheSource {
  location: string;
}

/** One source of a merge. */
interface MergeInput {
  location: Location;
  store: Store;
  entry: NamedEntry | undefined;
  set: CacheSet;
}

/** The shape that --to asks for, else the target's attributes in BuildKit's own spelling. */
function chosenShape(args: Arguments<"as-index", "to">, target: Location): CacheShape | "auto" {
  const given = args.value("to");
  if (given === undefined) return shapeOfAttributes(target.attributes);
  if (!args.flag("as-index")) return given as CacheShape | "auto";
  throw new CacheportError(
    "USAGE",
    "Cannot use --to with --as-index: the caches in an index are image manifests",
  );
}

function targetNotes({ attributes }: Location): string[] {
  if (!attributes) return [];
  return attributes.compression === undefined
    ? attributes.notes
    : [
        ...attributes.notes,
        `compression=${attributes.compression} has no effect: a merge keeps layers as they are, and cacheport convert --compression recompresses them`,
      ];
}

async function merge(
  context: CommandContext,
  args: MergeArguments,
  settings: StoreSettings,
  inputs: readonly MergeInput[],
  target: Location,
  to: CacheShape | "auto",
): Promise<void> {
  const builds = await openAllBuilds(args.values("build"), settings);
  const all = inputs.flatMap((input) =>
    input.set.caches.map((cache) => ({ store: input.store, cache, location: input.location.text })),
  );
  const dropped = args.flag("drop-missing") ? await dropMissing(all, settings) : undefined;
  const sources = dropped?.sources ?? all;
  const platforms = sourcePlatforms(args, sources);
  const tags = args.values("tag");
  const names = fitNames(
    chooseNames(tags, locationName(target), commonName(inputs), defaultName(target)),
    target,
    tags,
  );
  const choice = {
    prefer: (args.value("prefer") ?? "newest") as Preference,
    exact: args.flag("exact"),
  };
  const plan = platforms
    ? planIndex(
        sources.map((source, at) => ({
          ...source,
          platform: platforms[at] as Platform,
        })),
        choice,
      )
    : planMerge(sources, shapesToTry(commonShape(sources), to), choice);
  if (!plan) context.note("skipping cache export for empty result");
  const dryRun = args.flag("dry-run");
  const { made, before } = plan
    ? await write(context, args, settings, target, plan, names)
    : { before: new TargetBefore(target) };
  const parts = plan?.parts ?? [];
  noteImportLimits(context, parts, target);
  const written = made ?? (plan && { ...plan, counts: NOTHING_MOVED });
  const descriptor = written?.descriptor;
  const conflicts = await nameConflicts(
    placeConflicts(
      plan?.conflicts ?? [],
      sources.map(({ location }) => location),
    ),
    sources.map(({ cache }) => cache),
    builds,
  );
  const settled = await settleNames(
    context,
    target,
    settings,
    before.written(descriptor ? [{ descriptor, names }] : []),
    made !== undefined && args.flag("delete-replaced"),
  );
  const value = {
    ...transferResult(
      descriptor,
      written?.shape ?? null,
      written ? nameTexts(names) : [],
      written?.counts ?? NOTHING_MOVED,
    ),
    ...settled,
    ...describeParts(parts),
    sources: inputs.map(({ location, set }) => ({
      location: location.text,
      digest: set.descriptor.digest,
      shape: set.shape,
    })),
    ...(conflicts.length > 0 && { conflicts }),
    ...(dropped && { dropped: dropped.dropped }),
    dryRun,
  };
  await printTransfer(context, target, value, () =>
    written ? render(value, sources.length, context) : "",
  );
}

/** The sources without what needs blobs that they have not, and what that was. */
async function dropMissing(
  sources: readonly MergeSource[],
  settings: StoreSettings,
): Promise<{ sources: MergeSource[]; dropped: DroppedResults }> {
  const dropped: DroppedResults = { records: 0, results: 0, layers: [], bytes: 0 };
  const left: MergeSource[] = [];
  for (const source of sources) {
    const missing = await findMissing(source.store, source.cache.layers, settings);
    const smaller = missing.size > 0 ? dropBlobs(source.cache, missing) : undefined;
    left.push(
      smaller
        ? {
            ...source,
            cache: { ...source.cache, ...smaller.cache, blob: configBlob(smaller.cache) },
          }
        : source,
    );
    if (!smaller) continue;
    dropped.records += smaller.dropped.records;
    dropped.results += smaller.dropped.results;
    for (const layer of smaller.dropped.layers) dropped.layers.push(layer);
    dropped.bytes += smaller.dropped.bytes;
  }
  return { sources: left, dropped };
}

async function write(
  context: CommandContext,
  args: MergeArguments,
  settings: StoreSettings,
  target: Location,
  plan: MergePlan,
  names: readonly NameUpdate[],
) {
  try {
    return await runTransfer(context, args, settings, {
      target,
      names,
      dryRun: args.flag("dry-run"),
      write: (writer, options) => plan.write(writer, options),
    });
  } catch (error) {
    if (!isCacheportError(error, "REGISTRY_REJECTED")) throw error;
    // What the registry's own hint tells is how to convert one source.
    const hint =
      error.remedy?.do === "write-image-manifest"
        ? "Leave out --to: every registry takes an image manifest"
        : (error.hint ?? error.remedy);
    throw new CacheportError(error.code, error.message, { hint, cause: error });
  }
}

/** The name that all sources have; an inline cache has none, for the image's name stays with the image. */
function commonName(inputs: readonly MergeInput[]): EntryName | undefined {
  const [first, ...others] = inputs.map(({ entry, set }) =>
    set.shape === "inline" ? undefined : entry,
  );
  const isCommon = others.every(
    (other) => other?.refName === first?.refName && other?.imageName === first?.imageName,
  );
  return isCommon ? first : undefined;
}

/** The shape that all sources have. */
function commonShape(sources: readonly CacheSource[]): ReadableShape | undefined {
  const shapes = new Set(sources.map(({ cache }) => cache.shape));
  return shapes.size === 1 ? [...shapes][0] : undefined;
}

/** The platform of each cache for --as-index; undefined without that option. */
function sourcePlatforms(
  args: Arguments<"as-index", "platform">,
  sources: readonly CacheSource[],
): Platform[] | undefined {
  const given = args.values("platform");
  if (!args.flag("as-index")) {
    if (given.length === 0) return undefined;
    throw new CacheportError("USAGE", "Cannot use --platform here: it goes with --as-index", {
      hint: "A merge is for all platforms of its sources; take one platform out of an index with cacheport convert --platform",
    });
  }
  const local = localPlatform("linux", arch());
  const rest = given.map((text) => parsePlatform(text, local));
  const unknown = sources.filter(({ cache }) => !cache.platform).length;
  if (given.length !== unknown) {
    throw new CacheportError(
      "USAGE",
      `Cannot tell the platforms of ${unknown} caches from ${given.length} --platform options`,
      {
        hint: "Give one for each source that is not from an index with platforms, in their order",
      },
    );
  }
  return sources.map(({ cache }) => cache.platform ?? (rest.shift() as Platform));
}

/** What a merge consists of, for its JSON value. */
function describeParts(parts: readonly PlanPart[]) {
  const described = parts.map(({ platform, cache, manifest }) => ({
    platform: platform ? formatPlatform(platform) : null,
    digest: manifest.descriptor.digest,
    records: cache.config.records.length,
    totalSize: totalSize(cache.layers),
  }));
  const joinedLeaves = parts.reduce(
    (sum, { cache }) => sum + (cache.config.joined?.length ?? 0),
    0,
  );
  return {
    records: described.reduce((sum, { records }) => sum + records, 0),
    totalSize: totalSize(parts.flatMap(({ cache }) => cache.layers)),
    ...(joinedLeaves > 0 && { joinedLeaves }),
    ...(parts.some(({ platform }) => platform) && { manifests: described }),
  };
}

function render(
  value: TransferResult &
    Written &
    ReturnType<typeof describeParts> & {
      conflicts?: PlacedConflict[];
      dropped?: DroppedResults;
      dryRun: boolean;
    },
  caches: number,
  context: CommandContext,
): string {
  const { shape, records, totalSize: size, joinedLeaves = 0, manifests = [] } = value;
  const { conflicts = [], dropped, dryRun } = value;
  const fields: [string, string | undefined][] = [
    [dryRun ? "would merge" : "merged", `${count(caches, "cache")} -> ${shape}`],
    ["records", `${records}, with ${formatBytes(size)} of layers`],
    ["joined leaves", joinedLeaves > 0 ? `${joinedLeaves}` : undefined],
    ["dropped", dropped && dropped.results > 0 ? droppedText(dropped) : undefined],
    ...manifests.map(({ platform, digest }): [string, string] => [platform ?? "", digest]),
  ];
  return formatTransfer(value, fields, context) + conflictTable(conflicts, context);
}
