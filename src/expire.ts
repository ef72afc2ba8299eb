/**
 * Which names of caches have served their time: by count, by the age of the cache itself,
 * by pattern. What anything that stays needs is never to go.
 *
 * The age of a cache is that of its newest result (BuildKit's `createdAt`), not that of its
 * last copy: a cache that is moved to another place is not young again.
 */
import { readCache } from "./cache-read.ts";
import { compareTimes, isKnownTime, parseCacheTime } from "./cache-time.ts";
import type { CacheTime } from "./cache-time.ts";
import { mapLimit } from "./concurrency.ts";
import type { NamedEntry, Store } from "./content-store.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import { entryLabel } from "./layout-index.ts";
import { listEntries } from "./list.ts";
import type { EntryKind } from "./list.ts";
import { tagOfName } from "./reference.ts";
import { neededDigests } from "./reachable.ts";
import { walk } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/** What goes. */
export interface ExpireRules {
  /** The newest caches that stay, whatever their age; without a limit of age these alone. */
  keep?: number | undefined;
  /** Milliseconds; caches whose newest result is older go. */
  maxAge?: number | undefined;
  /** Only names that one of these matches (`pr-*`); all names where there are none. */
  patterns: readonly string[];
  /** Entries of a layout without a name go, too, unless they refer to what stays. */
  untagged: boolean;
  /** Milliseconds since 1970. */
  now: number;
}

/** What becomes of one name. */
export interface Verdict {
  readonly entry: NamedEntry;
  /** As `ls` shows it; null for an entry without a name. */
  readonly name: string | null;
  readonly kind: EntryKind | null;
  /** When the newest result was made, as it stands there; null where that is not known. */
  readonly newest: string | null;
  readonly goes: boolean;
  /** Why, in a few words. */
  readonly reason: string;
}

/** What is to go, and what must not go with it. */
export interface Expiry {
  readonly verdicts: readonly Verdict[];
  /** Documents that what stays is, lists or refers to. */
  readonly needed: ReadonlySet<Digest>;
}

interface Candidate {
  entry: NamedEntry;
  name: string | null;
  kind: EntryKind | null;
  time: CacheTime | undefined;
  newest: string | null;
}

/**
 * Finds out what is to go. Nothing is changed.
 *
 * @throws {CacheportError} whatever reading names throws; an entry that cannot be read stays
 */
export async function planExpiry(
  store: Store,
  rules: ExpireRules,
  options: WalkOptions,
): Promise<Expiry> {
  const entries = await store.list();
  const listed = await listEntries(store, entries, options);
  const ages = new Map<Digest, Promise<Age>>();
  const candidates = await mapLimit(entries, options.jobs ?? 4, async (entry, position) => {
    const kind = listed[position]?.kind ?? null;
    const { digest } = entry.descriptor;
    const isCache = kind === "cache" && !entry.subject;
    if (isCache && !ages.has(digest)) ages.set(digest, ageOf(store, entry, options));
    const age = isCache ? await ages.get(digest) : undefined;
    const name = entryLabel(entry);
    return { entry, name, kind, time: age?.time, newest: age?.newest ?? null };
  });
  const newest = newestDigests(candidates, rules);
  const verdicts = candidates.map((candidate) => judge(candidate, newest, rules));
  return keepWhatIsNeeded(store, verdicts, options);
}

interface Age {
  time: CacheTime | undefined;
  newest: string | null;
}

async function ageOf(store: Store, { descriptor }: NamedEntry, options: WalkOptions): Promise<Age> {
  try {
    const { caches } = await readCache(store, descriptor, options);
    let age: Age = { time: undefined, newest: null };
    for (const { config } of caches)
      for (const { results, chains } of config.records)
        for (const { createdAt } of [...results, ...chains]) {
          const time = parseCacheTime(createdAt);
          if (!isKnownTime(time) || (age.time && compareTimes(time, age.time) <= 0)) continue;
          age = { time, newest: createdAt };
        }
    return age;
  } catch (error) {
    if (!isCacheportError(error) || error.code === "INTERRUPTED") throw error;
    return { time: undefined, newest: null };
  }
}

/** The caches that stay for being the newest; several names of one cache count once. */
function newestDigests(candidates: readonly Candidate[], rules: ExpireRules): Set<Digest> {
  const times = new Map<Digest, CacheTime>();
  for (const { entry, time, name } of candidates)
    if (time && name !== null && matches(name, rules.patterns))
      times.set(entry.descriptor.digest, time);
  const sorted = [...times].toSorted(([, a], [, b]) => compareTimes(b, a));
  return new Set(sorted.slice(0, rules.keep ?? 0).map(([digest]) => digest));
}

