/** Walks from an index to the manifest of one platform, and says which platforms are whole. */
import type { ContentReader } from "./content-store.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { parseDocument, usableEntries } from "./document.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import {
  ANNOTATION_REFERENCE_TYPE,
  DOCKER_CONFIG,
  isForeignLayerType,
  isIndexType,
  isManifestType,
  OCI_CONFIG,
} from "./media-types.ts";
import { formatPlatform, selectPlatform } from "./platform.ts";
import { nameType, walk } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/**
 * Finds the manifest for a platform below a descriptor. What is no index is
 * returned as it is, unless it says that it is for another platform.
 *
 * An entry of an index that names no platform is looked into: an index within the index,
 * or a manifest whose config names one. Within an index that was chosen by its platform
 * the one entry that is no attestation is meant, whatever it repeats.
 *
 * @throws {CacheportError} PLATFORM_NOT_FOUND, with the platforms that there are
 */
export async function choosePlatform(
  reader: ContentReader,
  root: Descriptor,
  wanted: Platform,
  options: WalkOptions,
): Promise<Descriptor> {
  const search = new PlatformSearch(reader, wanted, options);
  const found = await search.below(await nameType(reader, root, options), false, 0);
  if (found) return found;
  const known = [...search.seen];
  throw new CacheportError(
    "PLATFORM_NOT_FOUND",
    `Cannot find platform "${formatPlatform(wanted)}" in "${reader.location}": no manifest is for it`,
    {
      hint:
        known.length > 0
          ? `There are: ${known.join(", ")}`
          : "None of its manifests names a platform",
    },
  );
}

/** A search for one platform, which looks into each index once. */
class PlatformSearch {
  /** The platforms that were met, as text. */
  readonly seen = new Set<string>();
  readonly #visited = new Set<Digest>();

  readonly #reader: ContentReader;
  readonly #wanted: Platform;
  readonly #options: WalkOptions;

  constructor(reader: ContentReader, wanted: Platform, options: WalkOptions) {
    this.#reader = reader;
    this.#wanted = wanted;
    this.#options = options;
  }

