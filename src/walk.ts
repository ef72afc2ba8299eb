/**
 * The walk over all content that a descriptor reaches: indexes, manifests, configs
 * and layers, caches in every shape included.
 */
import { mapLimit } from "./concurrency.ts";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { detectDocumentType } from "./document.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { parseImageIndex } from "./image-index.ts";
import { parseImageManifest } from "./image-manifest.ts";
import { isDocumentType, isIndexType } from "./media-types.ts";

/** One piece of content that a walk met. */
export interface ContentNode {
  /** The descriptor by which it was met first. */
  descriptor: Descriptor;
  /** What the document is by its own structure; undefined for a blob. */
  documentType: string | undefined;
  /** The document itself; undefined for a blob. */
  bytes: Uint8Array | undefined;
  /** What the document lists, in its order, repeated ones too: manifests, or config and layers. */
  children: Descriptor[];
  /** The manifest that the document refers to; it is no child. */
  subject: Descriptor | undefined;
}

/** How to walk. */
export interface WalkOptions {
  limits: DocumentLimits;
  /** Documents that are read at once. */
  jobs?: number | undefined;
  signal?: AbortSignal | undefined;
  /**
   * Is told of a document that cannot be read, and the walk goes on without its
   * children. Without it the walk fails.
   */
  onBroken?: ((descriptor: Descriptor, error: CacheportError) => void) | undefined;
}

/** The types under which content of an unknown kind is announced. */
const UNKNOWN_TYPES = new Set(["", "application/octet-stream"]);

/**
 * Walks over everything that the roots reach, each digest once.
 *
 * A child is a document or a blob by its own media type, not by its parent's: the
 * entries of an index-shaped cache are blobs. A root of unknown type is looked into.
 *
 * @returns Children before parents, in an order that depends on the content alone.
 * @throws {CacheportError} BLOB_MISSING, DOCUMENT_INVALID, DOCUMENT_TOO_LARGE,
 *   DIGEST_MISMATCH, INDEX_TOO_DEEP for too deep a nesting and for a cycle
 */
export async function walk(
  reader: ContentReader,
  roots: readonly Descriptor[],
  options: WalkOptions,
): Promise<ContentNode[]> {
  const nodes = new Map<Digest, ContentNode>();
  let level = await Promise.all(roots.map((root) => nameType(reader, root, options)));
  for (let depth = 0; level.length > 0; depth++) {
    const fresh = level.filter((descriptor) => {
      const known = nodes.get(descriptor.digest);
      if (known && (known.documentType || !isDocumentType(descriptor.mediaType))) return false;
      nodes.set(descriptor.digest, blobNode(descriptor));
      return true;
    });
    const documents = fresh.filter(({ mediaType }) => isDocumentType(mediaType));
    if (depth > options.limits.depth && documents.length > 0) throw tooDeep(documents[0], options);
    const read = await mapLimit(documents, options.jobs ?? 4, (descriptor) =>
      readNode(reader, descriptor, options),
    );
    for (const node of read) nodes.set(node.descriptor.digest, node);
    level = read.flatMap((node) => node.children);
  }
  return childrenFirst(nodes, roots);
}

function blobNode(descriptor: Descriptor): ContentNode {
  return {
    descriptor,
    documentType: undefined,
    bytes: undefined,
    children: [],
    subject: undefined,
  };
}

async function readNode(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions,
): Promise<ContentNode> {
  options.signal?.throwIfAborted();
  try {
    const bytes = await reader.read(descriptor, options.limits.manifest);
    return {
      ...blobNode(descriptor),
      bytes,
      ...parseDocument(bytes, descriptor.digest),
    };
  } catch (error) {
    if (!options.onBroken || !isCacheportError(error)) throw error;
    options.onBroken(descriptor, error);
    return blobNode(descriptor);
  }
}

/** Reads what a document lists. */
function parseDocument(
  bytes: Uint8Array,
  digest: Digest,
): Pick<ContentNode, "documentType" | "children" | "subject"> {
  const documentType = detectDocumentType(bytes, `manifest "${digest}"`);
  if (isIndexType(documentType)) {
    const { manifests, subject } = parseImageIndex(bytes, `index "${digest}"`);
    return { documentType, children: manifests, subject };
  }
  const { config, layers, subject } = parseImageManifest(bytes, `manifest "${digest}"`);
  return {
    documentType,
    children: config ? [config, ...layers] : layers,
    subject,
  };
}

/**
 * Gives a root of unknown type the type that its bytes show, if they are a
 * document; any other descriptor is returned as it is.
 */
export async function nameType(
  reader: ContentReader,
  descriptor: Descriptor,
  { limits }: { limits: DocumentLimits },
): Promise<Descriptor> {
  if (!UNKNOWN_TYPES.has(descriptor.mediaType) || descriptor.size > limits.manifest) {
    return descriptor;
  }
  const bytes = await reader.read(descriptor, limits.manifest);
  return { ...descriptor, mediaType: sniffType(bytes) ?? descriptor.mediaType };
}

/**
 * The media type of a document that says what it is or has the fields of one; undefined
 * for any other bytes.
 */
export function sniffType(bytes: Uint8Array): string | undefined {
  // 0x7b is "{": whatever starts otherwise is no document and is not parsed.
  if (bytes[0] !== 0x7b) return undefined;
  try {
    const type = detectDocumentType(bytes, "blob");
    const text = new TextDecoder().decode(bytes);
    return /"(?:manifests|layers|config)"/i.test(text) ? type : undefined;
  } catch {
    return undefined;
  }
}

function tooDeep(descriptor: Descriptor | undefined, { limits }: WalkOptions): CacheportError {
  return new CacheportError(
    "INDEX_TOO_DEEP",
    `Cannot read index "${descriptor?.digest}": indexes are nested more than ${limits.depth} levels deep`,
  );
}

/** Orders nodes so that whoever writes them never names what is not there yet. */
function childrenFirst(
  nodes: Map<Digest, ContentNode>,
  roots: readonly Descriptor[],
): ContentNode[] {
  const ordered: ContentNode[] = [];
  const state = new Map<Digest, "open" | "done">();
  const visit = (digest: Digest): void => {
    const seen = state.get(digest);
    if (seen === "done") return;
    if (seen === "open") {
      throw new CacheportError(
        "INDEX_TOO_DEEP",
        `Cannot read index "${digest}": it contains itself`,
      );
    }
    state.set(digest, "open");
    const node = nodes.get(digest) as ContentNode;
    for (const child of node.children) visit(child.digest);
    state.set(digest, "done");
    ordered.push(node);
  };
  for (const { digest } of roots) visit(digest);
  return ordered;
}
