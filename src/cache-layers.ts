/**
 * A cache in memory, and what every operation on one needs: the chains of its layers, the
 * results of its records, and other positions for both.
 */
import { isRandomRecord } from "./cache-check.ts";
import type {
  CacheConfig,
  CacheInput,
  CacheLayer,
  CacheRecord,
  CacheResult,
  ChainedResult,
} from "./cache-types.ts";
import type { Descriptor } from "./descriptor.ts";
import { compareBytes } from "./go-json.ts";

/** A cache: its graph, and the descriptors of the blobs in it. */
export interface Cache {
  config: CacheConfig;
  /** As a manifest lists them: written by cacheport one for each of the config's layers, in their order. */
  layers: Descriptor[];
  /** The config as it is stored; absent for a cache that was made or changed. */
  blob?: CacheBlob | undefined;
}

/** A cache config as a blob. */
export interface CacheBlob {
  bytes: Uint8Array;
  descriptor: Descriptor;
}

/**
 * A value for each layer, made from that of the layer below.
 *
 * @param layers Sound: every chain ends at a layer without a parent.
 * @param make Is called once for each layer, with undefined as `below` for the lowest.
 */
export function foldChains<T>(
  layers: readonly CacheLayer[],
  make: (layer: CacheLayer, below: T | undefined, at: number) => T,
): T[] {
  const values: T[] = Array.from({ length: layers.length });
  const isMade = new Uint8Array(layers.length);
  const path: number[] = [];
  for (const start of layers.keys()) {
    for (const at of chainFrom(layers, start)) {
      if (isMade[at] === 1) break;
      path.push(at);
    }
    for (let at = path.pop(); at !== undefined; at = path.pop()) {
      const layer = layers[at] as CacheLayer;
      values[at] = make(layer, layer.parent === -1 ? undefined : values[layer.parent], at);
      isMade[at] = 1;
    }
  }
  return values;
}

/** The positions of a layer and of those below it, from the top down. */
export function* chainFrom(layers: readonly CacheLayer[], top: number): Generator<number> {
  for (let at = top; at !== -1; at = (layers[at] as CacheLayer).parent) yield at;
}

/** A result of either kind. */
export interface RecordResult {
  kind: "results" | "chains";
  /** The position in the record's list of that kind. */
  index: number;
  /** Its layers: the top one of a result, all of a chain, bottom first. Those below them are needed too. */
  layers: readonly number[];
  createdAt: string;
}

/** All results of a record, those that list their layers themselves last. */
export function resultsOf({ results, chains }: CacheRecord): RecordResult[] {
  return [
    ...results.map(({ layer, createdAt }, index): RecordResult => ({
      kind: "results",
      index,
      layers: [layer],
      createdAt,
    })),
    ...chains.map(({ layers, createdAt }, index): RecordResult => ({
      kind: "chains",
      index,
      layers,
      createdAt,
    })),
  ];
}

/** Results in the form in which a record holds them. */
export function toResults(
  results: readonly RecordResult[],
): Pick<CacheRecord, "results" | "chains"> {
  const plain: CacheResult[] = [];
  const chains: ChainedResult[] = [];
  for (const { kind, layers, createdAt } of results) {
    if (kind === "results") plain.push({ layer: layers[0] as number, createdAt });
    else chains.push({ layers: [...layers], createdAt });
  }
  return { results: plain, chains };
}

/** A record whose results stand on other positions. */
export function moveResults(
  { results, chains }: CacheRecord,
  move: (layer: number) => number,
): Pick<CacheRecord, "results" | "chains"> {
  return {
    results: results.map(({ layer, createdAt }) => ({ layer: move(layer), createdAt })),
    chains: chains.map(({ layers, createdAt }) => ({ layers: layers.map(move), createdAt })),
  };
}

/** The inputs of a record with other positions. */
export function relink({ inputs }: CacheRecord, move: (record: number) => number): CacheInput[][] {
  return inputs.map((alternatives) =>
    alternatives.map(({ selector, link }) => ({ selector, link: move(link) })),
  );
}

/**
 * A config with these layers and records only, in this order; what they refer to must be
 * among them. Alternatives are put into the order of their records, as BuildKit has them.
 */
export function pickEntries(
  config: CacheConfig,
  layerOrder: readonly number[],
  recordOrder: readonly number[],
): CacheConfig {
  const newLayer = invert(layerOrder, config.layers.length);
  const newRecord = invert(recordOrder, config.records.length);
  const toLayer = (at: number): number => newLayer[at] as number;
  const toRecord = (at: number): number => newRecord[at] as number;
  const joined = config.joined?.map(toRecord).filter((at) => at !== -1);
  return {
    ...(joined && { joined: joined.sort((a, b) => a - b) }),
    layers: layerOrder.map((at) => {
      const layer = config.layers[at] as CacheLayer;
      return { ...layer, parent: layer.parent === -1 ? -1 : toLayer(layer.parent) };
    }),
    records: recordOrder.map((at) => {
      const record = config.records[at] as CacheRecord;
      const inputs = relink(record, toRecord);
      inputs.forEach(sortAlternatives);
      return { ...moveResults(record, toLayer), digest: record.digest, inputs };
    }),
  };
}

/**
 * {@link pickEntries} for a config that nothing else holds a part of: its entries are not
 * copied but changed, so that a large one is not there twice.
 */
export function pickOwnEntries(
  { layers, records, joined }: CacheConfig,
  layerOrder: readonly number[],
  recordOrder: readonly number[],
): CacheConfig {
  if (joined) return pickEntries({ layers, records, joined }, layerOrder, recordOrder);
  const newLayer = invert(layerOrder, layers.length);
  const newRecord = invert(recordOrder, records.length);
  return {
    layers: layerOrder.map((at) => {
      const layer = layers[at] as CacheLayer;
      if (layer.parent !== -1) layer.parent = newLayer[layer.parent] as number;
      return layer;
    }),
    records: recordOrder.map((at) => {
      const record = records[at] as CacheRecord;
      for (const result of record.results) result.layer = newLayer[result.layer] as number;
      for (const chain of record.chains)
        chain.layers = chain.layers.map((layer) => newLayer[layer] as number);
      for (const alternatives of record.inputs) {
        for (const input of alternatives) input.link = newRecord[input.link] as number;
        sortAlternatives(alternatives);
      }
      return record;
    }),
  };
}

function sortAlternatives(alternatives: CacheInput[]): void {
  if (alternatives.length > 1)
    alternatives.sort((a, b) => a.link - b.link || compareBytes(a.selector, b.selector));
}

/** The place of each old position in an order; -1 for one that is not in it. */
function invert(order: readonly number[], length: number): Int32Array {
  const places = new Int32Array(length).fill(-1);
  order.forEach((at, place) => {
    places[at] = place;
  });
  return places;
}

/** Leaves out session-unique keys, which no import keeps; nothing links to them in a sound cache. */
export function withoutRandom(config: CacheConfig): CacheConfig {
  const { layers, records } = config;
  if (!records.some(isRandomRecord)) return config;
  const kept = [...records.keys()].filter((at) => !isRandomRecord(records[at] as CacheRecord));
  return pickEntries(config, [...layers.keys()], kept);
}
