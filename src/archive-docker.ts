/**
 * The manifest.json of `type=docker` archives, from which `docker load` takes an
 * image.
 *
 * Source: containerd core/images/archive/exporter.go (dockerManifest); BuildKit
 * exporter/oci/export.go for what it refuses.
 */
import type { Descriptor } from "./descriptor.ts";
import { blobPath } from "./digest.ts";
import { detectDocumentType } from "./document.ts";
import { CacheportError } from "./errors.ts";
import { encodeGoJson } from "./go-json.ts";
import { parseImageManifest } from "./image-manifest.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { DOCKER_CONFIG, isManifestType, OCI_CONFIG } from "./media-types.ts";
import { canonicalName, familiarReference, isTag, normalizeReference } from "./reference.ts";

const IMAGE_CONFIGS = new Set([OCI_CONFIG, DOCKER_CONFIG]);

/**
 * Makes the manifest.json of an archive that holds one image, under any number of
 * names.
 *
 * @param index The archive's index.json.
 * @param read Reads a manifest.
 * @param location The archive as the user wrote it, for messages.
 * @throws {CacheportError} NOT_SUPPORTED for several images, an index and a cache
 */
export async function makeDockerManifest(
  index: LayoutIndex,
  read: (descriptor: Descriptor) => Promise<Uint8Array>,
  location: string,
): Promise<Uint8Array> {
  const descriptors = index.entries.map((entry) => entry.descriptor);
  const [descriptor, ...others] = new Map(
    descriptors.map((entry) => [entry.digest, entry]),
  ).values();
  if (!descriptor || others.length > 0)
    throw refused(
      location,
      `it would hold ${others.length + 1} images, not one`,
      "Write each image to a file of its own, or all to a type=oci archive",
    );

  const what = `manifest "${descriptor.digest}"`;
  const bytes = await read(descriptor);
  if (!isManifestType(detectDocumentType(bytes, what))) {
    throw refused(location, "docker exporter does not currently support exporting manifest lists");
  }
  const { config, layers } = parseImageManifest(bytes, what);
  if (!config || !IMAGE_CONFIGS.has(config.mediaType))
    throw refused(location, `${descriptor.digest} is no image`);
  const names = index.entries.flatMap(({ imageName, refName }) => {
    const name = imageName ?? refName;
    // A bare tag names no repository.
    if (name === undefined || isTag(name)) return [];
    if (canonicalName(name) === undefined) return [];
    const reference = normalizeReference(name);
    return reference.tag === null ? [] : [familiarReference(reference)];
  });
  return encodeGoJson([
    {
      Config: blobPath(config.digest),
      RepoTags: names.length > 0 ? [...new Set(names)] : null,
      Layers: layers.map((layer) => blobPath(layer.digest)),
    },
  ]);
}

function refused(
  location: string,
  reason: string,
  hint = "Write a type=oci archive, which holds anything",
): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot write "${location}" for docker load: ${reason}`,
    { hint },
  );
}
