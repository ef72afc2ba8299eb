/** `cacheport prune --all`: every cache of a place under common limits; which results go is prune.ts. */
import type { DroppedResults, PruneLimits } from "./cache-prune.ts";
import { tryReadCache } from "./cache-read.ts";
import type { CacheSet } from "./cache-read.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { settleNames } from "./cli-replaced.ts";
import type { Settled } from "./cli-replaced.ts";
import { formatFields } from "./cli-table.ts";
import { formatWritten, TargetBefore } from "./cli-target.ts";
import type { Written } from "./cli-target.ts";
import { count } from "./cli-text.ts";
import { droppedText, noteImportLimits, runTransfer } from "./cli-transfer.ts";
import { collectObjectStore, garbageNotes } from "./command-gc.ts";
import type { NamedEntry, NameUpdate, Store } from "./content-store.ts";
import { findMissing } from "./convert.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import type { GarbageReport } from "./gc.ts";
import { IMPORT_LIMIT } from "./cache-manifest.ts";
import { entryLabel } from "./layout-index.ts";
import { locationQuery, openSource, openWriter } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import type { Location } from "./location.ts";
import { planPruneAll } from "./prune.ts";
import type { PrunePlan } from "./prune.ts";
import { formatBytes } from "./units.ts";
import { walk } from "./walk.ts";

type PruneAllArguments = Arguments<
  SharedFlag | "delete-replaced" | "dry-run" | "drop-missing" | "exact" | "fit" | "gc",
  SharedValue | "grace" | "tag"
>;

/** Prunes all caches of the place that is given. */
export async function pruneAll(
  context: CommandContext,
  args: PruneAllArguments,
  settings: StoreSettings,
  limits: PruneLimits,
): Promise<void> {
  const location = args.location(0);
  const { name, digest } = locationQuery(location);
  if (name !== undefined || digest !== undefined || args.values("tag").length > 0) {
    throw new CacheportError(
      "USAGE",
      `Cannot use --all with "${location.text}": it is for all names of a place`,
      { hint: "Leave out the name and --tag" },
    );
  }
  const { store } = await openSource(location, settings);
  try {
    const { caches, fixed } = await listContent(store, settings);
    const sets = caches.map(({ set }) => set);
    const layers = sets.flatMap((set) => set.caches.flatMap((cache) => cache.layers));
    const missing = args.flag("drop-missing")
      ? [...(await findMissing(store, layers, settings))]
      : [];
    const dropLayers = [...(limits.dropLayers ?? []), ...missing];
    const plans = planPruneAll(
      store,
      sets,
      fixed,
      { ...limits, dropLayers },
      {
        exact: args.flag("exact"),
        fit: args.flag("fit") ? IMPORT_LIMIT : undefined,
        limits: settings.limits,
        location: location.text,
      },
    );
    const written: Written = { ...new TargetBefore(location).written([]), moved: [] };
    const removed: string[] = [];
    for (const [at, plan] of plans.entries()) {
      const { entries } = caches[at] as NamedCache;
      if (plan.kind === "smaller") await writeOne(context, args, settings, entries, plan, written);
      if (plan.kind === "empty") {
        if (!args.flag("dry-run")) await removeNames(location, entries, settings);
        removed.push(...entries.map((entry) => entryLabel(entry) ?? entry.descriptor.digest));
      }
    }
    const settled = await settleNames(
      context,
      location,
      settings,
      written,
      args.flag("delete-replaced") && !args.flag("dry-run"),
    );
    const gc = args.flag("gc") ? await collectAfter(context, args, settings, location) : null;
    await report(context, args, { caches, plans, fixed, removed, settled, missing, gc });
  } finally {
    await store.close();
  }
}

/** A cache and the entries that stand for it. */
interface NamedCache {
  set: CacheSet;
  entries: NamedEntry[];
}

/** The caches of a place, and what else its names reach. */
async function listContent(
  store: Store,
  settings: StoreSettings,
): Promise<{ caches: NamedCache[]; fixed: Descriptor[] }> {
  const entries = await store.list();
  const groups = Map.groupBy(entries, ({ descriptor }) => descriptor.digest);
  const caches: NamedCache[] = [];
  const fixed: Descriptor[] = [];
  for (const group of groups.values()) {
    const { descriptor } = group[0] as NamedEntry;
    const set = await tryReadCache(store, descriptor, settings);
    if (set && set.shape !== "inline" && set.shape !== "index-of-caches") {
      caches.push({ set, entries: group });
      continue;
    }
    const nodes = await walk(store, [descriptor], settings);
    fixed.push(...nodes.map((node) => node.descriptor));
  }
  return { caches, fixed };
}

