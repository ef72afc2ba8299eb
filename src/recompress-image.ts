/**
 * Images in another compression: layers become other blobs, manifests and indexes are
 * rewritten around them from the bottom up. Image configs keep their bytes, since
 * diffIDs do not change; so an inline cache stays valid.
 *
 * What is signed or attested of an image names the old digests in its own content, and
 * that content stays as it is.
 */
import type { ContentReader, ContentWriter } from "./content-store.ts";
import { copyBlobs } from "./copy.ts";
import type { TransferCounts, TransferOptions } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestOf, isDigest, parseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { parseImageConfig } from "./image-config.ts";
import { encodeImageIndex } from "./image-index.ts";
import type { ImageIndex } from "./image-index.ts";
import { encodeImageManifest } from "./image-manifest.ts";
import type { ImageManifest } from "./image-manifest.ts";
import {
  ANNOTATION_REFERENCE_DIGEST,
  CACHE_CONFIG,
  DOCKER_CONFIG,
  OCI_CONFIG,
} from "./media-types.ts";
import { describeNewBlob, isToRecompress, recompressLayers } from "./recompress-layer.ts";
import type {
  CompressionChoice,
  LayerTask,
  NewBlob,
  RecompressOptions,
} from "./recompress-layer.ts";
import { walk } from "./walk.ts";
import type { ContentNode } from "./walk.ts";

/** An image, or an index of images, after recompression. */
export interface RecompressedImage {
  /** The top document, with what its old descriptor said beside digest and size. */
  descriptor: Descriptor;
  /** The top document itself; it is left to the caller to publish. */
  bytes: Uint8Array;
  counts: TransferCounts;
  /** Layers that were made anew. */
  changed: number;
  /** Removes the temporary files; to be called once the target has published, or has failed to. */
  dispose(): Promise<void>;
}

/**
 * Recompresses the layers of an image, or of all images of an index, and writes
 * everything below the top document to the target: new layers, other blobs, documents.
 * Attestations and artifacts are copied; where they refer to an image of the same
 * index by its digest, they get the new one.
 *
 * @param descriptor A manifest or an index.
 * @throws {CacheportError} NOT_SUPPORTED for a cache, DOCUMENT_INVALID for an image
 *   whose config does not match its manifest, and what {@link recompressLayers}
 *   and {@link walk} throw
 */
