/** `cacheport verify`: shows the problems that verify.ts finds, by their severity. */
import { availableParallelism } from "node:os";
import type { Cache } from "./cache-layers.ts";
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import { conflictTable, placeConflicts } from "./cli-conflicts.ts";
import type { PlacedConflict } from "./cli-conflicts.ts";
import { gcHint } from "./cli-hints.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import type { NamedEntry, NameQuery, Store } from "./content-store.ts";
import { CacheportError, EXIT_CODES, isCacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { openSource, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { colored, count, printable } from "./cli-text.ts";
import { formatBytes } from "./units.ts";
import type { ObjectStore } from "./object-store.ts";
import { verifyStore } from "./verify.ts";
import type { VerifyObjectsOptions } from "./verify-objects.ts";
import type { VerifyResult } from "./verify.ts";
import { PROBLEMS } from "./verify-problem.ts";
import type { Owner, Problem, Severity } from "./verify-problem.ts";

/** Lines that are shown of one kind of problem; `--json` has them all. */
const SHOWN = 20;

const CODES = Object.entries(PROBLEMS)
  .map(([code, [severity, meaning]]) => `${code} (${severity}): ${meaning}`)
  .join("\n");

/** `cacheport verify LOC`: is everything there and as it should be. */
export const verifyCommand = defineCommand({
  name: "verify",
  summary: "Check digests, sizes, media types and what BuildKit would refuse",
  description: `Hashes everything that a name reaches, or all names without one, and checks it: sizes, media types, the shape of the documents, and for a cache every rule by which BuildKit refuses it or silently drops a part. It never stops at the first fault. Exit code 4 when there are errors; warnings and notes do not count.\n\nIn an object store one list tells what is there and in which size, and layers are read with --deep only; what the store's own rules remove by age is told with its date.\n\nSeveral places are verified one by one, and their caches as a set: records that they have with other results are told, since BuildKit, given all of them, misses what follows such a record.\n\nThe codes of the problems:\n${CODES}`,
  operands: [
    {
      name: "LOC",
      description: "What to verify; several as a set",
      kind: "location",
      repeat: true,
    },
  ],
  options: [
    {
      name: "deep",
      description:
        "Decompress layers as well and check their diffIDs; in an object store, read layers at all",
    },
    {
      name: "lifecycle",
      value: "DAYS",
      description:
        "Say when a rule that removes objects of this age breaks a cache in an object store",
    },
  ],
  examples: [
    {
      command: "cacheport verify ./cache",
      description: "Everything that the names of a cache folder reach",
    },
    {
      command: "cacheport verify image.tar --deep",
      description: "An archive, its layers unpacked as well",
    },
    {
      command: "cacheport verify ./cache registry.example/app/cache:main",
      description: "Two caches that one build imports: do they agree?",
    },
    {
      command: "cacheport verify registry.example/app/cache:main --json | jq .problems",
      description: "One tag of a repository, for scripts",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const verified: Verified[] = [];
    for (const location of args.locations)
      verified.push(await verifyLocation(context, args, settings, location));
    const [only] = verified;
    const ok = verified.every(({ result }) => result.ok);
    if (only && verified.length === 1) {
      await context.result(only.result, () => formatResult(only, context));
      return ok ? 0 : EXIT_CODES.VERIFY_FAILED;
    }
    const conflicts = await findDisagreements(verified);
    const value = {
      ok,
      locations: verified.map(({ location, result }) => ({ location: location.text, ...result })),
      conflicts,
    };
    await context.result(value, () =>
      [
        ...verified.map(
          (each) => `${printable(each.location.text)}:\n${formatResult(each, context)}`,
        ),
        conflictTable(conflicts, context),
      ].join(""),
    );
    return ok ? 0 : EXIT_CODES.VERIFY_FAILED;
  },
});

type VerifyArguments = Arguments<"deep" | SharedFlag, "lifecycle" | SharedValue>;

/** A place, what was found there, and the cache that it holds. */
interface Verified {
  location: Location;
  result: VerifyResult;
  /** Of several places only; undefined where it is no cache, or one that cannot be read. */
  cache?: Cache | undefined;
}

async function verifyLocation(
  context: CommandContext,
  args: VerifyArguments,
  settings: StoreSettings,
  place: Location,
): Promise<Verified> {
  const { store, location, query } = await openSource(place, settings);
  try {
    const options = {
      ...settings,
      // Hashing is bound by the processors, unless the user says otherwise.
      jobs:
        args.value("jobs") === undefined && location.kind !== "registry"
          ? Math.max(settings.jobs, availableParallelism())
          : settings.jobs,
      deep: args.flag("deep"),
      folder: location.kind === "directory" ? location.path : undefined,
      progress: context.progress,
    };
    const lifecycleDays = args.integer("lifecycle", { min: 1, max: 36_500 });
    if (lifecycleDays !== undefined && location.kind !== "object") throw notByAge(location);
    const result =
      location.kind === "object"
        ? await verifyObjectStore(store, query.name, { ...options, lifecycleDays })
        : await verifyStore(store, await rootsOf(store, query), options);
    const isSet = args.locations.length > 1;
    return {
      location,
      result,
      cache: isSet ? await soundCache(store, query, settings) : undefined,
    };
  } finally {
    await store.close();
  }
}

/** The cache that a place names, if it names one that BuildKit would take. */
async function soundCache(
  store: Store,
  query: NameQuery,
  settings: StoreSettings,
): Promise<Cache | undefined> {
  try {
    const { descriptor } = await store.resolve(query);
    const [{ checkCacheConfig }, { tryReadCache }, { toCache }] = await Promise.all([
      import("./cache-check.ts"),
      import("./cache-read.ts"),
      import("./merge.ts"),
    ]);
    const set = await tryReadCache(store, descriptor, settings);
    const cache = set && toCache(set);
    return cache && checkCacheConfig(cache.config).length === 0 ? cache : undefined;
  } catch (error) {
    // What is wrong with it is among the problems already.
    if (isCacheportError(error) && error.code !== "INTERRUPTED") return undefined;
    throw error;
  }
}

/** The records that the caches of a set have with other results. */
async function findDisagreements(verified: readonly Verified[]): Promise<PlacedConflict[]> {
  const caches = verified.flatMap(({ cache, location }) => (cache ? [{ cache, location }] : []));
  if (caches.length < 2) return [];
  const { findConflicts } = await import("./cache-merge.ts");
  return placeConflicts(
    findConflicts(caches.map(({ cache }) => cache)),
    caches.map(({ location }) => location.text),
  );
}

async function verifyObjectStore(
  store: Store,
  name: string | undefined,
  options: VerifyObjectsOptions,
): Promise<VerifyResult> {
  const { verifyObjects } = await import("./verify-objects.ts");
  const objects = store as ObjectStore;
  const names = name === undefined ? undefined : objects.namesIn(name);
  return await verifyObjects(objects, names, options);
}

function notByAge({ text }: Location): CacheportError {
  return new CacheportError(
    "USAGE",
    `Cannot use --lifecycle on "${text}": only object stores remove things by their age`,
  );
}

async function rootsOf(store: Store, query: NameQuery): Promise<NamedEntry[] | undefined> {
  if (query.name === undefined && query.digest === undefined) return undefined;
  const { descriptor, entry } = await store.resolve(query);
  return [entry ?? { descriptor }];
}

const COLORS = { error: "red", warning: "yellow", note: "cyan" } as const;

function formatResult({ location, result }: Verified, { colors }: CommandContext): string {
  const { ok, blobs, bytes, problems } = result;
  const verified = `${count(blobs, "blob")}, ${formatBytes(bytes)}`;
  const counts = (["error", "warning", "note"] as const)
    .map((severity) => count(ofSeverity(problems, severity).length, severity))
    .filter((text) => !text.startsWith("0 "));
  const summary = [ok ? `ok: ${verified}` : `failed: ${verified}`, ...counts];
  const cure = problems.some(({ code }) => code === "IMPORT_LOSES_LINKS")
    ? `hint: "cacheport heal ${printable(location.text)}" lets BuildKit find the whole cache\n`
    : "";
  return [...problemLines(problems, location.text, colors), cure, `${summary.join(", ")}\n`].join(
    "",
  );
}

function ofSeverity(problems: readonly Problem[], severity: Severity): Problem[] {
  return problems.filter((problem) => problem.severity === severity);
}

/**
 * One line for each problem; of very many of a kind only the first, and of blobs that no
 * name reaches only their number: each is as little worth as the next.
 */
function* problemLines(
  problems: readonly Problem[],
  place: string,
  colors: boolean,
): Generator<string> {
  const byCode = Map.groupBy(problems, (problem) => problem.code);
  for (const [code, same] of byCode) {
    const [severity] = PROBLEMS[code];
    const label = colored(severity, COLORS[severity], colors);
    if (code === "UNREFERENCED_BLOB") {
      const blobs = count(same.length, "blob");
      yield `${label}: No name reaches ${blobs}: ${printable(gcHint(place))} [${code}]\n`;
      continue;
    }
    for (const { message, belongsTo } of same.slice(0, SHOWN))
      yield `${label}: ${printable(message + ownersText(belongsTo))} [${code}]\n`;
    if (same.length > SHOWN)
      yield `${label}: and ${same.length - SHOWN} more like these [${code}]\n`;
  }
}

/** What content belongs to, as the end of a sentence. */
function ownersText(owners: readonly Owner[]): string {
  const texts = owners
    .filter(({ role }) => role !== "")
    .map(({ name, platform, role }) => {
      const whose = name === null ? "an entry without a name" : `"${name}"`;
      return `${role} of ${whose}${platform === null ? "" : ` (${platform})`}`;
    });
  return texts.length === 0 ? "" : `; it is ${texts.join(" and ")}`;
}
