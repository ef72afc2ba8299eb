/** `cacheport expire`: carries out what expire.ts finds to have served its time. */
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import { printable } from "./cli-text.ts";
import { formatTable } from "./cli-table.ts";
import { deletesManifests } from "./content-store.ts";
import type { ContentWriter, NamedEntry, NameWriter, Store } from "./content-store.ts";
import { shortDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { planExpiry } from "./expire.ts";
import type { ExpireRules, Expiry, Verdict } from "./expire.ts";
import type { Location } from "./location.ts";
import { locationQuery, openSource, openWriter, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";

/** `cacheport expire LOC`: removes names of caches by rule. */
export const expireCommand = defineCommand({
  name: "expire",
  summary: "Remove caches by age, count and name",
  description:
    "Removes the names of caches that have served their time, in a repository, a layout folder, an archive or an object store. The age of a cache is that of its newest result: a copy does not make it young. Images and other artifacts are left alone, and so is a cache whose age is not known.\n\nWith --keep the newest N caches stay whatever their age (several names of one cache count once); without --max-age all others go. With --max-age those go that are older.\n\nWhat stays is never harmed: children of indexes that stay, what refers to it and what it refers to are kept. In a registry the manifest is deleted with its tags when nothing else names it, else the tag alone, in the way that the registry has for it; where a registry deletes nothing the exit code is 5. In a folder the blobs go with gc.",
  operands: [
    {
      name: "LOC",
      description: "A repository, a layout, an archive or an object store",
      kind: "location",
    },
  ],
  options: [
    { name: "keep", value: "N", description: "Keep the N newest caches" },
    {
      name: "max-age",
      value: "DURATION",
      description: "Remove caches whose newest result is older",
    },
    {
      name: "tags",
      value: "PATTERN",
      repeat: true,
      description: "Only names like this: pr-*, *-cache",
    },
    { name: "untagged", description: "Remove entries of a layout that have no name, too" },
    { name: "dry-run", description: "Say what would be removed and remove nothing" },
  ],
  examples: [
    {
      command: "cacheport expire registry.example/app/cache --tags 'pr-*' --max-age 14d --dry-run",
      description: "Which caches of pull requests are two weeks old",
    },
    {
      command: "cacheport expire registry.example/app/cache --tags 'main-*' --keep 3",
      description: "Keep the three newest of main",
    },
    {
      command: "cacheport expire ./cache --max-age 30d --untagged",
      description: "Forget old names in a folder; cacheport gc ./cache then frees their blobs",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const location = args.location(0);
    const rules = readRules(args);
    checkLocation(location, rules);
    const { store } = await openSource(location, settings);
    try {
      const expiry = await planExpiry(store, rules, settings);
      const isDryRun = args.flag("dry-run");
      const going = expiry.verdicts.filter(({ goes }) => goes);
      const skipped =
        isDryRun || going.length === 0
          ? new Map<Verdict, string>()
          : await remove(store, location, expiry, settings);
      await report(context, expiry, skipped, isDryRun);
    } finally {
      await store.close();
    }
  },
});

function readRules(args: Arguments<"untagged", "keep" | "max-age" | "tags">): ExpireRules {
  const rules: ExpireRules = {
    keep: args.integer("keep", { min: 0, max: 1_000_000_000 }),
    maxAge: args.duration("max-age"),
    patterns: args.values("tags"),
    untagged: args.flag("untagged"),
    now: Date.now(),
  };
  if (rules.keep !== undefined || rules.maxAge !== undefined || rules.untagged) return rules;
  throw new CacheportError("USAGE", "Cannot expire: no rule says what goes", {
    hint: "Give --keep, --max-age or --untagged",
  });
}

/** @throws {CacheportError} USAGE, NOT_SUPPORTED; REGISTRY_UNSUPPORTED for what a registry does not list */
function checkLocation(location: Location, { untagged }: ExpireRules): void {
  const { text, kind } = location;
  if (kind === "stream")
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot expire names in "${text}": standard input cannot be changed in place`,
    );
  const { name, digest } = locationQuery(location);
  if (name !== undefined || digest !== undefined)
    throw new CacheportError(
      "USAGE",
      `Cannot expire names in "${text}": it names one of them, and rules are about all`,
      { hint: `--tags takes patterns; cacheport untag ${text} removes one name` },
    );
  if (untagged && kind === "registry")
    throw new CacheportError(
      "REGISTRY_UNSUPPORTED",
      `Cannot expire what has no tag in "${text}": registries do not list it`,
      {
        hint: "Let the registry collect its own garbage, or let --delete-replaced leave none behind",
      },
    );
}

/**
 * Removes what goes.
 *
 * @returns What stays after all, and why.
 * @throws {CacheportError} REGISTRY_UNSUPPORTED, REGISTRY_DENIED, LOCK_TIMEOUT, ...
 */
async function remove(
  store: Store,
  location: Location,
  { verdicts, needed }: Expiry,
  settings: StoreSettings,
): Promise<Map<Verdict, string>> {
  const going = Map.groupBy(
    verdicts.filter(({ goes }) => goes),
    ({ entry }) => entry.descriptor.digest,
  );
  const skipped = new Map<Verdict, string>();
  const writer = await openWriter(location, settings);
  try {
    // Others may have given names since the plan was made.
    const added = await namesSince(store, verdicts, needed);
    for (const [digest, group] of going) {
      settings.signal.throwIfAborted();
      const isNeeded = needed.has(digest) || added.has(digest);
      const done = !isNeeded && (await deleteWhole(store, writer, digest, group));
      if (done) continue;
      for (const verdict of group) {
        const reason = await removeOne(writer, verdict);
        if (reason !== undefined) skipped.set(verdict, reason);
      }
    }
  } finally {
    await writer.close();
  }
  return skipped;
}

/** Digests that have a name now which they did not have when the plan was made. */
async function namesSince(
  store: Store,
  verdicts: readonly Verdict[],
  needed: ReadonlySet<Digest>,
): Promise<Set<Digest>> {
  const key = ({ refName, imageName, descriptor }: NamedEntry): string =>
    JSON.stringify([refName, imageName, descriptor.digest]);
  const known = new Set(verdicts.map(({ entry }) => key(entry)));
  const now = await store.list();
  const fresh = now.filter((entry) => !known.has(key(entry)));
  return new Set([...needed, ...fresh.map(({ descriptor }) => descriptor.digest)]);
}

/** Deletes a manifest with all its tags. @returns False where that is not to be done so */
async function deleteWhole(
  store: Store,
  writer: ContentWriter & NameWriter,
  digest: Digest,
  group: readonly Verdict[],
): Promise<boolean> {
  if (!deletesManifests(writer)) return false;
  for (const { name } of group) {
    const now = await store.resolve({ name: name ?? undefined }).catch(() => undefined);
    if (now?.descriptor.digest !== digest) return false;
  }
  try {
    await writer.deleteManifest(digest);
    return true;
  } catch (error) {
    // Another run was quicker.
    if (isCacheportError(error, "BLOB_NOT_FOUND")) return true;
    if (isCacheportError(error, "REGISTRY_UNSUPPORTED")) return false;
    throw error;
  }
}

/** Removes one name. @returns Why it stays, when it does */
async function removeOne(
  writer: NameWriter,
  { name, entry }: Verdict,
): Promise<string | undefined> {
  const { digest } = entry.descriptor;
  try {
    const removed = await writer.removeName({
      name: name ?? `@${digest}`,
      digest,
      entries: [entry],
    });
    return removed ? undefined : "it was moved or removed meanwhile";
  } catch (error) {
    if (isCacheportError(error, "NAME_NOT_FOUND", "NAME_CHANGED"))
      return "it was moved or removed meanwhile";
    throw error;
  }
}

async function report(
  context: CommandContext,
  { verdicts }: Expiry,
  skipped: ReadonlyMap<Verdict, string>,
  dryRun: boolean,
): Promise<void> {
  const line = (verdict: Verdict) => ({
    name: verdict.name,
    digest: verdict.entry.descriptor.digest,
    kind: verdict.kind,
    newest: verdict.newest,
    reason: skipped.get(verdict) ?? verdict.reason,
  });
  const isGone = (verdict: Verdict): boolean => verdict.goes && !skipped.has(verdict);
  const removed = verdicts.filter(isGone).map(line);
  const kept = verdicts.filter((verdict) => !isGone(verdict)).map(line);
  await context.result({ removed, kept, dryRun }, () => {
    const columns = [
      { title: dryRun ? "WOULD GO" : "REMOVED" },
      { title: "NEWEST RESULT" },
      { title: "DIGEST" },
      { title: "WHY" },
    ];
    const rows = removed.map(({ name, newest, digest, reason }) => [
      name ?? "-",
      newest?.slice(0, 19).replace("T", " ") ?? "-",
      shortDigest(digest),
      reason,
    ]);
    const table = rows.length === 0 ? "" : formatTable(columns, rows, { colors: context.colors });
    const late = [...skipped].map(
      ([{ name }, reason]) => `! ${printable(name ?? "-")}: ${reason}\n`,
    );
    const verb = dryRun ? "would remove" : "removed";
    return `${table}${late.join("")}${verb} ${removed.length} names, kept ${kept.length}\n`;
  });
}
