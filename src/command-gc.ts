/** `cacheport gc`: for whom it is and what it says; what goes is decided by gc.ts. */
import { defineCommand } from "./cli-command.ts";
import { CacheportError } from "./errors.ts";
import { collectGarbage, DEFAULT_GRACE } from "./gc.ts";
import type { GarbageReport } from "./gc.ts";
import type { Location } from "./location.ts";
import { openSource, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import type { ObjectStore } from "./object-store.ts";
import { printable } from "./cli-text.ts";
import { formatBytes } from "./units.ts";

/** `cacheport gc LAYOUT`: removes what no name reaches. */
export const gcCommand = defineCommand({
  name: "gc",
  summary: "Remove the blobs of a layout folder or an object store that no name reaches",
  description:
    "Removes every blob that no entry of index.json reaches through indexes, manifests, caches in every shape, subjects and referrers, and what interrupted writers left behind. Nothing is removed when something reachable cannot be read or is of a type that is not known. What is younger than the grace period stays, since a running export writes blobs before it names them. Blobs are moved aside first, the folder is watched until it has been at rest for two seconds (or the grace period, if shorter; at most --lock-timeout), and what a name reaches by then is put back. --grace 0 skips that: it is for when nobody else writes.\n\nIn an object store names and ages are looked at twice, and the grace is 48 hours: an export that finds a blob younger than touch_refresh (24h) names it at its end without writing it again, so a shorter grace is for when nobody exports. The names of all prefixes that share the blobs must be under the one that is given.",
  operands: [
    { name: "LAYOUT", description: "A layout folder, or an object store", kind: "location" },
  ],
  options: [
    {
      name: "grace",
      value: "DURATION",
      description: "Keep what was written since (default 1h; 48h in an object store)",
    },
    {
      name: "dry-run",
      description: "Say what would be removed and remove nothing",
    },
  ],
  examples: [
    {
      command: "cacheport gc ./cache",
      description: "Make a cache folder as small as its names allow",
    },
    {
      command: "cacheport gc ./cache --grace 0 --dry-run",
      description: "What would go, however young",
    },
    {
      command: "cacheport gc ./cache --json | jq .removedBytes",
      description: "The bytes that were reclaimed",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const location = args.location(0);
    if (location.kind === "object") {
      refuseName(location);
      const report = await collectObjectStore(location, settings, {
        grace: args.duration("grace"),
        dryRun: args.flag("dry-run"),
      });
      for (const note of garbageNotes(report)) context.note(note);
      await context.result(report, () => formatReport(report));
      return;
    }
    const folder = layoutFolder(location);
    const report = await collectGarbage(folder, {
      ...settings,
      grace: args.duration("grace") ?? DEFAULT_GRACE,
      dryRun: args.flag("dry-run"),
      location: args.location(0).text,
    });
    for (const note of garbageNotes(report)) context.note(note);
    await context.result(report, () => formatReport(report));
  },
});

/**
 * Removes from an object store what no name reaches.
 *
 * @param options.grace Milliseconds; 48 hours unless given.
 * @throws {CacheportError} GC_REFUSED, NOT_SUPPORTED, STORE_DENIED, ...
 */
export async function collectObjectStore(
  location: Location,
  settings: StoreSettings,
  { grace, dryRun }: { grace: number | undefined; dryRun: boolean },
): Promise<GarbageReport> {
  const { collectObjects, OBJECT_GRACE } = await import("./object-gc.ts");
  const { store } = await openSource(location, settings);
  try {
    const collected = await collectObjects(store as ObjectStore, {
      grace: grace ?? OBJECT_GRACE,
      dryRun,
      jobs: settings.jobs,
      signal: settings.signal,
    });
    return { ...collected, dryRun, leftovers: [], postponed: 0, leftAlone: [] };
  } finally {
    await store.close();
  }
}

/** @throws {CacheportError} NOT_SUPPORTED for anything but a folder, USAGE for a name */
function layoutFolder(location: Location): string {
  if (location.kind !== "directory") {
    const [reason, hint] =
      location.kind === "registry"
        ? [
            "a registry collects its own garbage",
            "Remove names with cacheport untag, then run the registry's own garbage collection",
          ]
        : [
            "only folders can be",
            `Write the archive anew without what nothing names: cacheport copy --all --rewrite ${location.text} NEW.tar`,
          ];
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot collect garbage in "${location.text}": ${reason}`,
      { hint },
    );
  }
  refuseName(location);
  return location.path;
}

/** @throws {CacheportError} USAGE */
function refuseName(location: Extract<Location, { kind: "directory" | "object" }>): void {
  if (location.name === undefined && location.digest === undefined) return;
  const isFolder = location.kind === "directory";
  throw new CacheportError(
    "USAGE",
    `Cannot collect garbage in "${location.text}": it names one entry, and gc works on the whole ${isFolder ? "layout" : "store"}`,
    { hint: isFolder ? `Write: cacheport gc ${location.path}` : "Leave out the name" },
  );
}

/** Things that are named one by one. */
const SHOWN = 10;

/** What a collection has left, and why. */
export function garbageNotes({ young, postponed, leftAlone }: GarbageReport): string[] {
  const found: string[] = [];
  if (young > 0)
    found.push(`${young} blobs that no name reaches stay: they are younger than --grace`);
  if (postponed > 0)
    found.push(
      `${postponed} blobs were put back: another program was writing to the layout all the time`,
    );
  for (const path of leftAlone.slice(0, SHOWN))
    found.push(
      `${printable(JSON.stringify(path))} was left alone: it is not what a layout has there`,
    );
  if (leftAlone.length > SHOWN) found.push(`and ${leftAlone.length - SHOWN} more were left alone`);
  return found;
}

function formatReport({ removed, removedBytes, kept, leftovers, dryRun }: GarbageReport): string {
  const verb = dryRun ? "would remove" : "removed";
  const lines = dryRun
    ? [
        ...removed.map(({ digest, size }) => `${digest} ${formatBytes(size)}`),
        ...leftovers.map(({ path, size }) => `${printable(path)} ${formatBytes(size)}`),
      ]
    : [];
  const extra = leftovers.length === 0 ? "" : ` and ${leftovers.length} left-over files`;
  lines.push(
    `${verb} ${removed.length} blobs (${formatBytes(removedBytes)})${extra}, kept ${kept}`,
  );
  return lines.map((line) => `${line}\n`).join("");
}
