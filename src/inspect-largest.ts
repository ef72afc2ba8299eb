/**
 * What is in the layers of a cache or an image, for a page that shows it: what fills them,
 * not every entry, within limits that no layer can exceed.
 */
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { isCacheportError } from "./errors.ts";
import { ContentsCount } from "./inspect-contents.ts";
import type { LayerContents } from "./inspect-contents.ts";
import { listLayer } from "./inspect-layer.ts";
import type { LayerFile } from "./inspect-layer.ts";

/** How much is read and told. */
export interface LargestLimits {
  /** Bytes as stored that one layer may have. */
  layer: number;
  /** Bytes as stored that all layers that are read may have together. */
  total: number;
  /** Bytes unpacked after which a layer is read no further. */
  unpacked: number;
  /** Entries after which a layer is read no further. */
  entries: number;
  /** Files of a layer that are listed. */
  listed: number;
}

/** Some seconds of reading, and a page of at most a few megabytes. */
export const LARGEST_LIMITS: LargestLimits = {
  layer: 64_000_000,
  total: 256_000_000,
  unpacked: 1_000_000_000,
  entries: 200_000,
  listed: 60,
};

/** Characters of a path that are shown. */
const PATH_LENGTH = 400;
/** Layers that are listed at most. */
const LAYERS = 500;

/** What is in a layer. */
export interface LargestFiles {
  /** What stands for the layer, and how many entries were read that are no folders. */
  contents: LayerContents | undefined;
  /** Bytes of the files among them. */
  bytes: number;
  /** The layer was read to its end. */
  isWhole: boolean;
  /** What weighs most, and whiteouts, the largest first. */
  largest: Pick<LayerFile, "path" | "size" | "type">[];
}

/**
 * Reads layers, small ones first, for as long as the limits last. A layer that cannot be
 * read, is no tar or is damaged has no contents here: `verify` tells of it.
 *
 * @returns Contents by digest.
 * @throws {CacheportError} INTERRUPTED
 */
export async function readLargest(
  reader: ContentReader,
  layers: readonly Descriptor[],
  limits: LargestLimits = LARGEST_LIMITS,
  signal?: AbortSignal,
): Promise<Map<string, LargestFiles>> {
  const distinct = [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
  const found = new Map<string, LargestFiles>();
  let left = limits.total;
  for (const layer of distinct.toSorted((a, b) => a.size - b.size).slice(0, LAYERS)) {
    if (layer.size > limits.layer || layer.size > left) break;
    left -= layer.size;
    try {
      found.set(layer.digest, await readLayer(reader, layer, limits, signal));
    } catch (error) {
      if (!isCacheportError(error) || error.code === "INTERRUPTED") throw error;
    }
  }
  return found;
}

async function readLayer(
  reader: ContentReader,
  layer: Descriptor,
  limits: LargestLimits,
  signal: AbortSignal | undefined,
): Promise<LargestFiles> {
  const found: LargestFiles = { contents: undefined, bytes: 0, isWhole: true, largest: [] };
  const count = new ContentsCount();
  let read = 0;
  for await (const file of listLayer(reader, layer, { signal })) {
    const { path, size, type } = file;
    count.add(file);
    found.bytes += size;
    if (type !== "directory") found.largest.push({ path: path.slice(0, PATH_LENGTH), size, type });
    // Memory stays bounded while a layer of very many files is read.
    if (found.largest.length >= 4 * limits.listed) keepLargest(found, limits.listed);
    // A size stands before the content: what is too much is never unpacked.
    if (found.bytes > limits.unpacked || ++read >= limits.entries) {
      found.isWhole = false;
      break;
    }
  }
  found.contents = count.result();
  keepLargest(found, limits.listed);
  return found;
}

function keepLargest(found: LargestFiles, count: number): void {
  // Without a locale: the same layer gives the same page everywhere.
  found.largest.sort((a, b) => b.size - a.size || (a.path < b.path ? -1 : 1));
  found.largest.length = Math.min(count, found.largest.length);
}
