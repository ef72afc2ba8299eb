/**
 * What costs how much in a layout folder: which bytes each name needs, which it shares
 * with others, what no name reaches, and how old it all is.
 */
import type { NamedEntry } from "./content-store.ts";
import type { Digest } from "./digest.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { LayoutDirectory } from "./layout-reader.ts";
import { listLayoutFiles } from "./layout-files.ts";
import type { BlobFile } from "./layout-files.ts";
import { entryLabel } from "./layout-index.ts";
import { findReachable, findReferrers } from "./reachable.ts";
import type { Amount, Referrers } from "./reachable.ts";
import { DAY } from "./units.ts";

/** How to measure. */
export interface UsageOptions {
  limits: DocumentLimits;
  /** Documents that are read at once. */
  jobs: number;
  signal?: AbortSignal | undefined;
  /** Milliseconds since 1970; the present unless told otherwise. */
  now?: number | undefined;
}

/** What one digest of index.json costs, whatever names it has. */
export interface NameUsage extends Amount {
  /** All names of it, in their order; those without one are not here. */
  names: string[];
  digest: Digest;
  /** What nothing else needs: what would be free after `untag` and `gc`. */
  alone: Amount;
  /** Why what it reaches is not known, null when it is. */
  problem: string | null;
}

/** What a layout costs. */
export interface Usage {
  total: Amount;
  /** In the order of index.json. */
  names: NameUsage[];
  /** What several entries need. */
  shared: Amount;
  /** What no name reaches; null when an entry cannot be followed. */
  unreachable: Amount | null;
  /** What interrupted writers left. */
  leftovers: { files: number; bytes: number };
  /** By the time of writing: at most so many milliseconds old, null for all that is older. */
  ages: (Amount & { within: number | null })[];
}

/** The limits of ages in milliseconds. */
const AGES = [DAY, 7 * DAY, 30 * DAY];

/**
 * Measures a layout folder. Documents are read once for each entry that reaches them, no
 * other blob is.
 *
 * @param folder Path of the layout.
 * @throws {CacheportError} LOCATION_NOT_FOUND, LAYOUT_INVALID, DOCUMENT_INVALID,
 *   PERMISSION_DENIED, INTERRUPTED, IO_FAILED
 */
export async function measureLayout(folder: string, options: UsageOptions): Promise<Usage> {
  const store = await LayoutDirectory.open(folder, options);
  try {
    const entries = Map.groupBy(await store.list(), ({ descriptor }) => descriptor.digest);
    const files = await listLayoutFiles(folder);
    const sizes = new Map(files.blobs.map(({ digest, size }) => [digest, size]));
    let found = await reachEach(store, entries, new Map(), options);
    const unnamed = files.blobs.filter(({ digest }) => !found.owners.has(digest));
    const referrers = await findReferrers(store, unnamed, options);
    if (referrers.size > 0) found = await reachEach(store, entries, referrers, options);
    return report(entries, sizes, found, files.blobs, files.leftovers, options);
  } finally {
    await store.close();
  }
}

type Entries = ReadonlyMap<Digest, readonly NamedEntry[]>;

/** What the entries reach. */
interface Reached {
  /** The entry that reaches a blob; null for several. */
  readonly owners: ReadonlyMap<Digest, Digest | null>;
  readonly sets: ReadonlyMap<Digest, ReadonlySet<Digest>>;
  readonly problems: ReadonlyMap<Digest, string>;
}

async function reachEach(
  store: LayoutDirectory,
  entries: Entries,
  referrers: Referrers,
  options: UsageOptions,
): Promise<Reached> {
  const owners = new Map<Digest, Digest | null>();
  const sets = new Map<Digest, ReadonlySet<Digest>>();
  const problems = new Map<Digest, string>();
  for (const [digest, same] of entries) {
    options.signal?.throwIfAborted();
    try {
      const reached = await findReachable(store, same, referrers, options);
      sets.set(digest, reached);
      for (const each of reached) owners.set(each, owners.has(each) ? null : digest);
    } catch (error) {
      if (!isCacheportError(error, "GC_REFUSED")) throw error;
      // What gc says of it, without what gc would have done.
      const { cause } = error;
      problems.set(digest, cause instanceof CacheportError ? cause.message : error.message);
    }
  }
  return { owners, sets, problems };
}

function report(
  entries: Entries,
  sizes: ReadonlyMap<Digest, number>,
  { owners, sets, problems }: Reached,
  blobs: readonly BlobFile[],
  leftovers: readonly { size: number }[],
  { now = Date.now() }: UsageOptions,
): Usage {
  const amount = (digests: Iterable<Digest>): Amount => {
    const sum = { blobs: 0, bytes: 0 };
    for (const digest of digests) {
      const size = sizes.get(digest);
      // What is listed and absent costs nothing.
      if (size === undefined) continue;
      sum.blobs++;
      sum.bytes += size;
    }
    return sum;
  };
  const alone = new Map<Digest | null, Digest[]>();
  for (const [digest, owner] of owners) {
    const list = alone.get(owner);
    if (list) list.push(digest);
    else alone.set(owner, [digest]);
  }
  const names = [...entries].map(([digest, same]) => ({
    names: same.map(entryLabel).filter((name) => name !== null),
    digest,
    ...amount(sets.get(digest) ?? []),
    alone: amount(alone.get(digest) ?? []),
    problem: problems.get(digest) ?? null,
  }));
  const unreached = blobs.filter(({ digest }) => !owners.has(digest));
  return {
    total: amount(sizes.keys()),
    names,
    shared: amount(alone.get(null) ?? []),
    unreachable: problems.size > 0 ? null : amount(unreached.map(({ digest }) => digest)),
    leftovers: {
      files: leftovers.length,
      bytes: leftovers.reduce((sum, { size }) => sum + size, 0),
    },
    ages: [...AGES, null].map((within, i) => {
      const from = AGES[i - 1] ?? -Infinity;
      const fits = blobs.filter(
        ({ modified }) => now - modified > from && now - modified <= (within ?? Infinity),
      );
      return { within, ...amount(fits.map(({ digest }) => digest)) };
    }),
  };
}