  /** @param isChosen The descriptor, or an index above it, is for the wanted platform. */
  async below(
    descriptor: Descriptor,
    isChosen: boolean,
    depth: number,
  ): Promise<Descriptor | undefined> {
    if (!isIndexType(descriptor.mediaType)) {
      return isChosen || (await this.#fits(descriptor)) ? descriptor : undefined;
    }
    if (this.#visited.has(descriptor.digest)) return undefined;
    this.#visited.add(descriptor.digest);
    const { limits } = this.#options;
    if (depth > limits.depth) {
      throw new CacheportError(
        "INDEX_TOO_DEEP",
        `Cannot find a platform in "${this.#reader.location}": indexes are nested more than ${limits.depth} levels deep`,
      );
    }
    const children = await this.#children(descriptor);
    const [best] = selectPlatform(this.#wanted, children);
    if (best) return this.below(await nameType(this.#reader, best, this.#options), true, depth + 1);
    this.#note(...children);
    const open = children.filter((child) => !child.platform && !isAttestation(child));
    if (isChosen && open.length === 1) return this.below(open[0] as Descriptor, true, depth + 1);
    for (const child of open) {
      const found = await this.#lookInto(child, depth + 1);
      if (found) return found;
    }
    return undefined;
  }

  async #children(descriptor: Descriptor): Promise<readonly Descriptor[]> {
    const { digest, mediaType } = descriptor;
    const bytes = await this.#reader.read(descriptor, this.#options.limits.manifest);
    const what = `index "${digest}"`;
    try {
      return parseDocument(bytes, mediaType, what).children;
    } catch (error) {
      if (!isCacheportError(error, "DOCUMENT_INVALID", "DOCUMENT_UNKNOWN")) throw error;
      // One entry that cannot be used is no reason not to find another one.
      const entries = usableEntries(bytes, what);
      if (entries.length === 0) throw error;
      return entries;
    }
  }

  /** What an entry without a platform has for the wanted one; it may have nothing, or be absent. */
  async #lookInto(child: Descriptor, depth: number): Promise<Descriptor | undefined> {
    if (this.#visited.has(child.digest)) return undefined;
    try {
      const named = await nameType(this.#reader, child, this.#options);
      if (isIndexType(named.mediaType)) return await this.below(named, false, depth);
      this.#visited.add(child.digest);
      if (!isManifestType(named.mediaType)) return undefined;
      const platform = await imagePlatform(this.#reader, named, this.#options);
      return platform && this.#selects({ ...named, platform }) ? named : undefined;
    } catch (error) {
      if (isCacheportError(error, "BLOB_MISSING")) return undefined;
      throw error;
    }
  }

  /** A manifest that is named itself is taken, unless it is for another platform. */
  async #fits(descriptor: Descriptor): Promise<boolean> {
    return !descriptor.platform || this.#selects(descriptor);
  }

  #selects(descriptor: Descriptor): boolean {
    this.#note(descriptor);
    return selectPlatform(this.#wanted, [descriptor]).length > 0;
  }

  #note(...descriptors: readonly Descriptor[]): void {
    for (const descriptor of descriptors)
      if (descriptor.platform && !isAttestation(descriptor))
        this.seen.add(formatPlatform(descriptor.platform));
  }
}

/** Tells whether an entry of an index says something of another entry, and is no image itself. */
function isAttestation({ annotations, platform }: Descriptor): boolean {
  return (
    annotations?.[ANNOTATION_REFERENCE_TYPE] !== undefined ||
    (platform?.os === "unknown" && platform.architecture === "unknown")
  );
}

/** The platform that an image's config names; undefined for what is no image. */
async function imagePlatform(
  reader: ContentReader,
  manifest: Descriptor,
  { limits }: WalkOptions,
): Promise<Platform | undefined> {
  const bytes = await reader.read(manifest, limits.manifest);
  const { config } = parseDocument(bytes, manifest.mediaType, `manifest "${manifest.digest}"`);
  if (config?.mediaType !== OCI_CONFIG && config?.mediaType !== DOCKER_CONFIG) return undefined;
  const configBytes = await reader.read(config, limits.config);
  const { parseImageConfig } = await import("./image-config.ts");
  const { os, architecture, variant } = parseImageConfig(
    configBytes,
    `image config "${config.digest}"`,
  );
  return os === "" || architecture === "" ? undefined : { os, architecture, variant };
}

/**
 * Finds the platforms of an index of which everything is there, for an index that as a
 * whole is not: `docker save` of one platform keeps the index of all of them.
 *
 * @returns As text, in the order of the index; nothing for what is no index.
 */
export async function wholePlatforms(
  reader: ContentReader,
  root: Descriptor,
  options: WalkOptions,
): Promise<string[]> {
  if (!isIndexType(root.mediaType)) return [];
  const bytes = await reader.read(root, options.limits.manifest);
  const { children } = parseDocument(bytes, root.mediaType, `index "${root.digest}"`);
  const whole = new Set<string>();
  for (const child of children) {
    if (!child.platform || isAttestation(child)) continue;
    if (await isWhole(reader, child, options)) whole.add(formatPlatform(child.platform));
  }
  return [...whole];
}

async function isWhole(
  reader: ContentReader,
  root: Descriptor,
  options: WalkOptions,
): Promise<boolean> {
  try {
    for (const { descriptor, document } of await walk(reader, [root], options)) {
      if (document) continue;
      if (isForeignLayerType(descriptor.mediaType) && descriptor.urls?.length) continue;
      if ((await reader.stat(descriptor)) === undefined) return false;
    }
    return true;
  } catch (error) {
    if (isCacheportError(error) && error.code !== "INTERRUPTED") return false;
    throw error;
  }
}
