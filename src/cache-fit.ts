/**
 * A cache whose documents are small enough for BuildKit: it imports no manifest and no
 * cache config over 1 MiB (buildkit#3719). What goes are records that nothing is built on,
 * one after another: first those whose results cost the fewest bytes to build again, of
 * equal ones the oldest. What is left is closed: whatever a record needs is there.
 */
import { chainFrom, pickEntries, resultsOf } from "./cache-layers.ts";
import type { Cache } from "./cache-layers.ts";
import { describePruned } from "./cache-prune.ts";
import type { PrunedCache } from "./cache-prune.ts";
import { compareTimes, parseCacheTime } from "./cache-time.ts";
import type { CacheTime } from "./cache-time.ts";
import type { CacheLayer, CacheRecord } from "./cache-types.ts";
import type { Digest } from "./digest.ts";
import { compareBytes } from "./go-json.ts";

/** Bytes of a cache's documents. */
export interface DocumentSizes {
  manifest: number;
  config: number;
}

/**
 * Drops records until both documents fit.
 *
 * @param cache In BuildKit's form, one descriptor for each layer.
 * @param limit Bytes of either document.
 * @param measure What the documents of a cache come to when it is written.
 * @returns The very same config when it fits already; one without records when nothing does.
 */
export function fitCache(
  cache: Cache,
  limit: number,
  measure: (cache: Cache) => DocumentSizes,
): PrunedCache {
  const before = measure(cache);
  const isFit = ({ manifest, config }: DocumentSizes): boolean =>
    manifest <= limit && config <= limit;
  if (isFit(before)) {
    const whole = describePruned(cache, cache.config);
    return { ...whole, config: cache.config, layers: cache.layers };
  }
  const shrink = new Shrinking(cache);
  const sizes = { ...before };
  for (;;) {
    while (!isFit(sizes)) {
      const freed = shrink.dropCheapest();
      if (!freed) break;
      sizes.manifest -= freed.manifest;
      sizes.config -= freed.config;
    }
    const left = describePruned(cache, shrink.config());
    if (left.config.layers.length === 0) return left;
    // Positions have other lengths now, and other leaves are to be joined.
    const real = measure(left);
    if (isFit(real)) return left;
    Object.assign(sizes, real);
  }
}

/** Bytes that positions, quotes and commas take, besides digests and times. */
const LAYER_BYTES = 110;
const RESULT_BYTES = 70;
const LINK_BYTES = 14;

/** A record that nothing is built on. */
interface Leaf {
  record: number;
  /** Bytes of the blobs that go with it; may have grown since. */
  cost: number;
  time: CacheTime;
}

/** A cache that loses one record after another. */
class Shrinking {
  readonly #cache: Cache;
  readonly #isGone: Uint8Array;
  /** For each record, how many links of records that are left lead from it. */
  readonly #users: Int32Array;
  /** For each layer, how many results and layers that are left stand on it. */
  readonly #uses: Int32Array;
  /** For each blob, how many layers that are left hold it. */
  readonly #places = new Map<Digest, number>();
  readonly #sizes: Map<Digest, number>;
  readonly #texts: Map<Digest, number>;
  readonly #leaves: Leaf[] = [];

  constructor(cache: Cache) {
    const { layers, records } = cache.config;
    this.#cache = cache;
    this.#isGone = new Uint8Array(records.length);
    this.#users = new Int32Array(records.length);
    this.#uses = new Int32Array(layers.length);
    this.#sizes = new Map(cache.layers.map(({ digest, size }) => [digest, size]));
    this.#texts = new Map(
      cache.layers.map((layer) => [layer.digest, JSON.stringify(layer).length + 1]),
    );
    for (const { blob, parent } of layers) {
      this.#places.set(blob, (this.#places.get(blob) ?? 0) + 1);
      if (parent !== -1) this.#uses[parent]! += 1;
    }
    for (const record of records) {
      for (const { layers: tops } of resultsOf(record)) for (const at of tops) this.#uses[at]! += 1;
      for (const { link } of record.inputs.flat()) this.#users[link]! += 1;
    }
    for (const at of records.keys()) if (this.#users[at] === 0) this.#add(at);
  }

