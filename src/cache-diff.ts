/**
 * What one cache has and another has not, and a first answer to "why was it not
 * cached": how far down the keys of two builds agree, and where they part.
 *
 * Two records are the same when BuildKit would make one of them (cache-same.ts):
 * what is a hit in one cache is then a hit in the other. The digest of a record is
 * a hash of a step's definition, or of some content when it has no inputs; what it
 * was made of cannot be told offline.
 */
import { assertCacheConfig, inputsFirst } from "./cache-check.ts";
import type { CacheConfig, CacheRecord } from "./cache-types.ts";
import type { Cache } from "./cache-layers.ts";
import { compareTimes, parseCacheTime } from "./cache-time.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { compareBytes } from "./go-json.ts";
import { uniteRecords } from "./cache-same.ts";

/** A record of one of the caches. */
export interface RecordReference {
  /** The position in its config's records. */
  index: number;
  digest: string;
}

/**
 * Why the other cache has not got a record:
 *
 * - `content`: it has no inputs, and the other cache does not know its digest; a
 *   source or a file differs.
 * - `definition`: the other cache does not know its digest; the step is another one.
 * - `inputs`: the other cache has the same step, on other inputs.
 */
export type MissReason = "content" | "definition" | "inputs";

/** An input in which two records of one digest have no alternative in common. */
export interface PartingInput {
  /** The number of the input, from 0. */
  input: number;
  /** What it may come from in the cache that has the record. */
  own: RecordReference[];
  /** What it may come from in the other cache. */
  other: RecordReference[];
}

/** A record that the other cache has not got. */
export interface RecordMiss extends RecordReference {
  /** When its newest result was made; absent when it has none. */
  createdAt?: string;
  reason: MissReason;
  /** The nearest record below it that both caches have; absent when there is none. */
  nearest?: {
    own: RecordReference;
    other: RecordReference;
    /** Links on the way down to it, at least 1. */
    steps: number;
  };
  /** For the reason `inputs`: the record of the same digest that agrees in most inputs, and where it does not. */
  parting?: { other: RecordReference; inputs: PartingInput[] };
  /** The record where the difference starts: the end of the way down along parting inputs, or this record itself. */
  cause: RecordReference & { reason: MissReason };
}

/** A record that both caches have, with results that differ. */
export interface ResultDifference {
  a: RecordReference;
  b: RecordReference;
  /** Top blob of the newest result, null for none. */
  aLayer: Digest | null;
  bLayer: Digest | null;
}

/** Content by digest, each counted once. */
export interface LayerDifference {
  both: { count: number; bytes: number };
  /** By digest. */
  onlyA: Descriptor[];
  onlyB: Descriptor[];
  onlyABytes: number;
  onlyBBytes: number;
}

/** What two caches have and have not in common; plain data, ready for JSON. */
export interface CacheDifference {
  /** The caches have the same records, the same results and the same layers. */
  equal: boolean;
  records: {
    /** Keys that both have; several records of one cache can be one key. */
    both: number;
    /** In the order of the config. */
    onlyA: RecordMiss[];
    onlyB: RecordMiss[];
    /** Records that both have, with another result or a result in one cache only. */
    results: ResultDifference[];
  };
  /** Digests of records alone, whatever their inputs. */
  digests: { both: number; onlyA: number; onlyB: number };
  layers: LayerDifference;
  /** Bytes of all blobs, each counted once. */
  size: { a: number; b: number };
}

