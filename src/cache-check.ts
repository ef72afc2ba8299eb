/**
 * The rules by which BuildKit refuses a cache config. Nothing here recurses and
 * nothing is walked twice: a config is from outside and may hold a chain of any
 * length.
 *
 * Source: BuildKit cache/remotecache/v1/parse.go (parseRecord, getRemoteChain) and
 * chains.go (Add).
 */
import type { CacheConfig, CacheLayer, CacheRecord } from "./cache-types.ts";
import { CacheportError } from "./errors.ts";

/** A kind of fault in a cache config. */
export type CacheProblemCode =
  /** A parent, a result or a chain names a layer that is not there. */
  | "LAYER_INDEX"
  /** A layer is its own ancestor. */
  | "LAYER_LOOP"
  /** An input links to a record that is not there. */
  | "RECORD_INDEX"
  /** A record is its own ancestor. */
  | "RECORD_LOOP"
  /** An input has no alternatives. */
  | "INPUT_EMPTY"
  /** An input links to a session-unique key, which no import keeps. */
  | "INPUT_RANDOM";

/** One reason for which BuildKit refuses a cache config. */
export interface CacheProblem {
  code: CacheProblemCode;
  /** In BuildKit's own words. */
  message: string;
  /** The list that the faulty entry stands in. */
  place: "layers" | "records";
  /** The faulty entry's position there. */
  index: number;
}

/** Keys that are valid in one session only start with this. */
const RANDOM = "random:";

/** Tells whether a record's key is valid in one session only; BuildKit leaves such records out. */
export function isRandomRecord({ digest }: CacheRecord): boolean {
  return digest.startsWith(RANDOM);
}

/**
 * Finds every fault for which BuildKit refuses a cache config. The first one is
 * the one that BuildKit reports; faults in layers that no result needs, which it
 * never looks at, come last.
 */
export function checkCacheConfig(config: CacheConfig): CacheProblem[] {
  const { layers, records } = config;
  const problems: CacheProblem[] = [];
  const breaks = findBreaks(layers);
  const reported = new Set<number>();

  const reportBreak = (index: number): void => {
    if (reported.has(index)) return;
    reported.add(index);
    const { parent } = layers[index] as CacheLayer;
    problems.push(
      layers[parent]
        ? {
            code: "LAYER_LOOP",
            message: "invalid looping layer",
            place: "layers",
            index,
          }
        : {
            code: "LAYER_INDEX",
            message: `invalid layer index ${parent}`,
            place: "layers",
            index,
          },
    );
  };
  const reportMissing = (layer: number, index: number): void => {
    problems.push({
      code: "LAYER_INDEX",
      message: `invalid layer index ${layer}`,
      place: "records",
      index,
    });
  };

  visitRecords(records, {
    fault: (problem) => problems.push(problem),
    // BuildKit reads a record's results once all of its inputs are read.
    leave(index) {
      const { results, chains } = records[index] as CacheRecord;
      for (const { layer } of results) {
        const broken = breaks[layer];
        if (broken === undefined) reportMissing(layer, index);
        else if (broken !== SOUND) reportBreak(broken);
      }
      for (const chain of chains) {
        for (const layer of chain.layers) if (!layers[layer]) reportMissing(layer, index);
      }
    },
  });
  for (const broken of breaks) if (broken !== SOUND) reportBreak(broken);
  return problems;
}

/**
 * Refuses a cache config that BuildKit would refuse.
 *
 * @param what What the config is, for the message: `cache config "sha256:..."`.
 * @throws {CacheportError} CACHE_INVALID, with the first problem
 */
export function assertCacheConfig(config: CacheConfig, what: string): void {
  const [problem] = checkCacheConfig(config);
  if (!problem) return;
  const { message, place, index } = problem;
  throw new CacheportError(
    "CACHE_INVALID",
    `Cannot use ${what}: ${message} (in ${place}, entry ${index})`,
    { hint: "BuildKit refuses it as well; export the cache again" },
  );
}

/**
 * The positions of all records in an order in which each one comes after the
 * records that its inputs link to. Links that {@link checkCacheConfig} reports are
 * passed over.
 */
export function inputsFirst(records: readonly CacheRecord[]): number[] {
  const order: number[] = [];
  visitRecords(records, {
    fault() {},
    leave: (index) => order.push(index),
  });
  return order;
}

/**
 * How many layers lie below each layer: 0 for one without a parent. A parent that
 * {@link checkCacheConfig} reports counts as none.
 */
