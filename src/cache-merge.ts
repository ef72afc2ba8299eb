/**
 * One cache out of several: a build against the merge finds what it would have
 * found in one of the parts.
 *
 * - Records that BuildKit takes for the same one (see cache-same.ts) become
 *   one, with the alternatives of all of them in each input. So the merge is taken
 *   by every BuildKit: none of its records overlaps with another one.
 * - Layers are shared where the whole chain of blobs below them is the same.
 * - Of a record's results the newest stays, as in BuildKit's own export since 0.25;
 *   an import reads several, which older caches have, but uses one of them.
 * - What an import would drop is not taken along: results with a blob that their
 *   own cache does not list (they could hide a whole one of another cache) and
 *   session-unique keys.
 *
 * The outcome is normalised and does not depend on the order of the caches or on
 * which of them are merged first. There is one exception: a loop that came to be
 * from records of several caches is broken at once (see cache-loops.ts), so merging
 * step by step may break it elsewhere.
 *
 * Source: BuildKit cache/remotecache/v1/parse.go, chains.go, utils.go.
 */
import { assertCacheConfig, isRandomRecord } from "./cache-check.ts";
import type { CacheInput, CacheLayer, CacheRecord, LayerAnnotations } from "./cache-types.ts";
import { sortEntries } from "./cache-order.ts";
import type { Cache } from "./cache-order.ts";
import { compareTimes, parseCacheTime } from "./cache-time.ts";
import type { CacheTime } from "./cache-time.ts";
import { orderDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { compareBytes } from "./go-json.ts";
import { uniteRecords } from "./cache-same.ts";
import { breakLoops } from "./cache-loops.ts";

/** How to merge. */
export interface MergeOptions {
  /** `newest` (the default) keeps one result of a record, `all` every one, the newest first. */
  results?: "newest" | "all" | undefined;
  /** What the cache at a position is called in messages: `cache 2` unless told otherwise. */
  name?: ((position: number) => string) | undefined;
}

/**
 * Merges caches.
 *
 * @param caches At least one; descriptors are found by digest, their order does not matter.
 * @returns The merge, with one descriptor for each layer of its config, in their order.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function mergeCaches(
  caches: readonly Cache[],
  { results: keep = "newest", name = (position) => `cache ${position + 1}` }: MergeOptions = {},
): Cache {
  caches.forEach(({ config }, i) => assertCacheConfig(config, name(i)));
  const { count, classes } = uniteRecords(caches.map(({ config }) => config.records));
  const chains = new LayerChains();
  const merged = Array.from({ length: count }, () => new MergedRecord());
  for (const [i, { config, layers }] of caches.entries()) {
    const known = new Set(layers.map(({ digest }) => digest));
    const places = chains.add(config.layers, known);
    const numbers = classes[i] as Int32Array;
    config.records.forEach((record, at) => {
      const target = merged[numbers[at] as number] as MergedRecord;
      target.add(record, numbers, places);
    });
  }

  const records = withoutRandom(merged.map((record) => record.links()));
  const config = sortEntries(
    chains.used(
      breakLoops(records.map(({ record }) => record)).map((record, at) => {
        const { index } = records[at] as { index: number };
        const results = (merged[index] as MergedRecord).results(chains);
        return addResults(record, keep === "newest" ? results.slice(0, 1) : results);
      }),
    ),
  );
  const descriptors = chooseDescriptors(caches.flatMap(({ layers }) => layers));
  return {
    config,
    layers: config.layers.map(({ blob }) => descriptors.get(blob) as Descriptor),
  };
}

/** A result of any of the caches. */
interface MergedResult {
  kind: "result" | "chain";
  createdAt: string;
  time: CacheTime;
  /** Positions in the table of all chains: the top one alone, or all that a chain lists. */
  layers: number[];
}

/** All records of a class. */
class MergedRecord {
  #digest = "";
  /** The inputs of each record; links are classes. */
  readonly #inputs: CacheInput[][][] = [];
  readonly #results: MergedResult[] = [];

  /**
   * @param classes The class of each record of the same cache.
   * @param places The place of each of its layers, -1 where a blob is not listed.
   */
  add(
    { digest, inputs, results, chains }: CacheRecord,
    classes: Int32Array,
    places: Int32Array,
  ): void {
    this.#digest = digest;
    this.#inputs.push(
      inputs.map((alternatives) =>
        alternatives.map(({ selector, link }) => ({
          selector,
          link: classes[link] as number,
        })),
      ),
    );
    const addResult = (
      kind: MergedResult["kind"],
      createdAt: string,
      positions: number[],
    ): void => {
      const layers = positions.map((at) => places[at] as number);
      if (layers.includes(-1)) return;
      const time = parseCacheTime(createdAt);
      this.#results.push({ kind, createdAt, time, layers });
    };
    for (const { layer, createdAt } of results) addResult("result", createdAt, [layer]);
    for (const { layers, createdAt } of chains) addResult("chain", createdAt, layers);
  }

  /** The record without its results; links are classes. */
  links(): CacheRecord {
    const [first = [], ...others] = this.#inputs;
    const inputs = first.map((alternatives, i) =>
      distinct(alternatives.concat(...others.map((input) => input[i] ?? []))),
    );
    return { results: [], chains: [], digest: this.#digest, inputs };
  }

  /** The results, the newest first, each content once; of the same age, in the order of their content. */
  results(table: LayerChains): MergedResult[] {
    if (this.#results.length < 2) return this.#results;
    const compareAge = (a: MergedResult, b: MergedResult): number =>
      compareTimes(b.time, a.time) || compareBytes(a.createdAt, b.createdAt);
    const newest = new Map<string, MergedResult>();
    for (const result of this.#results) {
      const content = `${result.kind} ${result.layers.join(" ")}`;
      const known = newest.get(content);
      if (!known || compareAge(result, known) < 0) newest.set(content, result);
    }
    return [...newest.values()].sort(
      (a, b) =>
        compareTimes(b.time, a.time) ||
        compareBytes(b.kind, a.kind) ||
        compareBytes(table.content(a.layers), table.content(b.layers)),
    );
  }
}

/** Each selector of each link once. */
function distinct(alternatives: CacheInput[]): CacheInput[] {
  if (alternatives.length < 2) return alternatives;
  const seen = new Set<string>();
  return alternatives.filter(({ selector, link }) => {
    const key = `${link} ${selector}`;
    return !seen.has(key) && seen.add(key);
  });
}

/** The layers of all caches, each chain of blobs once. */
class LayerChains {
  readonly #layers: CacheLayer[] = [];
  readonly #places = new Map<string, number>();

  /**
   * Adds a cache's layers.
   *
   * @param known The blobs that the cache lists.
   * @returns The place of each layer; -1 where its chain has a blob that is not known.
   */
  add(layers: readonly CacheLayer[], known: ReadonlySet<Digest>): Int32Array {
    const UNKNOWN = -2;
    const places = new Int32Array(layers.length).fill(UNKNOWN);
    const path: number[] = [];
    for (let start = 0; start < layers.length; start++) {
      let at = start;
      while (at !== -1 && places[at] === UNKNOWN) {
        path.push(at);
        at = (layers[at] as CacheLayer).parent;
      }
      while (path.length > 0) {
        const top = path.pop() as number;
        const { blob, parent, annotations } = layers[top] as CacheLayer;
        const below = parent === -1 ? -1 : (places[parent] as number);
        const isWhole = known.has(blob) && (parent === -1 || below !== -1);
        places[top] = isWhole ? this.#place(blob, below, annotations) : -1;
      }
    }
    return places;
  }

  /** A text that stands for the blobs of a result, whatever their places. */
  content(positions: readonly number[]): string {
    const blobs: string[] = [];
    for (const position of positions) {
      for (let at = position; at !== -1;) {
        const { blob, parent } = this.#layers[at] as CacheLayer;
        blobs.push(blob);
        at = parent;
      }
      blobs.push("");
    }
    return blobs.join(" ");
  }

  /** A config of records with the layers that they need, renumbered. */
  used(records: CacheRecord[]): {
    layers: CacheLayer[];
    records: CacheRecord[];
  } {
    const kept: CacheLayer[] = [];
    const places = new Map<number, number>();
    const use = (top: number): number => {
      const path: number[] = [];
      for (let at = top; at !== -1 && !places.has(at);) {
        path.push(at);
        at = (this.#layers[at] as CacheLayer).parent;
      }
      for (const at of path.toReversed()) {
        const layer = this.#layers[at] as CacheLayer;
        const parent = layer.parent === -1 ? -1 : places.get(layer.parent);
        places.set(at, kept.length);
        kept.push({ ...layer, parent: parent as number });
      }
      return places.get(top) as number;
    };
    return {
      records: records.map((record) => ({
        ...record,
        results: record.results.map((result) => ({
          ...result,
          layer: use(result.layer),
        })),
        chains: record.chains.map((chain) => ({
          ...chain,
          layers: chain.layers.map(use),
        })),
      })),
      layers: kept,
    };
  }

  #place(blob: Digest, parent: number, annotations: LayerAnnotations | undefined): number {
    const key = `${parent} ${blob}`;
    const known = this.#places.get(key);
    if (known === undefined) {
      this.#places.set(key, this.#layers.length);
      return this.#layers.push({ blob, parent, annotations }) - 1;
    }
    const layer = this.#layers[known] as CacheLayer;
    if (annotations && isBetter(annotations, layer.annotations)) layer.annotations = annotations;
    return known;
  }
}

/** Leaves out session-unique keys; nothing links to them in a cache that can be imported. */
function withoutRandom(records: readonly CacheRecord[]): { record: CacheRecord; index: number }[] {
  if (!records.some(isRandomRecord)) return records.map((record, index) => ({ record, index }));
  const kept = [...records.entries()].filter(([, record]) => !isRandomRecord(record));
  const places = new Map(kept.map(([index], place) => [index, place]));
  return kept.map(([index, record]) => ({
    index,
    record: {
      ...record,
      inputs: record.inputs.map((input) =>
        input.map(({ selector, link }) => ({
          selector,
          link: places.get(link) as number,
        })),
      ),
    },
  }));
}

function addResults(record: CacheRecord, results: readonly MergedResult[]): CacheRecord {
  return {
    ...record,
    results: results
      .filter(({ kind }) => kind === "result")
      .map(({ layers, createdAt }) => ({
        layer: layers[0] as number,
        createdAt,
      })),
    chains: results
      .filter(({ kind }) => kind === "chain")
      .map(({ layers, createdAt }) => ({ layers, createdAt })),
  };
}

/** One descriptor for each digest. Where several differ, the one that says most, whatever the order. */
function chooseDescriptors(descriptors: readonly Descriptor[]): Map<Digest, Descriptor> {
  const chosen = new Map<Digest, Descriptor>();
  for (const descriptor of descriptors) {
    const known = chosen.get(descriptor.digest);
    if (
      !known ||
      (!Bun.deepEquals(descriptor, known) &&
        isBetter(orderDescriptor(descriptor), orderDescriptor(known)))
    )
      chosen.set(descriptor.digest, descriptor);
  }
  return chosen;
}

/** A total order of what is said of one blob: the longer text first, then the smaller one. */
function isBetter(value: object, other: object | undefined): boolean {
  if (!other) return true;
  const text = JSON.stringify(value);
  const otherText = JSON.stringify(other);
  if (text.length !== otherText.length) return text.length > otherText.length;
  return compareBytes(text, otherText) < 0;
}