/**
 * Compares two caches.
 *
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function diffCaches(a: Cache, b: Cache): CacheDifference {
  assertCacheConfig(a.config, "first cache");
  assertCacheConfig(b.config, "second cache");
  const { count, classes } = uniteRecords([a.config.records, b.config.records]);
  const sideA = new Side(a.config, classes[0] as Int32Array, count);
  const sideB = new Side(b.config, classes[1] as Int32Array, count);

  const results: ResultDifference[] = [];
  let both = 0;
  for (let at = 0; at < count; at++) {
    const own = sideA.members[at] as number[];
    const other = sideB.members[at] as number[];
    if (own.length === 0 || other.length === 0) continue;
    both++;
    const aLayer = sideA.topBlob(own);
    const bLayer = sideB.topBlob(other);
    if (aLayer !== bLayer) {
      results.push({
        a: sideA.reference(own[0] as number),
        b: sideB.reference(other[0] as number),
        aLayer,
        bLayer,
      });
    }
  }
  const onlyA = findMisses(sideA, sideB);
  const onlyB = findMisses(sideB, sideA);
  const layers = diffLayers(a.layers, b.layers);
  const shared = [...sideA.byDigest.keys()].filter((digest) => sideB.byDigest.has(digest)).length;
  return {
    equal:
      onlyA.length + onlyB.length + results.length === 0 &&
      layers.onlyA.length + layers.onlyB.length === 0,
    records: { both, onlyA, onlyB, results },
    digests: {
      both: shared,
      onlyA: sideA.byDigest.size - shared,
      onlyB: sideB.byDigest.size - shared,
    },
    layers,
    size: {
      a: layers.both.bytes + layers.onlyABytes,
      b: layers.both.bytes + layers.onlyBBytes,
    },
  };
}

/** One of the two caches. */
class Side {
  readonly config: CacheConfig;
  readonly classes: Int32Array;
  /** The records of each class. */
  readonly members: number[][];
  /** The records of each digest. */
  readonly byDigest: Map<string, number[]>;

  constructor(config: CacheConfig, classes: Int32Array, count: number) {
    this.config = config;
    this.classes = classes;
    this.members = Array.from({ length: count }, () => []);
    this.byDigest = new Map();
    config.records.forEach(({ digest }, at) => {
      this.members[classes[at] as number]?.push(at);
      const known = this.byDigest.get(digest);
      if (known) known.push(at);
      else this.byDigest.set(digest, [at]);
    });
  }

  record(at: number): CacheRecord {
    return this.config.records[at] as CacheRecord;
  }

  reference(index: number): RecordReference {
    return { index, digest: this.record(index).digest };
  }

  /** The class of a record. */
  classOf(at: number): number {
    return this.classes[at] as number;
  }

  /** Tells whether this cache has a record of a class. */
  has(number: number): boolean {
    return (this.members[number] as number[]).length > 0;
  }

  /** The newest result of some records; undefined when they have none. */
  newest(records: readonly number[]) {
    const results = records.flatMap((at) => {
      const { results, chains } = this.record(at);
      return [
        ...results.map(({ layer, createdAt }) => ({ layer, createdAt })),
        ...chains.map(({ layers, createdAt }) => ({
          layer: layers.at(-1) ?? -1,
          createdAt,
        })),
      ];
    });
    if (results.length < 2) return results[0];
    return results.reduce((best, result) =>
      compareTimes(parseCacheTime(result.createdAt), parseCacheTime(best.createdAt)) > 0
        ? result
        : best,
    );
  }

  topBlob(records: readonly number[]): Digest | null {
    const result = this.newest(records);
    return (result && this.config.layers[result.layer]?.blob) ?? null;
  }
}

/** The records of one cache that the other has not got, each with the reason. */
function findMisses(own: Side, other: Side): RecordMiss[] {
  const nearest = findNearest(own, other);
  const causes = new Map<number, number>();
  const misses = new Map<number, RecordMiss>();
  for (const at of inputsFirst(own.config.records)) {
    if (other.has(own.classOf(at))) continue;
    const { reason, parting } = findReason(own, other, at);
    const guilty = parting?.inputs
      .flatMap((input) => input.own)
      .find(({ index }) => causes.has(index));
    const cause = guilty ? (causes.get(guilty.index) as number) : at;
    causes.set(at, cause);
    const createdAt = own.newest([at])?.createdAt;
    const near = nearest.get(at);
    const miss: RecordMiss = {
      ...own.reference(at),
      ...(createdAt !== undefined && { createdAt }),
      reason,
      ...(near && {
        nearest: {
          own: own.reference(near.record),
          other: other.reference(other.members[own.classOf(near.record)]?.[0] as number),
          steps: near.steps,
        },
      }),
      ...(parting && { parting }),
      cause: {
        ...own.reference(cause),
        reason: misses.get(cause)?.reason ?? reason,
      },
    };
    misses.set(at, miss);
  }
  return [...misses.values()].toSorted((a, b) => a.index - b.index);
}

