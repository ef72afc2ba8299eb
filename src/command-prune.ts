import type { Arguments, CommandContext, CommandSpec } from "./command.ts";
import type { NameUpdate } from "./content-store.ts";
import { encodeCache, publishCache, sameShape, toWritable } from "./convert.ts";
import type { WritableCache } from "./convert.ts";
import { parseDigest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { parseEntryName } from "./layout-index.ts";
import { encodeCacheManifest } from "./cache-manifest.ts";
import type { CacheShape } from "./cache-manifest.ts";
import { openWriter, storeSettings } from "./open-store.ts";
import type { StoreSettings } from "./open-store.ts";
import { pruneCache } from "./prune-cache.ts";
import type { PrunedCache, PruneLimits } from "./prune-cache.ts";
import { readCache } from "./read-cache.ts";
import { resolveSource } from "./resolve-source.ts";
import type { ResolvedSource } from "./resolve-source.ts";
import { nameTexts } from "./target-names.ts";
import { transferResult } from "./transfer-result.ts";
import { formatFields } from "./table.ts";
import { formatBytes } from "./units.ts";

const NOTHING = { copied: 0, skipped: 0, bytes: 0 };

/** `cacheport prune LOC`: a smaller cache from a bigger one. */
export const pruneCommand: CommandSpec = {
  name: "prune",
  summary: "Drop results from a cache by size and age",
  description:
    "Writes a smaller cache under the same name. Whole results go, the oldest first and of equal age the largest; a layer goes with the last result that needs it, and a record stays while it leads to a result. What is left is imported by BuildKit as before. Blobs stay in the store until gc; --gc runs it at once. Limits that hold nothing back change nothing.",
  operands: [{ name: "LOC", description: "The cache", kind: "location" }],
  options: [
    {
      name: "max-size",
      value: "BYTES",
      description: "Drop results until the layers weigh no more",
    },
    {
      name: "max-age",
      value: "DURATION",
      description: "Drop results that are older",
    },
    {
      name: "keep-newest",
      value: "N",
      description: "Keep the N newest results in any case",
    },
    {
      name: "drop-layer",
      value: "DIGEST",
      repeat: true,
      description: "Drop every result that needs this layer",
    },
    {
      name: "tag",
      short: "t",
      value: "NAME",
      repeat: true,
      description:
        "Write the smaller cache under this name and keep the old one",
    },
    {
      name: "gc",
      description: "Remove what no name reaches any more; folders only",
    },
    {
      name: "grace",
      value: "DURATION",
      description: "With --gc: spare what is younger (default 1h)",
    },
    { name: "dry-run", description: "Say what would go and write nothing" },
  ],
  examples: [
    {
      command: "cacheport prune ./cache --max-age 7d --max-size 5GB --gc",
      description: "A week's cache of at most 5 GB",
    },
    {
      command:
        "cacheport prune registry.example/app/cache:main --max-size 2GB --dry-run",
      description: "What would have to go",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const limits = pruneLimits(args);
    const source = await resolveSource(args.operand(0), settings, args);
    try {
      if (args.flag("gc") && source.location.kind !== "directory") {
        throw new CacheportError(
          "NOT_SUPPORTED",
          `Cannot use --gc on "${source.location.text}": only a layout folder has blobs to collect`,
        );
      }
      await prune(context, args, settings, source, limits);
    } finally {
      await source.store.close();
    }
  },
};

function pruneLimits(args: Arguments): PruneLimits {
  const limits = {
    maxSize: args.bytes("max-size"),
    maxAge: args.duration("max-age"),
    keepNewest: args.integer("keep-newest", { min: 0, max: 1_000_000_000 }),
    dropLayers: args.values("drop-layer").map(parseDigest),
    now: Date.now(),
  };
  const { maxSize, maxAge, dropLayers } = limits;
  if (
    maxSize === undefined &&
    maxAge === undefined &&
    dropLayers.length === 0
  ) {
    throw new CacheportError("USAGE", "Cannot prune: no limit is given", {
      hint: "Give --max-size, --max-age or --drop-layer",
    });
  }
  return limits;
}

async function prune(
  context: CommandContext,
  args: Arguments,
  settings: StoreSettings,
  source: ResolvedSource,
  limits: PruneLimits,
): Promise<void> {
  const { store, descriptor, location } = source;
  const set = await readCache(store, descriptor, settings);
  if (set.shape === "inline") {
    throw new CacheportError(
      "NOT_A_CACHE",
      `Cannot prune "${location.text}": it is an image with an inline cache`,
      {
        hint: "Make a cache of its own first: cacheport convert",
      },
    );
  }
  const before = toWritable(set);
  const pruned = pruneCache(before, limits);
  const isSame = pruned.config === before.config && !before.isNewConfig;
  const after = isSame ? before : encodeCache(pruned);
  const dryRun = args.flag("dry-run");
  if (after.layers.length === 0) {
    context.note(
      `No result would be left, so the cache stays as it is; cacheport untag ${location.text} removes its name`,
    );
    await report(context, args, pruned, undefined, [], null);
    return;
  }
  const names = namesOf(args, source);
  const shape = sameShape(set.shape);
  const made =
    dryRun || isSame
      ? plan(after, shape)
      : await write(settings, source, after, shape, names);
  const collected = args.flag("gc")
    ? await collect(args, settings, source)
    : null;
  await report(context, args, pruned, { ...made, shape }, names, collected);
}

/** The name is moved to the smaller cache, unless --tag gives others. */
function namesOf(
  args: Arguments,
  { entry, location }: ResolvedSource,
): NameUpdate[] {
  const tags = args.values("tag");
  if (tags.length > 0)
    return tags.map((tag) => ({ kind: "set", name: parseEntryName(tag) }));
  if (entry && location.kind !== "stream") return [{ kind: "replace", entry }];
  throw new CacheportError(
    "USAGE",
    `Cannot prune "${location.text}": there is no name that could be moved to the result`,
    { hint: "Give the result a name with --tag" },
  );
}

function plan(
  { configDescriptor: config, layers }: WritableCache,
  shape: CacheShape,
) {
  return encodeCacheManifest({ config, layers }, shape);
}

async function write(
  settings: StoreSettings,
  { location }: ResolvedSource,
  cache: WritableCache,
  shape: CacheShape,
  names: readonly NameUpdate[],
) {
  const writer = await openWriter(location, settings);
  try {
    const { configDescriptor, configBytes } = cache;
    await writer.put(
      configDescriptor,
      { bytes: configBytes },
      { signal: settings.signal },
    );
    return await publishCache(cache, [shape], names, writer, settings.signal);
  } finally {
    await writer.close();
  }
}

/** Runs gc on the folder; with --dry-run it tells only what is unreachable already. */
async function collect(
  args: Arguments,
  settings: StoreSettings,
  { location }: ResolvedSource,
) {
  const { collectGarbage, DEFAULT_GRACE } = await import("./gc.ts");
  return collectGarbage((location as { path: string }).path, {
    ...settings,
    grace: args.duration("grace") ?? DEFAULT_GRACE,
    dryRun: args.flag("dry-run"),
  });
}

async function report(
  context: CommandContext,
  args: Arguments,
  pruned: PrunedCache,
  made:
    | { descriptor: WritableCache["configDescriptor"]; shape: CacheShape }
    | undefined,
  names: readonly NameUpdate[],
  collected: Awaited<ReturnType<typeof collect>> | null,
): Promise<void> {
  const { dropped, size } = pruned;
  const value = {
    ...transferResult(
      made?.descriptor,
      made?.shape ?? null,
      nameTexts(names),
      NOTHING,
    ),
    layersSize: size,
    dropped,
    gc: collected,
    dryRun: args.flag("dry-run"),
  };
  const verb = value.dryRun ? "would drop" : "dropped";
  await context.result(value, () =>
    formatFields(
      [
        [
          verb,
          `${dropped.results} results, ${dropped.records} records, ${dropped.layers.length} layers (${formatBytes(dropped.bytes)})`,
        ],
        [
          "left",
          `${formatBytes(size)} in ${new Set(pruned.layers.map((layer) => layer.digest)).size} layers`,
        ],
        ["digest", value.digest ?? undefined],
        ["names", value.names.join(", ") || undefined],
        [
          collected?.dryRun ? "would collect" : "collected",
          collected
            ? `${collected.removed.length} blobs (${formatBytes(collected.removedBytes)})`
            : undefined,
        ],
      ],
      context,
    ),
  );
}
