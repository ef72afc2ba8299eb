/**
 * Random caches that BuildKit would take, the same ones for the same seed: steps
 * on shared and repeated layers, several roots, alternatives, selectors, chained
 * results, steps of one definition on several inputs, and everything in an order
 * of its own (parents after children).
 *
 * They are in the form in which BuildKit exports: no two records are the same key,
 * each has one result at most, and every layer is needed.
 */
import type { CacheConfig, CacheInput, CacheLayer, CacheRecord } from "../../src/cache-types.ts";
import type { Cache } from "../../src/cache-layers.ts";
import type { Digest } from "../../src/digest.ts";
import { ANNOTATION_UNCOMPRESSED, OCI_LAYER_GZIP } from "../../src/media-types.ts";

/** Gives numbers from 0 to below 1, the same row for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A digest that stands for a text. */
export function fakeDigest(text: string): Digest {
  return `sha256:${Bun.CryptoHasher.hash("sha256", text, "hex")}` as Digest;
}

/** A descriptor for each layer of a config, sizes made from the digests. */
export function describeLayers(layers: readonly CacheLayer[]): Cache["layers"] {
  return layers.map(({ blob }) => ({
    mediaType: OCI_LAYER_GZIP,
    digest: blob,
    size: 1 + (Number.parseInt(blob.slice(7, 15), 16) % 1_000_000),
    annotations: { [ANNOTATION_UNCOMPRESSED]: fakeDigest(blob) },
  }));
}

/** A time a number of seconds after a fixed day, in Go's text. */
export function timeAfter(seconds: number): string {
  const whole = Math.floor(seconds);
  const fraction = Math.round((seconds - whole) * 1e9);
  const date = new Date(Date.UTC(2026, 0, 1) + whole * 1000);
  const digits = String(fraction).padStart(9, "0").replace(/0+$/, "");
  return date.toISOString().replace(/\.000Z$/, digits === "" ? "Z" : `.${digits}Z`);
}

/**
 * A cache from a table of steps: `name: [inputs, layers, time]`. A step is named
 * after its digest; what follows a `#` only tells it from others in the table. An
 * input is `x` or `x|y`, with a selector `x/selector`; layers are names, bottom first.
 */