/** Why the other cache has not got a record. */
function findReason(
  own: Side,
  other: Side,
  at: number,
): { reason: MissReason; parting?: RecordMiss["parting"] } {
  const { digest, inputs } = own.record(at);
  const namesakes = other.byDigest.get(digest);
  if (!namesakes) {
    return { reason: inputs.length === 0 ? "content" : "definition" };
  }
  const keys = inputs.map(
    (input) => new Set(input.map(({ selector, link }) => `${own.classOf(link)} ${selector}`)),
  );
  const partsIn = (index: number, i: number): boolean =>
    !other
      .record(index)
      .inputs[i]?.some(({ selector, link }) => keys[i]?.has(`${other.classOf(link)} ${selector}`));
  let best: { index: number; parts: number[] } | undefined;
  // A step that was built on very many inputs need not be compared with each of them.
  for (const index of namesakes.slice(0, COMPARED)) {
    const parts = [...inputs.keys()].filter((i) => partsIn(index, i));
    if (!best || parts.length < best.parts.length) best = { index, parts };
  }
  const { index, parts } = best as { index: number; parts: number[] };
  return {
    reason: "inputs",
    parting: {
      other: other.reference(index),
      inputs: parts.map((input) => ({
        input,
        own: references(own, at, input),
        other: references(other, index, input),
      })),
    },
  };
}

/** How many records of one digest are compared to find the one that agrees most. */
const COMPARED = 16;

/** What an input may come from, each record once. */
function references(side: Side, at: number, input: number): RecordReference[] {
  const links = side.record(at).inputs[input]?.map(({ link }) => link);
  return [...new Set(links)].map((link) => side.reference(link));
}

/** For each record that the other cache has not got, the nearest one below it that it has. */
function findNearest(own: Side, other: Side): Map<number, { record: number; steps: number }> {
  const nearest = new Map<number, { record: number; steps: number }>();
  for (const at of inputsFirst(own.config.records)) {
    if (other.has(own.classOf(at))) continue;
    let best: { record: number; steps: number } | undefined;
    for (const { link } of own.record(at).inputs.flat()) {
      const below = other.has(own.classOf(link)) ? { record: link, steps: 0 } : nearest.get(link);
      if (below && (!best || below.steps + 1 < best.steps))
        best = { record: below.record, steps: below.steps + 1 };
    }
    if (best) nearest.set(at, best);
  }
  return nearest;
}

function diffLayers(a: readonly Descriptor[], b: readonly Descriptor[]): LayerDifference {
  const inA = new Map(a.map((each) => [each.digest, each]));
  const inB = new Map(b.map((each) => [each.digest, each]));
  const [shared, onlyA] = split(inA, inB);
  const [, onlyB] = split(inB, inA);
  return {
    both: { count: shared.length, bytes: totalSize(shared) },
    onlyA,
    onlyB,
    onlyABytes: totalSize(onlyA),
    onlyBBytes: totalSize(onlyB),
  };
}

/** The descriptors that the other cache has too, and those that it has not, by digest. */
function split(
  own: ReadonlyMap<Digest, Descriptor>,
  other: ReadonlyMap<Digest, Descriptor>,
): [Descriptor[], Descriptor[]] {
  const sorted = [...own.values()].toSorted((x, y) => compareBytes(x.digest, y.digest));
  return [
    sorted.filter(({ digest }) => other.has(digest)),
    sorted.filter(({ digest }) => !other.has(digest)),
  ];
}