export function layerDepths(config: CacheConfig): number[] {
  const { layers } = config;
  const breaks = findBreaks(layers);
  const depths: number[] = Array.from(layers, () => -1);
  const path: number[] = [];
  for (let start = 0; start < layers.length; start++) {
    for (let at = start; ; at = (layers[at] as CacheLayer).parent) {
      if (depths[at] !== -1) break;
      path.push(at);
      if (breaks[at] === at || (layers[at] as CacheLayer).parent === -1) {
        depths[at] = 0;
        path.pop();
        break;
      }
    }
    while (path.length > 0) {
      const at = path.pop() as number;
      depths[at] = (depths[(layers[at] as CacheLayer).parent] as number) + 1;
    }
  }
  return depths;
}

/**
 * The positions of a layer and of all layers below it, bottom first.
 *
 * @throws {CacheportError} CACHE_INVALID when the chain leaves the table or loops
 */
export function layerChain(config: CacheConfig, index: number): number[] {
  const { layers } = config;
  const chain: number[] = [];
  for (let at = index; at !== -1; at = (layers[at] as CacheLayer).parent) {
    const isThere = layers[at] !== undefined;
    if (!isThere || chain.length === layers.length) {
      throw new CacheportError(
        "CACHE_INVALID",
        `Cannot follow layer ${index}: ${isThere ? "invalid looping layer" : `invalid layer index ${at}`}`,
      );
    }
    chain.push(at);
  }
  return chain.toReversed();
}

/** Marks a layer whose chain ends at a layer without a parent. */
const SOUND = -1;

/** For each layer the position below which its chain cannot be followed, or {@link SOUND}. */
function findBreaks(layers: readonly CacheLayer[]): Int32Array {
  const UNKNOWN = -2;
  const OPEN = -3;
  const breaks = new Int32Array(layers.length).fill(UNKNOWN);
  const path: number[] = [];
  for (let start = 0; start < layers.length; start++) {
    let at = start;
    let verdict = UNKNOWN;
    while (verdict === UNKNOWN) {
      const known = breaks[at] as number;
      if (known !== UNKNOWN) {
        verdict = known;
        break;
      }
      breaks[at] = OPEN;
      path.push(at);
      const { parent } = layers[at] as CacheLayer;
      if (parent === -1) verdict = SOUND;
      else if (!layers[parent] || breaks[parent] === OPEN) verdict = at;
      else at = parent;
    }
    while (path.length > 0) breaks[path.pop() as number] = verdict;
  }
  return breaks;
}

/** What a walk over the records tells. */
interface RecordVisitor {
  fault(problem: CacheProblem): void;
  /** A record whose inputs have all been left, or reported. */
  leave(index: number): void;
}

/** Walks all records, inputs before the records that need them, in BuildKit's own order. */
function visitRecords(records: readonly CacheRecord[], visitor: RecordVisitor): void {
  const { starts, links } = listLinks(records);
  const isRandom = Uint8Array.from(records, (record) => (isRandomRecord(record) ? 1 : 0));
  const NEW = 0;
  const OPEN = 1;
  const LEFT = 2;
  const state = new Uint8Array(records.length);
  // How far each open record's links have been walked.
  const next = starts.slice();
  const open: number[] = [];

  const fault = (code: CacheProblemCode, message: string, index: number): void => {
    visitor.fault({ code, message, place: "records", index });
  };

  for (let start = 0; start < records.length; start++) {
    if (state[start] !== NEW) continue;
    state[start] = OPEN;
    open.push(start);
    while (open.length > 0) {
      const at = open.at(-1) as number;
      if (next[at] === starts[at + 1]) {
        state[at] = LEFT;
        open.pop();
        visitor.leave(at);
        continue;
      }
      const link = links[next[at]!++] as number;
      const linked = state[link];
      if (Number.isNaN(link)) fault("INPUT_EMPTY", `invalid empty input for record ${at}`, at);
      else if (linked === undefined) fault("RECORD_INDEX", `invalid record ID: ${link}`, at);
      else if (linked === OPEN) fault("RECORD_LOOP", "invalid looping record", at);
      else {
        if (isRandom[link] === 1) {
          fault(
            "INPUT_RANDOM",
            `failed to add record ${at}: invalid dependency type <nil> for ${records[at]?.digest}`,
            at,
          );
        }
        if (linked === NEW) {
          state[link] = OPEN;
          open.push(link);
        }
      }
    }
  }
}

/** The links of all records one after another, NaN for an input without any, and where those of each record start. */
function listLinks(records: readonly CacheRecord[]): {
  starts: Int32Array;
  links: number[];
} {
  const starts = new Int32Array(records.length + 1);
  const links: number[] = [];
  for (const [at, { inputs }] of records.entries()) {
    for (const alternatives of inputs) {
      if (alternatives.length === 0) links.push(NaN);
      for (const { link } of alternatives) links.push(link);
    }
    starts[at + 1] = links.length;
  }
  return { starts, links };
}
