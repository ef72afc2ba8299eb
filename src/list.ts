/** Lists what a store holds by name: what each entry is, how big, for which platform. */
import { mapLimit } from "./concurrency.ts";
import type { ContentReader, NamedEntry } from "./content-store.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { parseDocument } from "./document.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { DOCKER_CONFIG, isDocumentType, isManifestType, OCI_CONFIG } from "./media-types.ts";
import { nameType } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/** What an entry is: a build cache, an image, an index of manifests, or anything else. */
export type EntryKind = "cache" | "image" | "index" | "artifact";

/** One line of a listing. */
export interface ListedEntry {
  digest: Digest;
  mediaType: string;
  /** Bytes of the entry's own document. */
  size: number;
  /** Null when the document cannot be read; `problem` says why. */
  kind: EntryKind | null;
  refName: string | null;
  imageName: string | null;
  platform: Platform | null;
  /** Bytes of the distinct blobs that the document lists itself; null for an index of manifests. */
  contentSize: number | null;
  /** Why the entry cannot be used, null when it can. */
  problem: string | null;
}

/** How to list. */
export interface ListOptions extends WalkOptions {
  /** Gets what was seen that entries reach: themselves and what their documents list. */
  seen?: Set<Digest> | undefined;
}

/**
 * Describes entries, several at a time. An entry that cannot be read is listed with
 * its problem.
 */
export async function listEntries(
  reader: ContentReader,
  entries: readonly NamedEntry[],
  options: ListOptions,
): Promise<ListedEntry[]> {
  // Many names of one thing are the rule: it is read once.
  const described = new Map<string, Promise<Description>>();
  const describeOnce = (descriptor: Descriptor): Promise<Description> => {
    const { mediaType, digest, size, platform } = descriptor;
    const key = JSON.stringify([mediaType, digest, size, platform]);
    const known = described.get(key) ?? describe(reader, descriptor, options);
    described.set(key, known);
    return known;
  };
  return mapLimit(entries, options.jobs ?? 4, async (entry) => {
    const common = {
      digest: entry.descriptor.digest,
      mediaType: entry.descriptor.mediaType,
      size: entry.descriptor.size,
      refName: entry.refName ?? null,
      imageName: entry.imageName ?? null,
    };
    if (entry.problem !== undefined) return { ...common, ...NOTHING, problem: entry.problem };
    try {
      const { mediaType, ...rest } = await describeOnce(entry.descriptor);
      return { ...common, mediaType, ...rest, problem: null };
    } catch (error) {
      if (!isCacheportError(error) || error.code === "INTERRUPTED") throw error;
      const platform = entry.descriptor.platform ?? null;
      return { ...common, ...NOTHING, platform, problem: error.message };
    }
  });
}

/** What is known of an entry that cannot be used. */
const NOTHING = { kind: null, platform: null, contentSize: null };

type Description = Pick<ListedEntry, "kind" | "platform" | "contentSize" | "mediaType">;

async function describe(
  reader: ContentReader,
  entry: Descriptor,
  options: ListOptions,
): Promise<Description> {
  options.seen?.add(entry.digest);
  const descriptor = await nameType(reader, entry, options);
  const { mediaType } = descriptor;
  const platform = descriptor.platform ?? null;
  if (!isDocumentType(mediaType)) {
    if ((await reader.stat(descriptor)) === undefined) throw missing(reader, descriptor);
    return {
      kind: "artifact",
      platform,
      contentSize: descriptor.size,
      mediaType,
    };
  }
  const bytes = await reader.read(descriptor, options.limits.manifest);
  const what = `manifest "${descriptor.digest}"`;
  const { cache, children, config, isIndex } = parseDocument(bytes, mediaType, what);
  for (const { digest } of children) options.seen?.add(digest);
  if (cache) {
    const contentSize = totalSize([...cache.layers, cache.config]);
    return { kind: "cache", platform, contentSize, mediaType };
  }
  if (isIndex) {
    const kind = await childKind(reader, children, options);
    return { kind, platform, contentSize: null, mediaType };
  }
  const contentSize = totalSize(children);
  if (config?.mediaType !== OCI_CONFIG && config?.mediaType !== DOCKER_CONFIG) {
    return { kind: "artifact", platform, contentSize, mediaType };
  }
  return {
    kind: "image",
    platform: platform ?? (await imagePlatform(reader, config, options)),
    contentSize,
    mediaType,
  };
}

/** An index whose first manifest is a cache is a cache of several platforms. */
async function childKind(
  reader: ContentReader,
  manifests: readonly Descriptor[],
  options: WalkOptions,
): Promise<EntryKind> {
  const child = manifests.find(({ mediaType }) => isManifestType(mediaType));
  if (!child || (await reader.stat(child)) === undefined) return "index";
  const bytes = await reader.read(child, options.limits.manifest);
  const { cache } = parseDocument(bytes, child.mediaType, `manifest "${child.digest}"`);
  return cache ? "cache" : "index";
}

async function imagePlatform(
  reader: ContentReader,
  config: Descriptor,
  { limits }: WalkOptions,
): Promise<Platform | null> {
  const bytes = await reader.read(config, limits.config);
  const { parseImageConfig } = await import("./image-config.ts");
  const { architecture, os, variant } = parseImageConfig(bytes, `image config "${config.digest}"`);
  return architecture === "" && os === "" ? null : { architecture, os, variant };
}

function missing(reader: ContentReader, { digest }: Descriptor): CacheportError {
  return new CacheportError(
    "BLOB_MISSING",
    `Cannot read blob "${digest}": it is not in "${reader.location}"`,
  );
}
