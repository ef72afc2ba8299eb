/**
 * A cache as its records are looked up: by digest, with the chains of base images
 * that name themselves.
 *
 * Source: BuildKit source/containerimage (the chain id as cache key),
 * solver/cachekey.go; OCI image-spec, config.md ("Layer ChainID").
 */
import type { CacheConfig } from "./cache-types.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestOf } from "./digest.ts";
import { recordDigest, sourceDigest } from "./explain-digest.ts";
import { ANNOTATION_UNCOMPRESSED } from "./media-types.ts";

/** What a view of a cache is made from. */
export interface RecordSource {
  config: CacheConfig;
  /** The blobs that the manifest lists. */
  layers: readonly Descriptor[];
}

/** A base image's chain of layers that a record is the key of. */
export interface NamedChain {
  chainId: string;
  /** Position of the top layer in the cache's layers. */
  layer: number;
  /** How many layers it has. */
  length: number;
}

/** A cache whose records can be looked up. */
export class RecordView {
  readonly config: CacheConfig;
  readonly layers: readonly Descriptor[];
  /** Uncompressed digests by the blob's. */
  readonly diffIds: ReadonlyMap<string, string>;
  readonly #byDigest: Map<string, number[]>;
  readonly #listed: ReadonlySet<string>;
  #chains: Map<number, NamedChain> | undefined;

  constructor({ config, layers }: RecordSource) {
    this.config = config;
    this.layers = layers;
    this.#listed = new Set(layers.map(({ digest }) => digest));
    this.diffIds = diffIdsOf(config, layers);
    this.#byDigest = new Map();
    config.records.forEach(({ digest }, at) => {
      const same = this.#byDigest.get(digest);
      if (same) same.push(at);
      else this.#byDigest.set(digest, [at]);
    });
  }

  /** The records of a digest. */
  find(digest: string): readonly number[] {
    return this.#byDigest.get(digest) ?? [];
  }

  /** The records of an output of a step that may be known by several digests. */
  findOutput(opDigests: readonly string[], output: number): number[] {
    return opDigests.flatMap((digest) => [...this.find(recordDigest(digest, output))]);
  }

  /** The record of a content key. */
  findContent(digest: string): readonly number[] {
    return this.find(recordDigest(digest, -1));
  }

  /** Tells whether a record is a root: an image, a git or http source, or the content of files. */
  isRoot(at: number): boolean {
    const record = this.config.records[at];
    return record !== undefined && record.inputs.length === 0;
  }

  /** Top layers of a record's results whose blobs the manifest lists, all of those below them too. */
  results(at: number): number[] {
    const record = this.config.records[at];
    if (!record) return [];
    return [
      ...record.results.map(({ layer }) => layer).filter((layer) => this.#isWhole(layer)),
      ...record.chains
        .filter(({ layers }) => layers.length > 0 && layers.every((layer) => this.#isListed(layer)))
        .map(({ layers }) => layers.at(-1) as number),
    ];
  }

  /** The layers of a chain from the bottom up; undefined where it leads nowhere. */
  chain(top: number): number[] | undefined {
    const chain: number[] = [];
    for (let at = top; at >= 0; at = this.config.layers[at]?.parent ?? -1) {
      if (!this.config.layers[at] || chain.length > this.config.layers.length) return undefined;
      chain.push(at);
    }
    return chain.reverse();
  }

  /** Tells whether the manifest lists a blob: without that its layer is not there for BuildKit. */
  lists(blob: string): boolean {
    return this.#listed.has(blob);
  }

  #isListed(layer: number): boolean {
    const blob = this.config.layers[layer]?.blob;
    return blob !== undefined && this.#listed.has(blob);
  }

  #isWhole(top: number): boolean {
    const known = this.#whole.get(top);
    if (known !== undefined) return known;
    const path: number[] = [];
    let answer = true;
    for (let at = top; at >= 0; at = this.config.layers[at]?.parent ?? -1) {
      const below = this.#whole.get(at);
      if (below !== undefined) {
        answer = below;
        break;
      }
      if (!this.#isListed(at) || path.length > this.config.layers.length) {
        answer = false;
        break;
      }
      path.push(at);
    }
    for (const at of path) this.#whole.set(at, answer);
    this.#whole.set(top, answer);
    return answer;
  }

  readonly #whole = new Map<number, boolean>();

  /** Records that are the chain of a base image, by their position. They name themselves. */
  chains(): ReadonlyMap<number, NamedChain> {
    this.#chains ??= this.#findChains();
    return this.#chains;
  }

  #findChains(): Map<number, NamedChain> {
    const { layers } = this.config;
    const chainIds = new Map<number, { id: string; length: number } | undefined>();
    const found = new Map<number, NamedChain>();
    for (let top = 0; top < layers.length; top++) {
      const path: number[] = [];
      let at = top;
      while (at >= 0 && !chainIds.has(at) && path.length <= layers.length) {
        path.push(at);
        at = layers[at]?.parent ?? -1;
      }
      let below = at >= 0 ? chainIds.get(at) : undefined;
      let isSound = at < 0 || below !== undefined;
      for (const layer of path.toReversed()) {
        const diffId = this.diffIds.get(layers[layer]?.blob ?? "");
        isSound &&= diffId !== undefined;
        if (isSound && diffId !== undefined)
          below = { id: chainId(below?.id, diffId), length: (below?.length ?? 0) + 1 };
        else below = undefined;
        chainIds.set(layer, below);
      }
    }
    for (const [layer, chain] of chainIds) {
      if (!chain) continue;
      for (const record of this.find(recordDigest(sourceDigest(chain.id), 0)))
        if (!found.has(record))
          found.set(record, { chainId: chain.id, layer, length: chain.length });
    }
    return found;
  }
}

function diffIdsOf(config: CacheConfig, layers: readonly Descriptor[]): Map<string, string> {
  const diffIds = new Map<string, string>();
  for (const { blob, annotations } of config.layers)
    if (annotations?.diffID) diffIds.set(blob, annotations.diffID);
  for (const { digest, annotations } of layers) {
    const diffId = annotations?.[ANNOTATION_UNCOMPRESSED];
    if (diffId) diffIds.set(digest, diffId);
  }
  return diffIds;
}

/** The chain id of a layer on top of a chain. */
export function chainId(below: string | undefined, diffId: string): string {
  return below === undefined ? diffId : digestOf(`${below} ${diffId}`);
}

/** The chain id of layers, bottom first; undefined for none. */
export function chainIdOf(diffIds: readonly string[]): string | undefined {
  return diffIds.reduce<string | undefined>((below, diffId) => chainId(below, diffId), undefined);
}
