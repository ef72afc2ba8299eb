/**
 * What `mode=max` costs: a cache of an image's build beside the image itself. With
 * `mode=min` BuildKit exports the layers of the image alone, so what the cache has beyond
 * them is what `mode=max` adds. And how an image runs, for a page that shows it.
 */
import * as v from "valibot";
import type { ContentReader } from "./content-store.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { checkSchema, goStruct, optional, stringMap } from "./documents.ts";
import { isCacheportError } from "./errors.ts";
import { parseJson } from "./go-json.ts";
import { parseImageConfig } from "./image-config.ts";
import { ANNOTATION_UNCOMPRESSED } from "./media-types.ts";
import { walk } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/** The layers of an image, or of the images of an index. */
export interface ImageLayers {
  /** As they are stored there. */
  blobs: ReadonlySet<Digest>;
  /** What they unpack to. */
  diffIds: ReadonlySet<Digest>;
}

/** Bytes of a cache's layers, each counted once. */
export interface ModeCost {
  /** Layers that are the image's too: what `mode=min` exports. */
  min: { layers: number; bytes: number };
  /** The others: what `mode=max` adds. */
  added: { layers: number; bytes: number };
}

/**
 * Compares a cache with an image. A layer is the same when its blob is, or when it unpacks
 * to the same: an image may be compressed in another way.
 *
 * @param layers Of the cache.
 */
export function modeCost(layers: readonly Descriptor[], image: ImageLayers): ModeCost {
  const distinct = [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
  const isOfImage = ({ digest, annotations }: Descriptor): boolean =>
    image.blobs.has(digest) ||
    image.diffIds.has((annotations?.[ANNOTATION_UNCOMPRESSED] ?? "") as Digest);
  const [min, added] = [distinct.filter(isOfImage), distinct.filter((each) => !isOfImage(each))];
  return {
    min: { layers: min.length, bytes: totalSize(min) },
    added: { layers: added.length, bytes: totalSize(added) },
  };
}

/**
 * Reads which layers an image has; of an index those of all its images.
 *
 * @throws {CacheportError} whatever {@link walk} throws
 */
export async function readImageLayers(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions,
): Promise<ImageLayers> {
  const blobs = new Set<Digest>();
  const diffIds = new Set<Digest>();
  for (const { document } of await walk(reader, [descriptor], options)) {
    if (!document || document.isIndex) continue;
    for (const { digest } of document.layers) blobs.add(digest);
    if (!document.config?.mediaType.endsWith("+json")) continue;
    try {
      const bytes = await reader.read(document.config, options.limits.config);
      const what = `image config "${document.config.digest}"`;
      for (const diffId of parseImageConfig(bytes, what).diffIds) diffIds.add(diffId as Digest);
    } catch (error) {
      // An attestation has no diffIDs that could be read.
      if (!isCacheportError(error, "DOCUMENT_INVALID")) throw error;
    }
  }
  return { blobs, diffIds };
}

/** One setting of an image's config, with its values. */
export type ImageSetting = [label: string, values: string[]];

const texts = v.nullish(v.array(v.string()), []);
const names = v.pipe(
  v.nullish(v.record(v.string(), v.unknown()), {}),
  v.transform((found) => Object.keys(found).sort()),
);
const SettingsSchema = goStruct({
  author: optional(v.string()),
  config: optional(
    goStruct({
      User: optional(v.string()),
      WorkingDir: optional(v.string()),
      Entrypoint: texts,
      Cmd: texts,
      Env: texts,
      ExposedPorts: names,
      Volumes: names,
      StopSignal: optional(v.string()),
      Labels: v.pipe(
        v.nullish(stringMap, {}),
        v.transform((labels) => Object.entries(labels).map(([key, value]) => `${key}=${value}`)),
      ),
    }),
  ),
});

/**
 * How containers of an image run: what its config has under `config`, without what is empty.
 *
 * Source: OCI image-spec, config.md ("Properties").
 *
 * @throws {CacheportError} BLOB_MISSING, DOCUMENT_INVALID
 */
export async function readImageSettings(
  reader: ContentReader,
  config: Descriptor,
  { limits }: WalkOptions,
): Promise<ImageSetting[]> {
  const what = `image config "${config.digest}"`;
  const bytes = await reader.read(config, limits.config);
  const { author, config: run } = checkSchema(SettingsSchema, parseJson(bytes, what), what);
  const command = (words: readonly string[] = []): string[] =>
    words.length === 0 ? [] : [JSON.stringify(words)];
  const one = (text: string | undefined): string[] => (text ? [text] : []);
  const all: ImageSetting[] = [
    ["Entrypoint", command(run?.Entrypoint)],
    ["Command", command(run?.Cmd)],
    ["Folder", one(run?.WorkingDir)],
    ["User", one(run?.User)],
    ["Ports", run?.ExposedPorts ?? []],
    ["Volumes", run?.Volumes ?? []],
    ["Stop signal", one(run?.StopSignal)],
    ["Environment", run?.Env ?? []],
    ["Labels", run?.Labels ?? []],
    ["Author", one(author)],
  ];
  return all.filter(([, values]) => values.length > 0);
}
