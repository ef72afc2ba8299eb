/**
 * What only object stores can have wrong: blobs that are about to be removed by age while
 * a name still needs them, and documents that no other place could hold.
 *
 * Source: BuildKit cache/remotecache/s3/s3.go: exports refresh a blob's age, imports do
 * not, and a missing blob ends the build that needs it.
 */
import type { Digest } from "./digest.ts";
import { unreachedBlobs } from "./object-gc.ts";
import type { NamedCache, ObjectStore } from "./object-store.ts";
import type { BlobList, LifecycleRule, ObjectName } from "./object-store.ts";
import { ProblemList } from "./verify-problem.ts";
import type { Problem, ProblemCode } from "./verify-problem.ts";
import { verifyStore } from "./verify.ts";
import type { VerifyOptions, VerifyResult } from "./verify.ts";
import { DAY } from "./units.ts";

/** How to verify an object store. */
export interface VerifyObjectsOptions extends VerifyOptions {
  /** Days after which a rule of the store removes objects, where it does not tell its rules. */
  lifecycleDays?: number | undefined;
}

/**
 * Verifies caches in an object store. Unless `deep` is set no blob is read: one list
 * says what is there and in which size.
 *
 * @param names The names to look at; all when undefined.
 * @throws {CacheportError} as {@link verifyStore}
 */
export async function verifyObjects(
  store: ObjectStore,
  names: readonly string[] | undefined,
  options: VerifyObjectsOptions,
): Promise<VerifyResult> {
  const all = await store.caches();
  const caches = names ? await store.cachesOf(names) : all;
  const roots = caches.map(({ name, descriptor }) => ({ refName: name, descriptor }));
  const result = await verifyStore(store, roots, { ...options, sizesOnly: options.deep !== true });
  const problems = new ProblemList();
  const list = await store.service.blobs();
  const infos = new Map((await store.service.names())?.map((info) => [info.name, info]));
  if (list) {
    const rules = await rulesOf(store, options.lifecycleDays);
    for (const cache of caches)
      verifyAges(store, cache, list, infos.get(cache.name), rules, problems);
  }
  if (!names)
    for (const { digest } of (await unreachedBlobs(store, all)) ?? [])
      problems.add("UNREFERENCED_BLOB", digest, `No name reaches blob ${digest}`);
  // The limit is one of registries and layouts: object stores have none.
  const found = result.problems.map((problem) =>
    problem.code === "OVER_IMPORT_LIMIT" ? elsewhereTooLarge(problem) : problem,
  );
  return { ...result, problems: [...found, ...problems.toSorted()].toSorted(bySeverity) };
}

function elsewhereTooLarge(problem: Problem): Problem {
  return { ...problem, code: "OVER_OCI_LIMIT", severity: "note" };
}

function bySeverity(a: Problem, b: Problem): number {
  const order = ["error", "warning", "note"];
  return order.indexOf(a.severity) - order.indexOf(b.severity);
}

/** The rules that the store tells of, or the one that the user knows of. */
async function rulesOf(store: ObjectStore, days: number | undefined): Promise<LifecycleRule[]> {
  if (days !== undefined) return [{ prefix: "", days }];
  return (await store.service.lifecycle()) ?? [];
}

function verifyAges(
  store: ObjectStore,
  { name, cache, descriptor }: NamedCache,
  list: BlobList,
  named: ObjectName | undefined,
  rules: readonly LifecycleRule[],
  problems: ProblemList,
): void {
  const dated = [...new Set(cache?.layers.map(({ digest }) => digest))]
    .map((digest) => ({ digest, modified: list.blobs.get(digest)?.modified }))
    .filter((blob): blob is { digest: Digest; modified: number } => blob.modified !== undefined)
    .toSorted((a, b) => a.modified - b.modified);
  const [oldest] = dated;
  if (!oldest || !cache) return;
  const { touchRefresh, prefixes } = store.service;
  const written = named?.modified;
  const add = (code: ProblemCode, message: string): void =>
    problems.add(code, descriptor.digest, message);
  // Rules count days, and blobs are always some moments older than their name.
  const spared = touchRefresh ?? DAY;
  const than = touchRefresh === undefined ? "a day" : `touch_refresh (${spared / 3_600_000} h)`;
  const stale = dated.filter(({ modified }) => (written ?? list.now) - modified > spared);
  if (written !== undefined && stale.length > 0) {
    add(
      "BLOBS_OLDER",
      `${stale.length} of ${dated.length} blobs of "${name}" are older than the name by more than ${than}, the oldest ${oldest.digest} of ${dayOf(oldest.modified)}: a rule that goes by age would remove them first`,
    );
  }
  const days = (key: string): number =>
    Math.min(...rules.filter(({ prefix }) => key.startsWith(prefix)).map((rule) => rule.days));
  const blobDays = days(prefixes.blobs + oldest.digest);
  const nameDays = days(prefixes.names + name);
  const gone = expiry(oldest.modified, blobDays);
  if (gone < Number.POSITIVE_INFINITY && gone <= expiry(written ?? list.now, nameDays)) {
    const isPast = gone <= list.now;
    add(
      "LIFECYCLE_BREAKS",
      `A lifecycle rule of ${blobDays} days ${isPast ? "may have broken" : "breaks"} "${name}" on ${dayOf(gone)}, unless it is exported before: ${oldest.digest} goes and the name stays; let names go after ${blobDays} days and blobs after ${blobDays + 2}`,
    );
  }
}

/** When a rule removes an object: rules run at midnight in UTC. */
function expiry(modified: number, days: number): number {
  return Math.ceil((modified + days * DAY) / DAY) * DAY;
}

function dayOf(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}
