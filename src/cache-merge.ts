/**
 * One cache out of several: a build against the merge finds what it would have
 * found in one of the parts.
 *
 * - Records that BuildKit takes for the same one (see cache-same.ts) become
 *   one, with the alternatives of all of them in each input. So the merge is taken
 *   by every BuildKit: none of its records overlaps with another one.
 * - Layers are shared where the whole chain of blobs below them is the same.
 * - Of a record's results the newest stays, as in BuildKit's own export since 0.25;
 *   an import reads several, which older caches have, but uses one of them. Where
 *   `prefer` is given, one of the caches is chosen for all records that hang together
 *   (see cache-donors.ts).
 * - What an import would drop is not taken along: results with a blob that their
 *   own cache does not list (they could hide a whole one of another cache) and
 *   session-unique keys. A joining record is left to {@link healCache}.
 *
 * The outcome is normalised and does not depend on the order of the caches or on
 * which of them are merged first. There are two exceptions: a loop that came to be
 * from records of several caches is broken at once (see cache-loops.ts), so merging
 * step by step may break it elsewhere; and with `prefer`, a merge is one cache when it
 * is merged again.
 *
 * Source: BuildKit cache/remotecache/v1/parse.go, chains.go, utils.go.
 */
import { assertCacheConfig } from "./cache-check.ts";
import { isDisputed, settleConflicts } from "./cache-donors.ts";
import type { Conflict, Donor, Preference } from "./cache-donors.ts";
import { chainFrom, foldChains, toResults, withoutRandom } from "./cache-layers.ts";
import type { Cache, RecordResult } from "./cache-layers.ts";
import { breakLoops } from "./cache-loops.ts";
import { sortUsedEntries } from "./cache-order.ts";
import { tidyAfter } from "./cache-records.ts";
import { uniteRecords } from "./cache-same.ts";
import { compareTimeTexts } from "./cache-time.ts";
import type {
  CacheConfig,
  CacheInput,
  CacheLayer,
  CacheRecord,
  CacheResult,
  LayerAnnotations,
} from "./cache-types.ts";
import { orderDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { compareBytes } from "./go-json.ts";

/** How to merge. */
export interface MergeOptions {
  /** `newest` (the default) keeps one result of a record, `all` every one, the newest first. */
  results?: "newest" | "all" | undefined;
  /**
   * Whose results stay where caches have different ones: those of one cache for all
   * records that hang together. Without it each record's newest stays.
   */
  prefer?: Preference | undefined;
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
export function mergeCaches(caches: readonly Cache[], options: MergeOptions = {}): Cache {
  const { conflicts: _conflicts, ...cache } = mergeWithConflicts(caches, options);
  return cache;
}

/**
 * The records that several caches have with other results.
 *
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function findConflicts(caches: readonly Cache[], options: MergeOptions = {}): Conflict[] {
  return mergeWithConflicts(caches, options).conflicts;
}

/** {@link mergeCaches}, together with the records on which the caches do not agree. */
export function mergeWithConflicts(
  caches: readonly Cache[],
  {
    results: keep = "newest",
    prefer,
    name = (position) => `cache ${position + 1}`,
  }: MergeOptions = {},
): Cache & { conflicts: Conflict[] } {
  caches.forEach(({ config }, i) => assertCacheConfig(config, name(i)));
  const { conflicts, ...united } = uniteCaches(caches, keep, prefer);
  const config = sortUsedEntries(withoutRandom(united), { isOwn: true });
  const descriptors = chooseDescriptors(caches);
  return {
    config,
    layers: config.layers.map(({ blob }) => descriptors.get(blob) as Descriptor),
    conflicts,
  };
}

/** Records after which what comparing their results left behind is given back. */
const TIDY_EVERY = 8192;

/** One config of several, in no order; it shares no entry with any of them. */
function uniteCaches(
  caches: readonly Cache[],
  keep: "newest" | "all",
  prefer: Preference | undefined,
): CacheConfig & { conflicts: Conflict[] } {
  const classes = new RecordTable(caches);
  const chains = new LayerChains();
  const places = caches.map(({ config, layers }) =>
    chains.add(config.layers, new Set(layers.map(({ digest }) => digest))),
  );
  const records = breakLoops(
    Array.from({ length: classes.count }, (_class, at) =>
      uniteInputs(classes, classes.members(at)),
    ),
  );
  tidyAfter(records.length);
  // A large cache has its results many times over while they are compared: those on which
  // all agree are let go at once.
  let gathered = 0;
  const resultsOf = (at: number): MergedResult[] => {
    if (++gathered % TIDY_EVERY === 0) tidyAfter(records.length);
    return gatherResults(classes.members(at), places, chains);
  };
  const take = (record: CacheRecord | undefined, own: readonly MergedResult[]): void => {
    Object.assign(record as CacheRecord, toResults(keep === "newest" ? own.slice(0, 1) : own));
  };
  const disputed = new Map<number, MergedResult[]>();
  for (const [at, record] of records.entries()) {
    const own = resultsOf(at);
    take(record, own);
    if (isDisputed(own)) disputed.set(at, own);
  }
  const { conflicts, moved } = settleConflicts(records, disputed, resultsOf, prefer);
  for (const [at, own] of moved) take(records[at], own);
  return { layers: chains.layers, records, conflicts };
}

/** A record of one of the caches. */
interface Member {
  cache: number;
  record: CacheRecord;
}

/** The records of all caches by what BuildKit takes for one. */
class RecordTable {
  readonly #caches: readonly Cache[];
  readonly #classes: Int32Array[];
  /** For each class, where its members start; each is a cache and a position. */
  readonly #starts: Int32Array;
  readonly #owners: Int32Array;
  readonly #positions: Int32Array;

  constructor(caches: readonly Cache[]) {
    const { count, classes } = uniteRecords(caches.map(({ config }) => config.records));
    this.#caches = caches;
    this.#classes = classes;
    const starts = new Int32Array(count + 1);
    for (const numbers of classes) for (const number of numbers) starts[number + 1]! += 1;
    for (let at = 0; at < count; at++) starts[at + 1]! += starts[at] as number;
    const filled = starts.slice();
    this.#owners = new Int32Array(starts[count] as number);
    this.#positions = new Int32Array(starts[count] as number);
    for (const [cache, numbers] of classes.entries()) {
      for (const [position, number] of numbers.entries()) {
        const place = filled[number]!++;
        this.#owners[place] = cache;
        this.#positions[place] = position;
      }
    }
    this.#starts = starts;
  }

  /** How many classes there are. */
  get count(): number {
    return this.#starts.length - 1;
  }

  /** The records of a class. */
  members(number: number): Member[] {
    const members: Member[] = [];
    const end = this.#starts[number + 1] as number;
    for (let at = this.#starts[number] as number; at < end; at++) {
      const cache = this.#owners[at] as number;
      const { records } = (this.#caches[cache] as Cache).config;
      members.push({ cache, record: records[this.#positions[at] as number] as CacheRecord });
    }
    return members;
  }

  /** The class of a record. */
  classOf(cache: number, position: number): number {
    return this.#classes[cache]?.[position] as number;
  }
}

/** The record that a class becomes, without results; links are classes. */
function uniteInputs(classes: RecordTable, members: readonly Member[]): CacheRecord {
  const [first] = members as readonly [Member];
  const inputs = first.record.inputs.map((_input, position) => {
    const alternatives: CacheInput[] = [];
    for (const { cache, record } of members) {
      for (const { selector, link } of record.inputs[position] ?? []) {
        const target = classes.classOf(cache, link);
        // As a rule all caches have the same few.
        if (alternatives.length > FEW_ALTERNATIVES || !has(alternatives, selector, target))
          alternatives.push({ selector, link: target });
      }
    }
    return alternatives.length > FEW_ALTERNATIVES ? distinct(alternatives) : alternatives;
  });
  return { results: [], chains: [], digest: first.record.digest, inputs };
}

/** Alternatives up to this many are compared with each other. */
const FEW_ALTERNATIVES = 8;

function has(alternatives: readonly CacheInput[], selector: string, link: number): boolean {
  for (let at = 0; at < alternatives.length; at++) {
    const other = alternatives[at] as CacheInput;
    if (other.link === link && other.selector === selector) return true;
  }
  return false;
}

/** Each selector of each link once. */
function distinct(alternatives: CacheInput[]): CacheInput[] {
  const seen = new Map<number, string | Set<string>>();
  return alternatives.filter(({ selector, link }) => {
    const known = seen.get(link);
    if (known === undefined) {
      seen.set(link, selector);
      return true;
    }
    if (known === selector) return false;
    if (typeof known === "string") {
      seen.set(link, new Set([known, selector]));
      return true;
    }
    return !known.has(selector) && known.add(selector);
  });
}

/** A result of any of the caches; its layers are positions in the table of all chains. */
interface MergedResult extends RecordResult, Donor {}

/** The results of a class, the newest first, each content once; of the same age, in the order of their content. */
function gatherResults(
  members: readonly Member[],
  places: readonly (readonly number[])[],
  chains: LayerChains,
): MergedResult[] {
  const results: MergedResult[] = [];
  for (const { cache, record } of members) {
    const own = places[cache] as readonly number[];
    for (let index = 0; index < record.results.length; index++) {
      const { layer, createdAt } = record.results[index] as CacheResult;
      const place = own[layer] ?? -1;
      const top = chains.layers[place]?.blob;
      if (top !== undefined)
        results.push({ kind: "results", index, layers: [place], createdAt, caches: [cache], top });
    }
    for (const [index, { layers: listed, createdAt }] of record.chains.entries()) {
      const layers = listed.map((layer) => own[layer] ?? -1);
      const top = layers.includes(-1) ? undefined : chains.layers[layers.at(-1) ?? -1]?.blob;
      if (top !== undefined)
        results.push({ kind: "chains", index, layers, createdAt, caches: [cache], top });
    }
  }
  if (results.length < 2) return results;
  const distinct = distinctResults(results);
  return distinct.sort(
    (a, b) =>
      compareTimeTexts(b.createdAt, a.createdAt) ||
      compareBytes(b.kind, a.kind) ||
      compareBytes(chains.content(a.layers), chains.content(b.layers)),
  );
}

/** Results up to this many are compared with each other. */
const FEW_RESULTS = 8;

/** Each content once, its newest result with all caches that have it. */
function distinctResults(results: readonly MergedResult[]): MergedResult[] {
  const distinct: MergedResult[] = [];
  const places = results.length > FEW_RESULTS ? new Map<string, number>() : undefined;
  for (const result of results) {
    const content = places && `${result.kind} ${result.layers.join(" ")}`;
    const at =
      content === undefined
        ? distinct.findIndex((other) => isSameContent(other, result))
        : (places?.get(content) ?? -1);
    const known = distinct[at];
    if (!known) {
      if (content !== undefined) places?.set(content, distinct.length);
      distinct.push(result);
      continue;
    }
    const best = compareAge(known, result) <= 0 ? known : result;
    distinct[at] = { ...best, caches: [...known.caches, ...result.caches] };
  }
  return distinct;
}

function isSameContent(a: MergedResult, b: MergedResult): boolean {
  return (
    a.kind === b.kind &&
    a.layers.length === b.layers.length &&
    a.layers.every((layer, at) => layer === b.layers[at])
  );
}

/** The newest first; of one moment in several spellings, always the same. */
function compareAge(a: MergedResult, b: MergedResult): number {
  return compareTimeTexts(b.createdAt, a.createdAt) || compareBytes(a.createdAt, b.createdAt);
}

/** The layers of all caches, each chain of blobs once. */
class LayerChains {
  readonly layers: CacheLayer[] = [];
  /** For each layer, by its blob, the places right above it; those of no layer first. */
  readonly #above: Map<Digest, number>[] = [new Map()];

  /**
   * Adds a cache's layers.
   *
   * @param known The blobs that the cache lists.
   * @returns The place of each layer; -1 where its chain has a blob that is not known.
   */
  add(layers: readonly CacheLayer[], known: ReadonlySet<Digest>): number[] {
    return foldChains<number>(layers, ({ blob, parent, annotations }, below = -1) =>
      known.has(blob) && (parent === -1 || below !== -1)
        ? this.#place(blob, below, annotations)
        : -1,
    );
  }

  /** A text that stands for the blobs of a result, whatever their places. */
  content(positions: readonly number[]): string {
    const blobs: string[] = [];
    for (const position of positions) {
      for (const at of chainFrom(this.layers, position))
        blobs.push((this.layers[at] as CacheLayer).blob);
      blobs.push("");
    }
    return blobs.join(" ");
  }

  #place(blob: Digest, parent: number, annotations: LayerAnnotations | undefined): number {
    let above = this.#above[parent + 1];
    if (!above) this.#above[parent + 1] = above = new Map();
    const known = above.get(blob);
    if (known === undefined) {
      const place = this.layers.push({ blob, parent, ...(annotations && { annotations }) }) - 1;
      above.set(blob, place);
      return place;
    }
    const layer = this.layers[known] as CacheLayer;
    if (annotations && isBetter(annotations, layer.annotations)) layer.annotations = annotations;
    return known;
  }
}

/** One descriptor for each digest. Where several differ, the one that says most, whatever the order. */
function chooseDescriptors(caches: readonly Cache[]): Map<Digest, Descriptor> {
  const chosen = new Map<Digest, Descriptor>();
  for (const { layers } of caches) {
    for (const descriptor of layers) {
      const known = chosen.get(descriptor.digest);
      if (
        !known ||
        (known !== descriptor &&
          !Bun.deepEquals(descriptor, known) &&
          isBetter(orderDescriptor(descriptor), orderDescriptor(known)))
      )
        chosen.set(descriptor.digest, descriptor);
    }
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
