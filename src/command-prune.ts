/** `cacheport prune`: limits, names and what is collected after; which results go is prune.ts. */
import { BUILD_OPTION, openAllBuilds } from "./cli-builds.ts";
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { NameUpdate } from "./content-store.ts";
import { findMissing } from "./convert.ts";
import { isDigest, isDigestStart, shortDigest } from "./digest.ts";
import { chooseDigest } from "./location-digest.ts";
import { CacheportError } from "./errors.ts";
import type { GarbageReport } from "./gc.ts";
import { parseEntryName } from "./layout-index.ts";
import type { Location } from "./location.ts";
import { storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { DELETE_REPLACED_OPTION, settleNames } from "./cli-replaced.ts";
import type { Settled } from "./cli-replaced.ts";
import { collectAfter, pruneAll } from "./command-prune-all.ts";
import { IMPORT_LIMIT } from "./cache-manifest.ts";
import { checkPresence } from "./plan.ts";
import { planPrune } from "./prune.ts";
import type { PrunePlan } from "./prune.ts";
import type { PruneLimits } from "./cache-prune.ts";
import { readCache } from "./cache-read.ts";
import type { CacheSet } from "./cache-read.ts";
import { resolveSource } from "./location-source.ts";
import type { ResolvedSource } from "./location-source.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { formatFields } from "./cli-table.ts";
import { fitNames, nameTexts } from "./location-names.ts";
import { formatWritten, TargetBefore } from "./cli-target.ts";
import { count } from "./cli-text.ts";
import { droppedText, noteImportLimits, runTransfer, transferResult } from "./cli-transfer.ts";
import { formatBytes } from "./units.ts";

/** `cacheport prune LOC`: a smaller cache from a bigger one. */
export const pruneCommand = defineCommand({
  name: "prune",
  summary: "Drop results from a cache by size and age",
  description:
    "Writes a smaller cache under the same name. What goes are results of steps, the oldest first and of the same age the largest; a layer goes with the last result that needs it, and a result that costs no layer of its own stays. What is left, BuildKit imports as before; what went, it builds anew. Limits that hold nothing back change nothing, and a cache of which nothing would be left stays as it is: untag removes its name.\n\nOnly the cache's own documents are written. The blobs stay in the store until gc; --gc runs it on a folder or an object store at once.",
  operands: [{ name: "LOC", description: "The cache to prune", kind: "location" }],
  options: [
    BUILD_OPTION,
    {
      name: "max-size",
      value: "BYTES",
      description: "Drop results until the layers weigh no more",
    },
    {
      name: "max-age",
      value: "DURATION",
      description: "Drop results that were made longer ago",
    },
    {
      name: "keep-newest",
      value: "N",
      description:
        "Keep the N newest results, whatever their size and age; without --max-size and --max-age, these alone",
    },
    {
      name: "drop-layer",
      value: "DIGEST",
      repeat: true,
      description: "Drop every result that needs this layer, named by the start of its digest",
    },
    {
      name: "drop-missing",
      description: "Drop every result that needs a layer which is not there",
    },
    {
      name: "fit",
      description:
        "Bring manifest and cache config under the 1 MiB that BuildKit imports; what costs the fewest bytes to build again goes first",
    },
    {
      name: "all",
      short: "a",
      description:
        "Prune every cache of LOC under common limits: what they weigh together counts, with everything else that has a name",
    },
    {
      name: "exact",
      description: "Join no leaves of the result, even where BuildKit's import could lose hits",
    },
    {
      name: "tag",
      short: "t",
      value: "NAME",
      repeat: true,
      description: "Write the smaller cache under this name and keep the old one",
    },
    DELETE_REPLACED_OPTION,
    {
      name: "gc",
      description: "Then remove what no name reaches, from a layout folder or an object store",
    },
    {
      name: "grace",
      value: "DURATION",
      description: "With --gc: keep what was written since (default 1h; 48h in an object store)",
    },
    { name: "dry-run", description: "Say what would go and write nothing" },
  ],
  examples: [
    {
      command: "cacheport prune ./cache --max-age 7d --max-size 5GB --gc",
      description: "The results of a week, at most 5 GB of them",
    },
    {
      command: "cacheport prune ./cache:main --keep-newest 50 --tag main-small",
      description: "A second cache with the 50 newest results",
    },
    {
      command: "cacheport prune ./cache --all --max-size 5GB --gc",
      description: "At most 5 GB in a folder, over all its names",
    },
    {
      command: "cacheport prune registry.example/app/cache:main --max-size 2GB --dry-run",
      description: "What would have to go",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const limits = pruneLimits(args);
    checkUsage(args, args.location(0));
    if (args.flag("all")) return pruneAll(context, args, settings, limits);
    const source = await resolveSource(args.location(0), settings, undefined);
    try {
      await prune(context, args, settings, source, limits);
    } finally {
      await source.store.close();
    }
  },
});

function pruneLimits(
  args: Arguments<
    "all" | "drop-missing" | "fit",
    "max-size" | "max-age" | "keep-newest" | "drop-layer"
  >,
): PruneLimits {
  const limits = {
    maxSize: args.bytes("max-size"),
    maxAge: args.duration("max-age"),
    keepNewest: args.integer("keep-newest", { min: 0, max: 1_000_000_000 }),
    // Which layers are meant by the start of their digests is known with the cache.
    dropLayers: args.values("drop-layer").filter(isDigest),
    now: Date.now(),
  };
  for (const text of args.values("drop-layer")) {
    if (isDigest(text) || (isDigestStart(text) && !args.flag("all"))) continue;
    throw new CacheportError(
      "USAGE",
      `Cannot drop layer ${JSON.stringify(text.slice(0, 100))}: it is no digest and no start of one`,
      {
        hint: isDigestStart(text)
          ? "With --all write the whole digest"
          : "Write seven digits or more, as cacheport inspect shows them",
      },
    );
  }
  const { maxSize, maxAge, keepNewest } = limits;
  if ((maxSize ?? maxAge ?? keepNewest ?? args.value("drop-layer")) !== undefined) return limits;
  if (args.flag("drop-missing") || args.flag("fit")) return limits;
  throw new CacheportError("USAGE", "Cannot prune: no limit is given", {
    hint: "Give --max-size, --max-age, --keep-newest, --drop-layer, --drop-missing or --fit",
  });
}

function checkUsage(args: Arguments<"gc", "grace">, location: Location): void {
  if (location.kind === "stream") {
    throw new CacheportError(
      "USAGE",
      "Cannot prune standard input: there is nothing to write the result to",
      { hint: "Copy it to a folder first: cacheport copy - ./cache" },
    );
  }
  if (!args.flag("gc")) {
    if (args.value("grace") === undefined) return;
    throw new CacheportError("USAGE", "Cannot use --grace here: it goes with --gc");
  }
  if (location.kind !== "directory" && location.kind !== "object") {
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot use --gc on "${location.text}": it is for layout folders and object stores`,
      {
        hint: "Leave out --gc: what is not named any more, a registry collects itself and copy --all --rewrite leaves out of an archive",
      },
    );
  }
}

/** What writing needs to know of the command line. */
type PruneArguments = Arguments<
  SharedFlag | "delete-replaced" | "dry-run" | "drop-missing" | "exact" | "fit" | "gc",
  SharedValue | "build" | "drop-layer" | "grace" | "tag"
>;

async function prune(
  context: CommandContext,
  args: PruneArguments,
  settings: StoreSettings,
  source: ResolvedSource,
  limits: PruneLimits,
): Promise<void> {
  const { store, location } = source;
  const set = await readCache(store, source.descriptor, settings);
  const known = new Set(set.caches.flatMap(({ layers }) => layers.map(({ digest }) => digest)));
  const named = args.values("drop-layer").flatMap((text) => {
    const digest = chooseDigest(known, text, `Cannot drop layer ${JSON.stringify(text)}`);
    if (!digest) context.note(`The cache has no layer ${text}, so none is dropped`);
    return digest ?? [];
  });
  const missing = args.flag("drop-missing")
    ? [
        ...(await findMissing(
          store,
          set.caches.flatMap(({ layers }) => layers),
          settings,
        )),
      ]
    : [];
  const dropLayers = [...named, ...missing];
  const plan = planPrune(
    store,
    set,
    { ...limits, dropLayers },
    {
      exact: args.flag("exact"),
      fit: args.flag("fit") ? IMPORT_LIMIT : undefined,
      limits: settings.limits,
      location: location.text,
    },
  );
  // A registry looks itself when it takes the manifest.
  if (plan.kind === "smaller" && location.kind !== "registry") {
    await checkPresence(store, plan.parts[0]?.cache.layers ?? [], {
      ...settings,
      verb: "prune",
    });
  }
  const names = namesOf(args, source);
  const isNew = plan.kind === "smaller" || args.values("tag").length > 0;
  const isWritten = isNew && plan.kind !== "empty";
  const { made, before } = isWritten
    ? await runTransfer(context, args, settings, {
        target: location,
        names,
        dryRun: args.flag("dry-run"),
        sourceOf: () => location.text,
        write: (writer, options) => plan.write(writer, options),
      })
    : { before: new TargetBefore(location) };
  if (plan.kind === "empty") {
    context.note(
      `No result would be left, so the cache stays as it is; cacheport untag ${location.text} removes its name`,
    );
  }
  noteImportLimits(context, plan.parts, location);
  const collected = args.flag("gc") ? await collectAfter(context, args, settings, location) : null;
  const shown = plan.kind === "empty" ? keptNames(source) : names;
  const descriptor = made?.descriptor ?? plan.descriptor;
  const settled = await settleNames(
    context,
    location,
    settings,
    before.written(isWritten && descriptor ? [{ descriptor, names }] : []),
    made !== undefined && args.flag("delete-replaced"),
  );
  const steps = await droppedSteps(args, settings, set, plan);
  await report(context, args, plan, shown, settled, steps, missing.length, collected);
}

/** What made the layers that go, where a build tells; null without one. */
async function droppedSteps(
  args: Arguments<never, "build">,
  settings: StoreSettings,
  { caches }: CacheSet,
  { pruned }: PrunePlan,
): Promise<string[] | null> {
  if (args.values("build").length === 0) return null;
  const { cacheLabels } = await import("./explain-labels.ts");
  const builds = await openAllBuilds(args.values("build"), settings);
  const labels = caches.map((cache) => cacheLabels(cache, builds));
  const names = pruned.dropped.layers.map(
    ({ digest }) =>
      labels.map((label) => label.layer(digest)).find((name) => name !== undefined) ??
      shortDigest(digest),
  );
  return [...new Set(names)];
}

/** The name is moved to the smaller cache, unless --tag gives others. */
function namesOf(args: Arguments<never, "tag">, source: ResolvedSource): NameUpdate[] {
  const { location } = source;
  const tags = args.values("tag");
  const names: NameUpdate[] =
    tags.length > 0
      ? tags.map((tag) => ({ kind: "set", name: parseEntryName(tag) }))
      : keptNames(source);
  if (names.length > 0) return fitNames(names, location, tags);
  throw new CacheportError(
    "USAGE",
    `Cannot prune "${location.text}": there is no name that could be moved to the result`,
    { hint: "Give the result a name with --tag" },
  );
}

function keptNames({ entry }: ResolvedSource): NameUpdate[] {
  return entry ? [{ kind: "replace", entry }] : [];
}

async function report(
  context: CommandContext,
  args: Arguments<"dry-run", never>,
  plan: PrunePlan,
  names: readonly NameUpdate[],
  settled: Settled,
  steps: string[] | null,
  missing: number,
  collected: GarbageReport | null,
): Promise<void> {
  const { pruned, descriptor, shape } = plan;
  const { dropped } = pruned;
  const layers = new Set(pruned.layers.map(({ digest }) => digest)).size;
  const { joined } = pruned.config;
  const dryRun = args.flag("dry-run");
  const value = {
    ...transferResult(descriptor, shape, nameTexts(names), {
      copied: 0,
      skipped: dryRun ? 0 : layers,
      bytes: 0,
    }),
    records: pruned.config.records.length,
    totalSize: pruned.size,
    ...settled,
    dropped,
    ...(steps && { droppedSteps: steps }),
    ...(missing > 0 && { missing }),
    ...(joined && { joinedLeaves: joined.length }),
    outcome: plan.kind,
    gc: collected,
    dryRun,
  };
  await context.result(value, () =>
    formatFields(
      [
        plan.kind === "unchanged"
          ? ["unchanged", "nothing is over the limits"]
          : [dryRun ? "would drop" : "dropped", droppedText(dropped)],
        ["steps", steps && steps.length > 0 ? steps.join("; ") : undefined],
        ["missing", missing > 0 ? count(missing, "layer") : undefined],
        [
          "left",
          `${count(value.records, "record")}, ${count(layers, "layer")} (${formatBytes(value.totalSize)})`,
        ],
        ["joined leaves", joined && `${joined.length}`],
        ["digest", descriptor?.digest],
        ["names", value.names.join(", ") || undefined],
        ...(plan.kind === "smaller" ? formatWritten(settled) : []),
        ["deleted", settled.deleted?.join(", ") || undefined],
        [
          "collected",
          collected
            ? `${count(collected.removed.length, "blob")} (${formatBytes(collected.removedBytes)})`
            : undefined,
        ],
      ],
      context,
    ),
  );
}
