/** Walks from an index to the manifest of one platform. */
import type { ContentReader } from "./content-store.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import { parseImageIndex } from "./image-index.ts";
import { isIndexType } from "./media-types.ts";
import { formatPlatform, selectPlatform } from "./platform.ts";
import { nameType } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/**
 * Finds the manifest for a platform below a descriptor. What is no index is
 * returned as it is, unless it says that it is for another platform.
 *
 * @throws {CacheportError} PLATFORM_NOT_FOUND, with the platforms that there are
 */
export async function choosePlatform(
  reader: ContentReader,
  root: Descriptor,
  wanted: Platform,
  options: WalkOptions,
): Promise<Descriptor> {
  let descriptor = await nameType(reader, root, options);
  for (let depth = 0; depth <= options.limits.depth; depth++) {
    if (!isIndexType(descriptor.mediaType)) return checked(reader, descriptor, wanted);
    const bytes = await reader.read(descriptor, options.limits.manifest);
    const { manifests } = parseImageIndex(bytes, `index "${descriptor.digest}"`);
    const [best] = selectPlatform(wanted, manifests);
    const nested = manifests.find((child) => isIndexType(child.mediaType) && !child.platform);
    const next = best ?? nested;
    if (!next) throw notFound(reader, wanted, manifests);
    descriptor = next;
  }
  throw new CacheportError(
    "INDEX_TOO_DEEP",
    `Cannot find a platform in "${reader.location}": indexes are nested more than ${options.limits.depth} levels deep`,
  );
}

function checked(reader: ContentReader, descriptor: Descriptor, wanted: Platform): Descriptor {
  if (!descriptor.platform || selectPlatform(wanted, [descriptor]).length > 0) return descriptor;
  throw notFound(reader, wanted, [descriptor]);
}

function notFound(
  reader: ContentReader,
  wanted: Platform,
  manifests: readonly Descriptor[],
): CacheportError {
  const known = manifests.flatMap(({ platform }) => (platform ? [formatPlatform(platform)] : []));
  return new CacheportError(
    "PLATFORM_NOT_FOUND",
    `Cannot find platform "${formatPlatform(wanted)}" in "${reader.location}": no manifest is for it`,
    {
      hint:
        known.length > 0
          ? `There are: ${[...new Set(known)].join(", ")}`
          : "None of its manifests names a platform",
    },
  );
}
