/**
 * Garbage in object stores: blobs that no name reaches, and those that are too young to
 * be told from what a running export is about to name.
 *
 * An export that finds a blob younger than touch_refresh leaves it as it is and names it
 * up to the length of a build later. What is older than both together is nobody's.
 */
import { parseCacheConfig } from "./cache-config.ts";
import { mapLimit } from "./concurrency.ts";
import type { Digest } from "./digest.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import type { NamedCache } from "./object-document.ts";
import type { BlobList, ObjectInfo, ObjectService } from "./object-service.ts";

/** Milliseconds: a day for touch_refresh, and a day for the longest build. */
export const OBJECT_GRACE = 48 * 3_600_000;

/** What is asked of a store. */
export interface CollectableStore {
  readonly location: string;
  readonly service: ObjectService;
  caches(): Promise<NamedCache[]>;
}

/** How to collect. */
export interface CollectOptions {
  /** Milliseconds; what is younger stays. */
  grace: number;
  dryRun: boolean;
  /** Blobs that are removed at once. */
  jobs: number;
  signal?: AbortSignal | undefined;
}

/** What a collection did. */
export interface CollectedObjects {
  /** In the order of their digests. */
  removed: { digest: Digest; size: number }[];
  /** Bytes of the removed blobs. */
  removedBytes: number;
  /** Blobs that stay. */
  kept: number;
  /** Blobs that no name reaches and that stay, since they are too young. */
  young: number;
}

/** A blob that no name reaches. */
export interface UnreachedBlob extends ObjectInfo {
  readonly digest: Digest;
}

/**
 * The blobs that no name reaches, in the order of their digests.
 *
 * @param caches What names stand for. One that cannot be read as a document reaches nothing.
 * @returns Undefined when the store does not list its blobs.
 */
export async function unreachedBlobs(
  store: Pick<CollectableStore, "service">,
  caches: readonly NamedCache[],
): Promise<UnreachedBlob[] | undefined> {
  const list = await store.service.blobs();
  if (!list) return undefined;
  const reached = new Set(caches.flatMap((cache) => reachedBlobs(cache) ?? []));
  return unreached(list, reached);
}

/**
 * Removes the blobs that no name reaches and that are older than the grace.
 *
 * @throws {CacheportError} GC_REFUSED, with nothing removed, when a name cannot be read, or
 *   when there is no name at all; NOT_SUPPORTED when the store lists nothing
 */
export async function collectObjects(
  store: CollectableStore,
  { grace, dryRun, jobs, signal }: CollectOptions,
): Promise<CollectedObjects> {
  const list = await store.service.blobs();
  if (!list || !(await store.service.names())) {
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot collect garbage in "${store.location}": it does not list what it holds`,
      {
        hint:
          store.service.kind === "gha"
            ? "Add repository=OWNER/NAME and ghtoken=TOKEN, a token that may write to actions"
            : "The credentials must permit listing",
      },
    );
  }
  const garbage = unreached(list, await allReached(store, list));
  const old = garbage.filter((blob) => isOld(blob, list.now, grace));
  const removed = dryRun ? old : await removeBlobs(store, old, { grace, jobs, signal });
  return {
    removed: removed.map(({ digest, size }) => ({ digest, size })),
    removedBytes: removed.reduce((sum, { size }) => sum + size, 0),
    kept: list.blobs.size - removed.length,
    young: garbage.length - old.length,
  };
}

/** Looks once more at names and ages, since looking at them took its time, then removes. */
async function removeBlobs(
  store: CollectableStore,
  old: readonly UnreachedBlob[],
  { grace, jobs, signal }: Pick<CollectOptions, "grace" | "jobs" | "signal">,
): Promise<UnreachedBlob[]> {
  if (old.length === 0) return [];
  const now = await store.service.blobs();
  if (!now) return [];
  const reached = await allReached(store, now);
  const still = old.filter(({ digest }) => {
    const info = now.blobs.get(digest);
    return info && !reached.has(digest) && isOld(info, now.now, grace);
  });
  await mapLimit(still, jobs, async ({ digest }) => {
    signal?.throwIfAborted();
    await store.service.remove(digest);
  });
  return still;
}

function isOld({ modified }: ObjectInfo, now: number, grace: number): boolean {
  // Stores round their times up, so that what was just written may seem to be of tomorrow.
  return grace === 0 || (modified !== undefined && now - modified >= grace);
}

/** @throws {CacheportError} GC_REFUSED */
async function allReached(store: CollectableStore, list: BlobList): Promise<Set<Digest>> {
  const caches = await store.caches();
  const reached = new Set<Digest>();
  for (const cache of caches) {
    const blobs = reachedBlobs(cache);
    if (!blobs) {
      throw new CacheportError(
        "GC_REFUSED",
        `Cannot collect garbage in "${store.location}": "${cache.name}" cannot be read, and what it needs is not known`,
        { hint: "Remove it if it is no cache, or give the prefix under which caches alone are" },
      );
    }
    for (const digest of blobs) reached.add(digest);
  }
  if (caches.length > 0 || list.blobs.size === 0) return reached;
  throw new CacheportError(
    "GC_REFUSED",
    `Cannot collect garbage in "${store.location}": blobs are there and no name is, which is more likely another prefix than garbage`,
    {
      hint: "Check prefix= and manifests_prefix=; a store without a name is emptied with its own tools",
    },
  );
}

/** The blobs that a name needs, whatever else is wrong with it; undefined when nobody can tell. */
function reachedBlobs({ cache, stored, name }: NamedCache): Digest[] | undefined {
  if (cache) return cache.layers.map(({ digest }) => digest);
  try {
    return parseCacheConfig(stored, `cache "${name}"`).layers.map(({ blob }) => blob);
  } catch (error) {
    if (isCacheportError(error)) return undefined;
    throw error;
  }
}

function unreached(list: BlobList, reached: ReadonlySet<Digest>): UnreachedBlob[] {
  return [...list.blobs]
    .filter(([digest]) => !reached.has(digest))
    .map(([digest, info]) => ({ digest, ...info }))
    .toSorted((a, b) => (a.digest < b.digest ? -1 : 1));
}