export function cacheOf(
  steps: Record<string, [inputs?: string[], layers?: string[], time?: number]>,
): Cache {
  const names = Object.keys(steps);
  const config: CacheConfig = { layers: [], records: [] };
  for (const [name, [inputs = [], chain = [], time = 0]] of Object.entries(steps)) {
    let parent = -1;
    for (const layer of chain) {
      const blob = fakeDigest(layer);
      const known = config.layers.findIndex((each) => each.blob === blob && each.parent === parent);
      parent = known === -1 ? config.layers.push({ blob, parent }) - 1 : known;
    }
    config.records.push({
      digest: name.replace(/#.*/, ""),
      results: parent === -1 ? [] : [{ layer: parent, createdAt: timeAfter(time) }],
      chains: [],
      inputs: inputs.map((input) =>
        input.split("|").map((alternative) => {
          const [source = "", selector = ""] = alternative.split("/");
          return { selector, link: names.indexOf(source) };
        }),
      ),
    });
  }
  return { config, layers: describeLayers(config.layers) };
}

/** Makes a cache with a number of records. */
export function generateCache(seed: number, size: number): Cache {
  const next = random(seed);
  const pick = (count: number): number => Math.floor(next() * count);
  const name = (kind: string, number: number): string => fakeDigest(`${seed} ${kind} ${number}`);

  const records: CacheRecord[] = [];
  const layers: CacheLayer[] = [];
  const places = new Map<string, number>();
  const layerOn = (parent: number): number => {
    // One blob in ten is an old one, often in another place.
    const number = next() < 0.1 && layers.length > 0 ? pick(layers.length) : layers.length;
    const blob = name("blob", number) as Digest;
    const key = `${parent} ${blob}`;
    const known = places.get(key);
    if (known !== undefined) return known;
    places.set(key, layers.length);
    return layers.push({ blob, parent }) - 1;
  };
  const taken = new Set<string>();

  const roots = Math.max(1, Math.floor(size / 6));
  for (let at = 0; at < size; at++) {
    if (at < roots) {
      const digest = name("root", at);
      records.push({ results: [], chains: [], digest, inputs: [] });
      continue;
    }
    const inputs = Array.from({ length: 1 + pick(3) }, () => {
      const alternatives = new Map<string, CacheInput>();
      for (let i = 1 + pick(3); i > 0; i--) {
        const link = next() < 0.5 ? pick(at) : at - 1 - pick(Math.min(at, 20));
        const selector = next() < 0.3 ? name("selector", pick(5)) : "";
        alternatives.set(`${link} ${selector}`, { selector, link });
      }
      return [...alternatives.values()];
    });
    // A definition may come again as long as its first input has nothing in common.
    let digest = name("step", pick(size));
    const keys = (): string[] =>
      (inputs[0] ?? []).map(
        ({ selector, link }) => `${digest} ${inputs.length} ${link} ${selector}`,
      );
    if (keys().some((key) => taken.has(key))) digest = name("own step", at);
    for (const key of keys()) taken.add(key);

    const record: CacheRecord = { results: [], chains: [], digest, inputs };
    const below = records[inputs[0]?.[0]?.link ?? -1]?.results[0]?.layer ?? -1;
    const createdAt = timeAfter(at * 10 + next());
    const kind = next();
    if (kind < 0.1 && layers.length > 0) {
      record.results.push({ layer: pick(layers.length), createdAt });
    } else if (kind < 0.85) {
      record.results.push({ layer: layerOn(below), createdAt });
    } else if (kind < 0.9 && layers.length > 1) {
      const first = pick(layers.length);
      record.chains.push({ layers: [first, pick(layers.length)], createdAt });
    }
    records.push(record);
  }
  return shuffle({ config: { layers, records }, layers: [] }, seed + 1);
}

/** The same cache in another order, alternatives included. */
export function shuffle(cache: Cache, seed: number): Cache {
  const next = random(seed);
  const { layers, records } = cache.config;
  const layerOrder = shuffled([...layers.keys()], next);
  const recordOrder = shuffled([...records.keys()], next);
  const newLayer = new Map(layerOrder.map((at, place) => [at, place]));
  const newRecord = new Map(recordOrder.map((at, place) => [at, place]));
  const toLayer = (at: number): number => newLayer.get(at) ?? -1;
  const config = {
    layers: layerOrder.map((at) => {
      const { blob, parent } = layers[at] as CacheLayer;
      return { blob, parent: toLayer(parent) };
    }),
    records: recordOrder.map((at) => {
      const { results, chains, digest, inputs } = records[at] as CacheRecord;
      return {
        results: results.map(({ layer, createdAt }) => ({
          layer: toLayer(layer),
          createdAt,
        })),
        chains: chains.map((chain) => ({
          layers: chain.layers.map(toLayer),
          createdAt: chain.createdAt,
        })),
        digest,
        inputs: inputs.map((input) =>
          shuffled(
            input.map(({ selector, link }) => ({
              selector,
              link: newRecord.get(link) as number,
            })),
            next,
          ),
        ),
      };
    }),
  };
  return { config, layers: describeLayers(config.layers) };
}

/**
 * A part of a cache, as a build of only some targets would have exported it: some
 * records with all that they need, of some inputs only one of the alternatives,
 * some results remade later on a layer of their own.
 *
 * @param share The chance of a record to be wanted, from 0 to 1.
 */
export function partOf(cache: Cache, seed: number, share: number): Cache {
  const next = random(seed);
  const layers: CacheLayer[] = cache.config.layers.map((layer) => ({
    ...layer,
  }));
  const wanted = new Map<number, CacheRecord>();
  const open = [...cache.config.records.keys()].filter(() => next() < share);
  while (open.length > 0) {
    const at = open.pop() as number;
    if (wanted.has(at)) continue;
    const record = cache.config.records[at] as CacheRecord;
    const inputs = record.inputs.map((input) =>
      next() < 0.3 ? [input[Math.floor(next() * input.length)] as CacheInput] : input,
    );
    let results = record.results;
    if (next() < 0.2 && results.length > 0) {
      const blob = fakeDigest(`${seed} remade ${at}`);
      const layer = layers.push({ blob, parent: -1 }) - 1;
      results = [{ layer, createdAt: timeAfter(1e6 + next() * 1000) }];
    }
    wanted.set(at, { ...record, inputs, results });
    for (const input of inputs) for (const { link } of input) open.push(link);
  }
  const places = new Map([...wanted.keys()].map((at, place) => [at, place]));
  const records = [...wanted.values()].map((record) => ({
    ...record,
    inputs: record.inputs.map((input) =>
      input.map(({ selector, link }) => ({
        selector,
        link: places.get(link) as number,
      })),
    ),
  }));
  return shuffle(neededOnly({ layers, records }), seed + 1);
}

/** Leaves out layers that nothing needs, and repeats of one chain. */
function neededOnly({ layers, records }: Cache["config"]): Cache {
  const kept: CacheLayer[] = [];
  const places = new Map<number, number>();
  const use = (at: number): number => {
    const known = places.get(at);
    if (known !== undefined) return known;
    const { blob, parent } = layers[at] as CacheLayer;
    const below = parent === -1 ? -1 : use(parent);
    const place = kept.push({ blob, parent: below }) - 1;
    places.set(at, place);
    return place;
  };
  const used = records.map((record) => ({
    ...record,
    results: record.results.map((result) => ({
      ...result,
      layer: use(result.layer),
    })),
    chains: record.chains.map((chain) => ({
      ...chain,
      layers: chain.layers.map(use),
    })),
  }));
  return { config: { layers: kept, records: used }, layers: [] };
}

/** A copy in another order. */
export function shuffled<T>(items: readonly T[], next: () => number): T[] {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [copy[i], copy[j]] = [copy[j] as T, copy[i] as T];
  }
  return copy;
}