  /** What is left. */
  config() {
    const { config } = this.#cache;
    const left = [...config.records.keys()].filter((at) => this.#isGone[at] === 0);
    return pickEntries({ ...config, joined: undefined }, [...config.layers.keys()], left);
  }

  /** Drops a record; gives the bytes that this frees in the documents, about. */
  dropCheapest(): DocumentSizes | undefined {
    for (let leaf = this.#pop(); leaf; leaf = this.#pop()) {
      const cost = this.#cost(leaf.record);
      if (cost <= leaf.cost) return this.#drop(leaf.record);
      this.#push({ ...leaf, cost });
    }
    return undefined;
  }

  #drop(at: number): DocumentSizes {
    const { config } = this.#cache;
    const record = config.records[at] as CacheRecord;
    this.#isGone[at] = 1;
    const freed = { manifest: 0, config: record.digest.length + 14 };
    for (const { layers } of resultsOf(record)) {
      freed.config += RESULT_BYTES;
      for (const top of layers) {
        this.#uses[top]! -= 1;
        for (const below of chainFrom(config.layers, top)) {
          if (this.#uses[below] !== 0) break;
          const { blob, parent } = config.layers[below] as CacheLayer;
          this.#places.set(blob, (this.#places.get(blob) as number) - 1);
          freed.config += LAYER_BYTES;
          freed.manifest += this.#texts.get(blob) ?? 0;
          if (parent !== -1) this.#uses[parent]! -= 1;
        }
      }
    }
    for (const { selector, link } of record.inputs.flat()) {
      freed.config += LINK_BYTES + selector.length;
      this.#users[link]! -= 1;
      if (this.#users[link] === 0) this.#add(link);
    }
    return freed;
  }

  /** Bytes of the blobs that would go with a record. */
  #cost(at: number): number {
    const { config } = this.#cache;
    const gone = new Map<Digest, number>();
    let cost = 0;
    for (const { layers } of resultsOf(config.records[at] as CacheRecord)) {
      for (const top of layers) {
        let uses = (this.#uses[top] as number) - 1;
        for (const below of chainFrom(config.layers, top)) {
          if (uses > 0) break;
          const { blob, parent } = config.layers[below] as CacheLayer;
          gone.set(blob, (gone.get(blob) ?? 0) + 1);
          if (gone.get(blob) === this.#places.get(blob)) cost += this.#sizes.get(blob) ?? 0;
          uses = parent === -1 ? 1 : (this.#uses[parent] as number) - 1;
        }
      }
    }
    return cost;
  }

  #add(record: number): void {
    const times = resultsOf(this.#cache.config.records[record] as CacheRecord).map(
      ({ createdAt }) => parseCacheTime(createdAt),
    );
    const time = times.reduce(
      (newest, each) => (compareTimes(each, newest) > 0 ? each : newest),
      parseCacheTime(""),
    );
    this.#push({ record, cost: this.#cost(record), time });
  }

  #isBefore(a: Leaf, b: Leaf): boolean {
    const { records } = this.#cache.config;
    const difference =
      a.cost - b.cost ||
      compareTimes(a.time, b.time) ||
      compareBytes(records[a.record]?.digest ?? "", records[b.record]?.digest ?? "") ||
      a.record - b.record;
    return difference < 0;
  }

  /** Puts a leaf into the heap. */
  #push(leaf: Leaf): void {
    const heap = this.#leaves;
    let at = heap.push(leaf) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!this.#isBefore(heap[at] as Leaf, heap[above] as Leaf)) break;
      [heap[at], heap[above]] = [heap[above] as Leaf, heap[at] as Leaf];
      at = above;
    }
  }

  /** Takes the cheapest leaf out of the heap. */
  #pop(): Leaf | undefined {
    const heap = this.#leaves;
    const first = heap[0];
    const last = heap.pop();
    if (!first || !last || heap.length === 0) return first;
    heap[0] = last;
    for (let at = 0; ;) {
      let best = at;
      for (const below of [2 * at + 1, 2 * at + 2])
        if (below < heap.length && this.#isBefore(heap[below] as Leaf, heap[best] as Leaf))
          best = below;
      if (best === at) return first;
      [heap[at], heap[best]] = [heap[best] as Leaf, heap[at] as Leaf];
      at = best;
    }
  }
}