function judge(candidate: Candidate, newest: ReadonlySet<Digest>, rules: ExpireRules): Verdict {
  const { entry, name, kind, time } = candidate;
  const verdict = (goes: boolean, reason: string): Verdict => ({
    entry,
    name,
    kind,
    newest: candidate.newest,
    goes,
    reason,
  });
  if (entry.subject) return verdict(false, "it refers to something else");
  if (name === null)
    return rules.untagged ? verdict(true, "it has no name") : verdict(false, "it has no name");
  if (!matches(name, rules.patterns)) return verdict(false, "no pattern matches");
  if (kind === null) return verdict(false, "it cannot be read");
  if (kind !== "cache") return verdict(false, `it is no cache: ${kind}`);
  if (!time) return verdict(false, "its age is not known");
  const { keep, maxAge, now } = rules;
  if (newest.has(entry.descriptor.digest)) return verdict(false, `among the newest ${keep}`);
  if (maxAge !== undefined)
    return now - time.milliseconds > maxAge
      ? verdict(true, "its newest result is too old")
      : verdict(false, "it is young enough");
  return keep === undefined
    ? verdict(false, "no rule is about it")
    : verdict(true, `not among the newest ${keep}`);
}

/** Tells whether a pattern matches a name as a whole, or its tag. */
function matches(name: string, patterns: readonly string[]): boolean {
  if (patterns.length === 0) return true;
  const tag = tagOfName(name);
  return patterns.some((pattern) => {
    const glob = new Bun.Glob(pattern);
    return glob.match(name) || (tag !== undefined && glob.match(tag));
  });
}

/**
 * Walks over what stays: an entry without a name that refers to it stays with it, and the
 * documents that it lists must not be deleted by their digests.
 */
async function keepWhatIsNeeded(
  store: Store,
  verdicts: readonly Verdict[],
  options: WalkOptions,
): Promise<Expiry> {
  const needed = new Set<Digest>();
  const reach = async (kept: readonly Verdict[]): Promise<void> => {
    const roots = kept.map(({ entry }) => entry.descriptor);
    const reached = await neededDigests(store, roots, { ...options, onBroken: () => {} });
    for (const digest of reached) needed.add(digest);
    for (const { entry } of kept) if (entry.subject) needed.add(entry.subject);
  };
  await reach(verdicts.filter(({ goes, kind }) => !goes && kind !== null));
  const settled = await Promise.all(
    verdicts.map(async (verdict): Promise<Verdict> => {
      if (!verdict.goes || verdict.name !== null) return verdict;
      const subject = await subjectOf(store, verdict, options);
      return subject !== undefined && needed.has(subject)
        ? { ...verdict, goes: false, reason: "it refers to what stays" }
        : verdict;
    }),
  );
  const saved = settled.filter(({ goes, name, kind }) => !goes && name === null && kind !== null);
  if (saved.length > 0) await reach(saved);
  return { verdicts: settled, needed };
}

async function subjectOf(
  store: Store,
  { entry, kind }: Verdict,
  options: WalkOptions,
): Promise<Digest | undefined> {
  if (kind === null) return undefined;
  const nodes = await walk(store, [entry.descriptor], { ...options, onBroken: () => {} });
  return nodes.find(({ descriptor }) => descriptor.digest === entry.descriptor.digest)?.document
    ?.subject?.digest;
}

/**
 * What names a document in a store: a tag, or a document that lists it or refers to it.
 *
 * @returns A few words for a message; undefined when nothing does.
 */
export async function namerOf(
  store: Store,
  digest: Digest,
  options: WalkOptions,
): Promise<string | undefined> {
  const entries = await store.list();
  const direct = entries.find(({ descriptor }) => descriptor.digest === digest);
  if (direct) return `the name "${entryLabel(direct) ?? "-"}"`;
  for (const entry of entries) {
    const nodes = await walk(store, [entry.descriptor], { ...options, onBroken: () => {} });
    const namer = nodes.find(
      ({ children, document }) =>
        document?.subject?.digest === digest || children.some((child) => child.digest === digest),
    );
    if (namer) return `"${namer.descriptor.digest}", which "${entryLabel(entry) ?? "-"}" names,`;
  }
  return undefined;
}