/** Writes one smaller cache under the names of the old one. */
async function writeOne(
  context: CommandContext,
  args: PruneAllArguments,
  settings: StoreSettings,
  entries: readonly NamedEntry[],
  plan: PrunePlan,
  written: Written,
): Promise<void> {
  const location = args.location(0);
  const names = entries.map((entry): NameUpdate => ({ kind: "replace", entry }));
  const { made, before } = await runTransfer(context, args, settings, {
    target: location,
    names,
    dryRun: args.flag("dry-run"),
    write: (writer, options) => plan.write(writer, options),
  });
  const descriptor = made?.descriptor ?? plan.descriptor;
  written.moved.push(...before.written([{ descriptor, names }]).moved);
  noteImportLimits(context, plan.parts, location);
}

/** Takes the names of a cache of which nothing would be left. */
async function removeNames(
  location: Location,
  entries: readonly NamedEntry[],
  settings: StoreSettings,
): Promise<void> {
  const writer = await openWriter(location, settings);
  try {
    for (const entry of entries) {
      const { digest } = entry.descriptor;
      await writer.removeName({
        name: entryLabel(entry) ?? `@${digest}`,
        digest,
        entries: [entry],
      });
    }
  } finally {
    await writer.close();
  }
}

async function report(
  context: CommandContext,
  args: PruneAllArguments,
  done: {
    caches: readonly NamedCache[];
    plans: readonly PrunePlan[];
    fixed: readonly Descriptor[];
    removed: readonly string[];
    settled: Settled;
    missing: readonly string[];
    gc: GarbageReport | null;
  },
): Promise<void> {
  const { caches, plans, fixed, removed, settled, missing, gc } = done;
  const dryRun = args.flag("dry-run");
  const before = totalSize([
    ...caches.flatMap(({ set }) => set.caches.flatMap(({ layers }) => layers)),
    ...fixed,
  ]);
  const kept = plans.filter(({ kind }) => kind !== "empty");
  const after = totalSize([...kept.flatMap(({ pruned }) => pruned.layers), ...fixed]);
  const dropped: DroppedResults = { records: 0, results: 0, layers: [], bytes: before - after };
  const left = new Set(kept.flatMap(({ pruned }) => pruned.layers.map(({ digest }) => digest)));
  const gone = new Map<string, Descriptor>();
  for (const [at, plan] of plans.entries()) {
    const cache = caches[at]?.set.caches[0];
    const isEmpty = plan.kind === "empty";
    dropped.records += isEmpty ? (cache?.config.records.length ?? 0) : plan.pruned.dropped.records;
    dropped.results += isEmpty
      ? (cache?.config.records ?? []).reduce((sum, each) => sum + each.results.length, 0)
      : plan.pruned.dropped.results;
    for (const layer of cache?.layers ?? [])
      if (!left.has(layer.digest)) gone.set(layer.digest, layer);
  }
  dropped.layers = [...gone.values()];
  const value = {
    entries: plans.map((plan, at) => ({
      names: (caches[at]?.entries ?? []).map((entry) => entryLabel(entry)),
      from: caches[at]?.set.descriptor.digest ?? null,
      digest: plan.kind === "empty" ? null : plan.descriptor.digest,
      outcome: plan.kind,
      records: plan.kind === "empty" ? 0 : plan.pruned.config.records.length,
      totalSize: plan.kind === "empty" ? 0 : plan.pruned.size,
    })),
    totalSize: after,
    dropped,
    ...(missing.length > 0 && { missing: missing.length }),
    removed,
    ...settled,
    gc,
    dryRun,
  };
  const isChanged = plans.some(({ kind }) => kind !== "unchanged");
  await context.result(value, () =>
    formatFields(
      [
        isChanged
          ? [dryRun ? "would drop" : "dropped", droppedText(dropped)]
          : ["unchanged", "nothing is over the limits"],
        [
          "left",
          `${count(kept.length, "cache")}, ${formatBytes(after)} with all else that has a name`,
        ],
        ["names removed", removed.join(", ") || undefined],
        ...formatWritten(settled),
        ["deleted", settled.deleted?.join(", ") || undefined],
        [
          "collected",
          gc ? `${count(gc.removed.length, "blob")} (${formatBytes(gc.removedBytes)})` : undefined,
        ],
      ],
      context,
    ),
  );
}

/** Runs gc on the place, for `--gc`. */
export async function collectAfter(
  context: CommandContext,
  args: Arguments<"dry-run", "grace">,
  settings: StoreSettings,
  location: Location,
): Promise<GarbageReport | null> {
  if (args.flag("dry-run")) {
    const place = location.kind === "directory" ? location.path : location.text;
    context.note(
      `What gc would remove is known only once the cache is pruned; cacheport gc ${place} --dry-run tells it then`,
    );
    return null;
  }
  if (location.kind === "object") {
    const options = { grace: args.duration("grace"), dryRun: false };
    const collected = await collectObjectStore(location, settings, options);
    for (const note of garbageNotes(collected)) context.note(note);
    return collected;
  }
  const { path } = location as { path: string };
  const { collectGarbage, DEFAULT_GRACE } = await import("./gc.ts");
  const collected = await collectGarbage(path, {
    ...settings,
    grace: args.duration("grace") ?? DEFAULT_GRACE,
    dryRun: false,
    location: path,
  });
  for (const note of garbageNotes(collected)) context.note(note);
  return collected;
}
