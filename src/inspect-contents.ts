/** `inspect --contents`: what is in each layer, in a few words: `usr/lib/python3, 412 files`. */
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { isCacheportError } from "./errors.ts";
import type { InspectedCache } from "./inspect.ts";
import { listLayer } from "./inspect-layer.ts";
import type { LayerFile } from "./inspect-layer.ts";

/** What a layer holds. */
export interface LayerContents {
  /** The folder that nearly all of it is in, `.` for the root; of a single file its path. */
  path: string;
  /** Everything but folders. */
  files: number;
}

/** Layers that are read, the largest first. */
const MAX_LAYERS = 40;
/** Bytes of a layer that is read, and of all of them, as they are stored. */
const MAX_LAYER = 256 * 1024 * 1024;
const MAX_TOTAL = 1024 * 1024 * 1024;
/** Folders that are counted; the deepest levels of larger layers are left out. */
const MAX_FOLDERS = 50_000;
/** How much of the files has to be in a folder that stands for a layer. */
const SHARE = 0.8;

/** Reads the layers of a cache and says what is in them; those that cannot be read are left out. */
export async function addContents(
  reader: ContentReader,
  found: InspectedCache,
  signal?: AbortSignal,
): Promise<InspectedCache> {
  const layers = new Map<string, Descriptor>();
  for (const { digest, size, mediaType } of found.layers)
    if (size !== null && size <= MAX_LAYER)
      layers.set(digest, { digest, size, mediaType: mediaType ?? "" });
  const wanted = [...layers.values()].toSorted((a, b) => b.size - a.size).slice(0, MAX_LAYERS);
  const contents = new Map<string, LayerContents>();
  let total = 0;
  for (const layer of wanted) {
    if (total + layer.size > MAX_TOTAL) continue;
    total += layer.size;
    try {
      const read = await layerContents(reader, layer, signal);
      if (read) contents.set(layer.digest, read);
    } catch (error) {
      if (isCacheportError(error, "INTERRUPTED") || !isCacheportError(error)) throw error;
    }
  }
  return {
    ...found,
    layers: found.layers.map((layer) => {
      const own = contents.get(layer.digest);
      return own ? { ...layer, contents: own } : layer;
    }),
  };
}

/** What a layer holds; undefined for an empty one. */
export async function layerContents(
  reader: ContentReader,
  layer: Descriptor,
  signal?: AbortSignal,
): Promise<LayerContents | undefined> {
  const count = new ContentsCount();
  for await (const file of listLayer(reader, layer, { signal })) count.add(file);
  return count.result();
}

/** Finds what stands for a layer while its entries pass. */
export class ContentsCount {
  readonly #folders = new Map<string, number>();
  #files = 0;
  #only = "";

  add({ path, type }: Pick<LayerFile, "path" | "type">): void {
    if (type === "directory") return;
    this.#files++;
    this.#only = path;
    const parts = path.split("/");
    for (let depth = 1; depth < parts.length; depth++) {
      const folder = parts.slice(0, depth).join("/");
      const known = this.#folders.get(folder);
      if (known === undefined && this.#folders.size >= MAX_FOLDERS) break;
      this.#folders.set(folder, (known ?? 0) + 1);
    }
  }

  /** What the entries so far come to; undefined for none but folders. */
  result(): LayerContents | undefined {
    const files = this.#files;
    if (files === 0) return undefined;
    if (files === 1) return { path: this.#only, files };
    let best = ".";
    for (const [folder, count] of this.#folders)
      if (count >= files * SHARE && (best === "." || folder.length > best.length)) best = folder;
    return { path: best, files };
  }
}

/** The words for a table. */
export function contentsText({ path, files }: LayerContents): string {
  if (files === 1) return path;
  return path === "." ? `${files} files` : `${path}, ${files} files`;
}
