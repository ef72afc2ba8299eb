/**
 * The order in which BuildKit writes a cache config, made independent of the order
 * that the entries had before.
 *
 * BuildKit sorts layers by blob and then by the position that the parent had before
 * sorting, and records by digest, number of inputs, number of alternatives, then
 * selector and the linked record's digest. What is equal after that it leaves as
 * it happens to be. Here such ties are broken by content alone:
 *
 * - layers of one blob stand in the order of their parents in the sorted list, so
 *   the whole chain of blobs below decides;
 * - alternatives are compared in the order of the linked record's digest, then
 *   selector; records that are still equal stand in the order of
 *   {@link recordIdentities}, then of their results' times.
 *
 * Only entries that are the same in all of that keep their given order.
 *
 * Source: BuildKit cache/remotecache/v1/utils.go (sortConfig).
 */
import { assertCacheConfig, inputsFirst } from "./cache-check.ts";
import { pickEntries, pickOwnEntries } from "./cache-layers.ts";
import { tidyAfter } from "./cache-records.ts";
import type { CacheConfig, CacheInput, CacheLayer, CacheRecord } from "./cache-types.ts";
import { digestOf } from "./digest.ts";
import { compareBytes } from "./go-json.ts";

/**
 * Brings a cache config into BuildKit's order. No entry is added or dropped; the
 * config that is passed stays as it is.
 *
 * @throws {CacheportError} CACHE_INVALID
 */
export function normalizeCacheConfig(config: CacheConfig): CacheConfig {
  assertCacheConfig(config, "cache config");
  return sortEntries(config);
}

/** {@link normalizeCacheConfig} for a config that is known to be sound. */
export function sortEntries(config: CacheConfig): CacheConfig {
  const { layers, records } = config;
  return pickEntries(config, sortLayers(layers), sortRecords(records));
}

/**
 * {@link sortEntries} and {@link dropUnused} at once.
 *
 * @param options.isOwn Nothing else holds a part of the config: its entries may be changed.
 */
export function sortUsedEntries(config: CacheConfig, { isOwn = false } = {}): CacheConfig {
  const { layers, records } = config;
  const used = usedLayers(config);
  const layerOrder = sortLayers(layers).filter((at) => used[at] === 1);
  const recordOrder = sortRecords(records);
  tidyAfter(records.length);
  const pick = isOwn ? pickOwnEntries : pickEntries;
  return pick(config, layerOrder, recordOrder);
}

/**
 * Tells whether BuildKit's own sort can have given a config its order. Which of several
 * layers of one blob comes first, and of several records with one digest and as many
 * inputs, is left to chance there: it compares alternatives as they happen to stand.
 *
 * @param config Known to be sound.
 */
export function isSorted({ layers, records }: CacheConfig): boolean {
  return (
    layers.every(({ blob }, at) => at === 0 || compareBytes(layers[at - 1]!.blob, blob) <= 0) &&
    records.every(({ digest, inputs }, at) => {
      const before = records[at - 1];
      if (!before) return true;
      const difference = compareBytes(before.digest, digest);
      return difference < 0 || (difference === 0 && before.inputs.length <= inputs.length);
    }) &&
    records.every(({ inputs }) =>
      inputs.every((input) =>
        input.every(({ link }, at) => at === 0 || (input[at - 1]?.link ?? 0) <= link),
      ),
    )
  );
}

/**
 * Leaves out the layers that no result and no chain needs. The rest keeps its order.
 *
 * @throws {CacheportError} CACHE_INVALID
 */
export function dropUnused(config: CacheConfig): CacheConfig {
  assertCacheConfig(config, "cache config");
  const used = usedLayers(config);
  const kept = [...config.layers.keys()].filter((at) => used[at] === 1);
  return pickEntries(config, kept, [...config.records.keys()]);
}

/** For each layer, 1 when a result or a chain needs it. */
function usedLayers({ layers, records }: CacheConfig): Uint8Array {
  const used = new Uint8Array(layers.length);
  const use = (top: number): void => {
    for (let at = top; at !== -1 && used[at] === 0; at = (layers[at] as CacheLayer).parent)
      used[at] = 1;
  };
  for (const { results, chains } of records) {
    for (const { layer } of results) use(layer);
    for (const chain of chains) chain.layers.forEach(use);
  }
  return used;
}

/**
 * A digest for records that stands for their key and everything below it: the same
 * for two records, in one config or in two, when their digests are equal and each
 * input has the same set of alternatives, linked to records of the same identity
 * through the same selectors. Results do not matter.
 *
 * @param records Without loops and broken links.
 * @param wanted Positions of records; all of them unless told otherwise.
 * @returns The identities of those records and of all below them.
 */
