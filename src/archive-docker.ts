/**
 * The manifest.json of `type=docker` archives, from which `docker load`, skopeo
 * (docker-archive:) and crane take images.
 *
 * Source: containerd core/images/archive/exporter.go (dockerManifest); BuildKit
 * exporter/oci/export.go for what it refuses.
 */
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { blobPath } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { detectDocumentType } from "./document.ts";
import type { Remedy } from "./errors.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { encodeGoJson, isJsonObject, parseJson } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import { parseImageIndex } from "./image-index.ts";
import { parseImageManifest } from "./image-manifest.ts";
import type { IndexEntry, LayoutIndex } from "./layout-index.ts";
import {
  ANNOTATION_REFERENCE_TYPE,
  DOCKER_CONFIG,
  isDocumentType,
  isIndexType,
  OCI_CONFIG,
} from "./media-types.ts";
import { canonicalName, familiarReference, isTag, normalizeReference } from "./reference.ts";

const IMAGE_CONFIGS = new Set([OCI_CONFIG, DOCKER_CONFIG]);

/** Levels of indexes within indexes; one around an attested image is usual. */
const MAX_DEPTH = 4;

/** How to make a manifest.json. */
export interface DockerManifestOptions {
  /** Bytes of a manifest or an index that are read at most. */
  limit: number;
  /** Tells whether the archive is to hold a blob. */
  holds: (digest: Digest) => boolean;
  /** The manifest.json that was there: what it says of an image beside its names stays. */
  old?: Uint8Array | undefined;
  /** What must be listed; all else is left out where docker load could not take it. */
  required?: ReadonlySet<Digest> | undefined;
  /** The archive as the user wrote it, for messages. */
  location: string;
}

/** One image of a manifest.json. */
interface Item {
  Config: string;
  Layers: string[];
}

/**
 * Makes the manifest.json of an archive: every image that its index.json lists, under all
 * its names. Of an index with several images it is the one that was there before, else the
 * first whose manifest the archive has.
 *
 * @param index The archive's index.json.
 * @param reader Reads what the archive is to hold.
 * @returns Undefined when there is no image.
 * @throws {CacheportError} NOT_SUPPORTED when something that is required is no image, or
 *   several
 */
export async function makeDockerManifest(
  index: LayoutIndex,
  reader: ContentReader,
  options: DockerManifestOptions,
): Promise<Uint8Array | undefined> {
  const old = new Map(readItems(options.old).map((item) => [item["Config"], item]));
  const images = new Map<string, { item: JsonObject; names: Set<string> }>();
  for (const entry of index.entries) {
    const { descriptor } = entry;
    const found = await findImage(descriptor, reader, old, options);
    if (!found) continue;
    const before = old.get(found.Config);
    const isSame = JSON.stringify(before?.["Layers"]) === JSON.stringify(found.Layers);
    const key = JSON.stringify(found);
    const image = images.get(key) ?? {
      item:
        isSame && before ? before : { Config: found.Config, RepoTags: null, Layers: found.Layers },
      names: new Set(),
    };
    for (const name of repoTags(entry)) image.names.add(name);
    images.set(key, image);
  }
  if (images.size === 0) return undefined;
  return encodeGoJson(
    [...images.values()].map(({ item, names }) => ({
      ...item,
      RepoTags: names.size > 0 ? [...names] : null,
    })),
  );
}

/** Tells whether bytes are a manifest.json of images, and no other file of that name. */
export function isDockerManifest(bytes: Uint8Array): boolean {
  return readItems(bytes).length > 0;
}

function readItems(bytes: Uint8Array | undefined): JsonObject[] {
  if (!bytes) return [];
  try {
    const value = parseJson(bytes, "manifest.json");
    const isImage = (item: unknown): item is JsonObject =>
      isJsonObject(item) && typeof item["Config"] === "string" && Array.isArray(item["Layers"]);
    return Array.isArray(value) && value.every(isImage) ? value : [];
  } catch (error) {
    if (isCacheportError(error)) return [];
    throw error;
  }
}

/** The image that an entry stands for; undefined where it is something else that need not be listed. */
async function findImage(
  descriptor: Descriptor,
  reader: ContentReader,
  old: ReadonlyMap<unknown, JsonObject>,
  options: DockerManifestOptions,
): Promise<Item | undefined> {
  const { required, location } = options;
  const isRequired = required?.has(descriptor.digest) ?? false;
  const found: Found = { items: [], isIndex: false };
  try {
    await collectImages(descriptor, reader, options, found, MAX_DEPTH);
  } catch (error) {
    // What stood in the archive before and cannot be read is for verify to find.
    if (isRequired || !isCacheportError(error)) throw error;
  }
  const { items, isIndex } = found;
  if (isRequired && isIndex && items.length !== 1)
    throw refused(location, "docker exporter does not currently support exporting manifest lists", {
      do: "choose-image",
    });
  if (isRequired && items.length === 0) throw refused(location, `${descriptor.digest} is no image`);
  return items.find(({ Config }) => old.has(Config)) ?? items[0];
}

/** What was found below an entry. */
interface Found {
  items: Item[];
  isIndex: boolean;
}

/** Adds the images that a descriptor reaches through indexes; what attests one is none. */
async function collectImages(
  descriptor: Descriptor,
  reader: ContentReader,
  options: DockerManifestOptions,
  found: Found,
  depth: number,
): Promise<void> {
  const { limit, holds } = options;
  if (!holds(descriptor.digest) || descriptor.size > limit) return;
  const bytes = await reader.read(descriptor, limit);
  const what = `manifest "${descriptor.digest}"`;
  if (!isIndexType(detectDocumentType(bytes, what))) {
    const item = imageItem(bytes, what, holds);
    if (item) found.items.push(item);
    return;
  }
  found.isIndex = true;
  for (const child of parseImageIndex(bytes, what).manifests)
    if (
      isDocumentType(child.mediaType) &&
      !child.annotations?.[ANNOTATION_REFERENCE_TYPE] &&
      depth > 0
    )
      await collectImages(child, reader, options, found, depth - 1);
}

/** An image whose content is all there: docker load gives up at the first that is not. */
function imageItem(
  bytes: Uint8Array,
  what: string,
  holds: (digest: Digest) => boolean,
): Item | undefined {
  const { config, layers } = parseImageManifest(bytes, what);
  if (!config || !IMAGE_CONFIGS.has(config.mediaType)) return undefined;
  if (![config, ...layers].every(({ digest, urls }) => urls?.length || holds(digest)))
    return undefined;
  return {
    Config: blobPath(config.digest),
    Layers: layers.map((layer) => blobPath(layer.digest)),
  };
}

/** The names of an entry as docker writes them. */
function repoTags({ imageName, refName }: IndexEntry): string[] {
  const name = imageName ?? refName;
  // A bare tag names no repository.
  if (name === undefined || isTag(name) || canonicalName(name) === undefined) return [];
  const reference = normalizeReference(name);
  return reference.tag === null ? [] : [familiarReference(reference)];
}

function refused(
  location: string,
  reason: string,
  hint: string | Remedy = "Write a type=oci archive, which holds anything",
): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot write "${location}" for docker load: ${reason}`,
    { hint },
  );
}