export async function recompressImage(
  source: ContentReader,
  descriptor: Descriptor,
  choice: CompressionChoice,
  target: ContentWriter,
  options: RecompressOptions & TransferOptions,
): Promise<RecompressedImage> {
  const nodes = await walk(source, [descriptor], options);
  const top = nodes.at(-1);
  if (!top?.document) {
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot recompress "${descriptor.digest}": it is neither a manifest nor an index`,
    );
  }
  const tasks = await findLayers(source, nodes, choice, options);
  const { blobs, dispose } = await recompressLayers(
    source,
    [...tasks.values()],
    choice,
    target,
    options,
  );
  try {
    const rewriter = new Rewriter(nodes, choice, blobs);
    const counts = await writeRest(
      source,
      nodes.filter((node) => node.bytes),
      rewriter,
      blobs,
      target,
      options,
    );
    const { descriptor: moved, bytes } = rewriter.rewrite(top);
    const made = new Set([...blobs.values()].map(({ digest }) => digest));
    const changed = [...made].filter((digest) => !blobs.has(digest)).length;
    return { descriptor: moved, bytes, counts, changed, dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/**
 * Writes what is not a new layer: the other blobs, then the documents but for the last.
 *
 * @returns The counts, new layers included.
 */
async function writeRest(
  source: ContentReader,
  documents: readonly ContentNode[],
  rewriter: Rewriter,
  blobs: ReadonlyMap<Digest, NewBlob>,
  target: ContentWriter,
  options: TransferOptions,
): Promise<TransferCounts> {
  const made = new Map([...blobs.values()].map(({ digest, size }) => [digest, size]));
  const counts = await copyBlobs(
    source,
    documents
      .flatMap((node) => rewriter.rewrite(node).blobs)
      .filter(({ digest }) => !made.has(digest)),
    target,
    options,
  );
  for (const size of made.values()) {
    counts.copied++;
    counts.bytes += size;
  }
  for (const node of documents.slice(0, -1)) {
    const { descriptor, bytes } = rewriter.rewrite(node);
    const { signal } = options;
    const outcome = await target.put(descriptor, { bytes }, { signal });
    if (outcome !== "copied") counts.skipped++;
    else {
      counts.copied++;
      counts.bytes += bytes.length;
    }
  }
  return counts;
}

/** The layers of images that are to be recompressed, each with the diffIDs of all images that have it. */
async function findLayers(
  source: ContentReader,
  nodes: readonly ContentNode[],
  choice: CompressionChoice,
  { limits }: TransferOptions,
): Promise<Map<Digest, LayerTask>> {
  const tasks = new Map<Digest, LayerTask & { diffIds: Digest[] }>();
  for (const { children, descriptor, document } of nodes) {
    if (children.some(({ mediaType }) => mediaType === CACHE_CONFIG)) {
      throw new CacheportError(
        "NOT_SUPPORTED",
        `Cannot recompress "${descriptor.digest}" as an image: it is a build cache, whose config names its layers`,
        { hint: { do: "convert-layers" } },
      );
    }
    if (!document?.manifest) continue;
    const { config, layers } = document.manifest;
    if (!isImage(config) || !layers.some((layer) => isToRecompress(layer, choice))) continue;
    const { diffIds } = parseImageConfig(
      await source.read(config, limits.config),
      `image config "${config.digest}"`,
    );
    if (diffIds.length !== layers.length) {
      throw new CacheportError(
        "DOCUMENT_INVALID",
        `Cannot recompress image "${descriptor.digest}": it has ${layers.length} layers and its config lists ${diffIds.length} diffIDs`,
      );
    }
    layers.forEach((layer, position) => {
      if (!isToRecompress(layer, choice)) return;
      const task = tasks.get(layer.digest) ?? { layer, diffIds: [] };
      task.diffIds.push(parseDigest(diffIds[position] as string));
      tasks.set(layer.digest, task);
    });
  }
  return tasks;
}

/** Only an image's config says what layers unpack to; an artifact's layers stay as they are. */
function isImage(config: Descriptor | undefined): config is Descriptor {
  return config?.mediaType === OCI_CONFIG || config?.mediaType === DOCKER_CONFIG;
}

/** A document as it is after recompression. */
interface Rewritten {
  /** The old descriptor with the new digest and size. */
  descriptor: Descriptor;
  bytes: Uint8Array;
  /** What it lists that is no document. */
  blobs: Descriptor[];
}

/** Rewrites documents whose children have changed; the others keep their bytes. */
class Rewriter {
  readonly #nodes: ReadonlyMap<Digest, ContentNode>;
  readonly #choice: CompressionChoice;
  readonly #blobs: ReadonlyMap<Digest, NewBlob>;
  readonly #done = new Map<Digest, Rewritten>();

  constructor(
    nodes: readonly ContentNode[],
    choice: CompressionChoice,
    blobs: ReadonlyMap<Digest, NewBlob>,
  ) {
    this.#nodes = new Map(nodes.map((node) => [node.descriptor.digest, node]));
    this.#choice = choice;
    this.#blobs = blobs;
  }

  /** @param node A document. */
  rewrite(node: ContentNode): Rewritten {
    const { descriptor } = node;
    let rewritten = this.#done.get(descriptor.digest);
    if (!rewritten) {
      rewritten = this.#rewrite(node);
      this.#done.set(descriptor.digest, rewritten);
    }
    return rewritten;
  }

  #rewrite({ descriptor, bytes, document }: ContentNode): Rewritten {
    const old = { descriptor, bytes: bytes as Uint8Array };
    if (document?.index) return this.#index(old, document.index);
    if (document?.manifest) return this.#manifest(old, document.manifest);
    // An artifact manifest refers to content that does not change.
    return { ...old, blobs: [...(document?.blobs ?? [])] };
  }

  #manifest(old: Omit<Rewritten, "blobs">, manifest: ImageManifest): Rewritten {
    const { config, subject } = manifest;
    const layers = manifest.layers.map((layer) => {
      const blob = this.#blobs.get(layer.digest);
      const isMoved = blob && isImage(config) && isToRecompress(layer, this.#choice);
      return isMoved ? describeNewBlob(layer, blob) : layer;
    });
    const blobs = config ? [config, ...layers] : layers;
    const movedSubject = subject && this.#move(subject);
    const isSame =
      movedSubject === subject &&
      layers.every(({ digest }, at) => digest === manifest.layers[at]?.digest);
    if (isSame || !config) return { ...old, blobs };
    return describe(
      old.descriptor,
      encodeImageManifest({
        ...manifest,
        config,
        layers,
        subject: movedSubject,
      }),
      blobs,
    );
  }

  #index(old: Omit<Rewritten, "blobs">, index: ImageIndex): Rewritten {
    const manifests = index.manifests.map((entry) => this.#move(entry));
    const subject = index.subject && this.#move(index.subject);
    const blobs = index.manifests.filter(({ digest }) => !this.#nodes.get(digest)?.bytes);
    const isSame =
      subject === index.subject && manifests.every((entry, at) => entry === index.manifests[at]);
    if (isSame) return { ...old, blobs };
    return describe(old.descriptor, encodeImageIndex({ ...index, manifests, subject }), blobs);
  }

  /** A reference to a document, and to the image that it attests, as they are now; the same object when nothing has changed. */
  #move(entry: Descriptor): Descriptor {
    const moved = this.#newDescriptor(entry.digest);
    const attested = entry.annotations?.[ANNOTATION_REFERENCE_DIGEST];
    const image = isDigest(attested) ? this.#newDescriptor(attested) : undefined;
    if (!moved && !image) return entry;
    const { data: _data, urls: _urls, ...rest } = entry;
    return {
      ...(moved ? { ...rest, digest: moved.digest, size: moved.size } : entry),
      ...(image && {
        annotations: {
          ...entry.annotations,
          [ANNOTATION_REFERENCE_DIGEST]: image.digest,
        },
      }),
    };
  }

  /** What a document of this walk became; undefined when it is no such one or stays as it is. */
  #newDescriptor(digest: Digest): Descriptor | undefined {
    const node = this.#nodes.get(digest);
    if (!node?.bytes) return undefined;
    const { descriptor } = this.rewrite(node);
    return descriptor.digest === digest ? undefined : descriptor;
  }
}

function describe(old: Descriptor, bytes: Uint8Array, blobs: Descriptor[]): Rewritten {
  const { data: _data, urls: _urls, ...rest } = old;
  const descriptor = { ...rest, digest: digestOf(bytes), size: bytes.length };
  return { descriptor, bytes, blobs };
}