export function recordIdentities(
  records: readonly CacheRecord[],
  wanted: Iterable<number> = records.keys(),
): string[] {
  const identities: string[] = [];
  const isNeeded = new Uint8Array(records.length);
  const open = [...wanted];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (isNeeded[at] === 1) continue;
    isNeeded[at] = 1;
    for (const input of (records[at] as CacheRecord).inputs)
      for (const { link } of input) open.push(link);
  }
  for (const at of inputsFirst(records)) {
    if (isNeeded[at] === 0) continue;
    const { digest, inputs } = records[at] as CacheRecord;
    const parts = inputs.map((alternatives) =>
      alternatives.map(({ selector, link }) => `${identities[link]} ${selector}`).sort(),
    );
    identities[at] = digestOf(JSON.stringify([digest, parts]));
  }
  return identities;
}

/**
 * The positions of layers sorted by blob, then by their parent's place in that same
 * order. The place of the parent is not known before the order is, so chains are
 * compared by their first 1, 2, 4, 8 ... blobs from the top (prefix doubling).
 */
function sortLayers(layers: readonly CacheLayer[]): number[] {
  const order = [...layers.keys()];
  const blobs = layers.map(({ blob }) => blob as string);
  let above = Int32Array.from(layers, ({ parent }) => parent);
  let { ranks, count } = rank(order, (a, b) =>
    compareBytes(blobs[a] as string, blobs[b] as string),
  );
  while (count < layers.length && above.some((at) => at !== -1)) {
    const current = ranks;
    const steps = above;
    const aboveRank = (at: number): number => {
      const up = steps[at] as number;
      return up === -1 ? -1 : (current[up] as number);
    };
    ({ ranks, count } = rank(
      order,
      (a, b) => (current[a] as number) - (current[b] as number) || aboveRank(a) - aboveRank(b),
    ));
    above = steps.map((at) => (at === -1 ? -1 : (steps[at] as number)));
  }
  const final = ranks;
  return order.sort((a, b) => (final[a] as number) - (final[b] as number) || a - b);
}

/** Sorts positions and numbers them from 0, equal ones alike. */
function rank(
  order: number[],
  compare: (a: number, b: number) => number,
): { ranks: Int32Array; count: number } {
  order.sort(compare);
  const ranks = new Int32Array(order.length);
  let count = 0;
  order.forEach((at, place) => {
    if (place === 0 || compare(order[place - 1] as number, at) !== 0) count++;
    ranks[at] = count - 1;
  });
  return { ranks, count };
}

/** The positions of records in BuildKit's order. */
function sortRecords(records: readonly CacheRecord[]): number[] {
  const alternatives = new Map<number, readonly (readonly CacheInput[])[]>();
  const digestOfLink = ({ link }: CacheInput): string => (records[link] as CacheRecord).digest;
  const alternativesOf = (at: number) => {
    let lists = alternatives.get(at);
    if (!lists) {
      lists = (records[at] as CacheRecord).inputs.map((input) =>
        input.length < 2
          ? input
          : input.toSorted(
              (a, b) =>
                compareBytes(digestOfLink(a), digestOfLink(b)) ||
                compareBytes(a.selector, b.selector),
            ),
      );
      alternatives.set(at, lists);
    }
    return lists;
  };
  const compareInputs = (a: number, b: number): number => {
    const lists = alternativesOf(a);
    const others = alternativesOf(b);
    for (const [i, list] of lists.entries()) {
      const other = others[i] as readonly CacheInput[];
      if (list.length !== other.length) return list.length - other.length;
      for (const [j, own] of list.entries()) {
        const their = other[j] as CacheInput;
        const difference =
          compareBytes(own.selector, their.selector) ||
          compareBytes(digestOfLink(own), digestOfLink(their));
        if (difference !== 0) return difference;
      }
    }
    return 0;
  };
  const digests = records.map(({ digest }) => digest);
  const inputCount = (at: number): number => (records[at] as CacheRecord).inputs.length;
  const compareKeys = (a: number, b: number): number =>
    compareBytes(digests[a] as string, digests[b] as string) ||
    inputCount(a) - inputCount(b) ||
    compareInputs(a, b);
  return breakTies(records, [...records.keys()].sort(compareKeys), compareKeys);
}

/** Puts records that are equal so far into an order that what is below them, and their results, decide. */
function breakTies(
  records: readonly CacheRecord[],
  order: number[],
  compare: (a: number, b: number) => number,
): number[] {
  const ties: [start: number, end: number][] = [];
  for (let start = 0, end = 1; end <= order.length; end++) {
    const isTie =
      end < order.length && compare(order[end - 1] as number, order[end] as number) === 0;
    if (isTie) continue;
    if (end - start > 1) ties.push([start, end]);
    start = end;
  }
  const identities = recordIdentities(
    records,
    ties.flatMap(([start, end]) => order.slice(start, end)),
  );
  const resultsOf = (at: number): string => {
    const { results, chains } = records[at] as CacheRecord;
    return JSON.stringify([
      results.map(({ createdAt }) => createdAt),
      chains.map(({ createdAt }) => createdAt),
    ]);
  };
  for (const [start, end] of ties) {
    const sorted = order
      .slice(start, end)
      .sort(
        (a, b) =>
          compareBytes(identities[a] as string, identities[b] as string) ||
          compareBytes(resultsOf(a), resultsOf(b)) ||
          a - b,
      );
    for (const [i, at] of sorted.entries()) order[start + i] = at;
  }
  return order;
}
