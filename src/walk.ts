/**
 * The walk over all content that a descriptor reaches: indexes, manifests, configs
 * and layers, caches in every shape included.
 */
import { mapLimit } from "./concurrency.ts";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { identify, parseDocument, saysNothing, startsLikeObject } from "./document.ts";
import type { Document } from "./document.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { isDocumentType, isLeafType } from "./media-types.ts";

/** One piece of content that a walk met. */
export interface ContentNode {
  /** The descriptor by which it was met first, with the type that its bytes show. */
  descriptor: Descriptor;
  /** The media type that the descriptor gave, whatever the bytes show. */
  announced: string;
  /** The document, parsed; undefined for a blob. */
  document: Document | undefined;
  /** The bytes of the document; undefined for a blob. */
  bytes: Uint8Array | undefined;
  /** What the document lists, in its order, repeated ones too. */
  children: readonly Descriptor[];
  /** The subject, where the walk went on to it. */
  subject: Descriptor | undefined;
  /** It stands as a config or a layer: it is needed as a blob, even if it is a document. */
  asBlob: boolean;
  /** It stands elsewhere, where a document is needed as one. */
  asDocument: boolean;
}

/** How to walk. */
export interface WalkOptions {
  limits: DocumentLimits;
  /** Documents that are read at once. */
  jobs?: number | undefined;
  signal?: AbortSignal | undefined;
  /**
   * Goes on to the manifest that a document refers to as its subject, if the store has it;
   * a subject may be absent by the rules.
   */
  subjects?: boolean | undefined;
  /**
   * Is told of a document that cannot be read, and the walk goes on without its
   * children. Without it the walk fails.
   */
  onBroken?: ((descriptor: Descriptor, error: CacheportError) => void) | undefined;
}

/**
 * Walks over everything that the roots reach, each digest once.
 *
 * A child is a document or a blob by its own media type, not by its parent's: the
 * entries of an index-shaped cache are blobs. Roots and entries of an index whose type
 * does not say what they are, are looked into; configs and layers never are.
 *
 * @returns Children before parents, in an order that depends on the content alone.
 * @throws {CacheportError} BLOB_MISSING, DOCUMENT_INVALID, DOCUMENT_TOO_LARGE,
 *   DOCUMENT_UNKNOWN for a document whose children are not known, DIGEST_MISMATCH,
 *   INDEX_TOO_DEEP for too deep a nesting and for a cycle
 */
export async function walk(
  reader: ContentReader,
  roots: readonly Descriptor[],
  options: WalkOptions,
): Promise<ContentNode[]> {
  const nodes = new Map<Digest, ContentNode>();
  let level: readonly Descriptor[] = roots;
  for (let depth = 0; level.length > 0; depth++) {
    const fresh = level.filter((descriptor) => isNews(nodes, descriptor));
    if (depth > options.limits.depth) refuseDepth(fresh, options);
    const read = await mapLimit(fresh, options.jobs ?? 4, (descriptor) =>
      readNode(reader, descriptor, options),
    );
    for (const node of read) {
      if (!node.document) continue;
      const { asBlob, asDocument } = nodes.get(node.descriptor.digest) ?? node;
      nodes.set(node.descriptor.digest, { ...node, asBlob, asDocument });
    }
    level = read.flatMap(({ children, subject }) => (subject ? [...children, subject] : children));
  }
  return childrenFirst(nodes, roots);
}

/** Notes where a descriptor stands, and tells whether what it describes was not looked at so far. */
function isNews(nodes: Map<Digest, ContentNode>, descriptor: Descriptor): boolean {
  const known = nodes.get(descriptor.digest);
  if (!known) {
    nodes.set(descriptor.digest, blobNode(descriptor));
    return true;
  }
  const { asBlob, asDocument } = blobNode(descriptor);
  known.asBlob ||= asBlob;
  known.asDocument ||= asDocument;
  // Content that is embedded once is there for all.
  if (!known.descriptor.data && descriptor.data)
    known.descriptor = { ...known.descriptor, data: descriptor.data };
  // The same bytes may be a layer in one place and a manifest in another.
  if (known.document || certainty(descriptor) <= certainty(known.descriptor)) return false;
  nodes.set(descriptor.digest, { ...known, descriptor });
  return true;
}

/** How surely a descriptor speaks of a document: 2 for one, 1 where only the bytes can tell. */
function certainty(descriptor: Descriptor): number {
  return isDocumentType(descriptor.mediaType) ? 2 : mayBeDocument(descriptor) ? 1 : 0;
}

/** Tells whether a descriptor has to be read for its children. */
function mayBeDocument({ mediaType, isBlob = false }: Descriptor): boolean {
  return isDocumentType(mediaType) || (!isBlob && !isLeafType(mediaType));
}

function blobNode(descriptor: Descriptor): ContentNode {
  return {
    descriptor,
    announced: descriptor.mediaType,
    document: undefined,
    bytes: undefined,
    children: [],
    subject: undefined,
    asBlob: descriptor.isBlob === true,
    asDocument: !descriptor.isBlob,
  };
}

async function readNode(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions,
): Promise<ContentNode> {
  options.signal?.throwIfAborted();
  if (!mayBeDocument(descriptor)) return blobNode(descriptor);
  try {
    const found = await readDocument(reader, descriptor, options.limits);
    if (!found) return blobNode(descriptor);
    const { document, bytes } = found;
    const mediaType = isDocumentType(descriptor.mediaType) ? descriptor.mediaType : document.type;
    return {
      ...blobNode(descriptor),
      descriptor: { ...descriptor, mediaType },
      document,
      bytes,
      children: document.children,
      subject: await findSubject(reader, document, options),
    };
  } catch (error) {
    if (!options.onBroken || !isCacheportError(error)) throw error;
    options.onBroken(descriptor, error);
    return blobNode(descriptor);
  }
}

async function findSubject(
  reader: ContentReader,
  { subject }: Document,
  { subjects = false }: WalkOptions,
): Promise<Descriptor | undefined> {
  if (!subjects || !subject) return undefined;
  return (await reader.stat(subject)) === undefined ? undefined : subject;
}

/** Content up to this size is read at once; of what is larger the first bytes are looked at. */
const SMALL = 64 * 1024;

/**
 * Reads what may be a document.
 *
 * @returns Undefined for a blob, and for what is not there and nobody calls a document.
 */
async function readDocument(
  reader: ContentReader,
  descriptor: Descriptor,
  limits: DocumentLimits,
): Promise<{ document: Document; bytes: Uint8Array } | undefined> {
  const { mediaType, digest, size, isBlob } = descriptor;
  const what = `manifest "${digest}"`;
  if (isDocumentType(mediaType)) {
    const bytes = await reader.read(descriptor, limits.manifest);
    try {
      return { bytes, document: parseDocument(bytes, mediaType, what) };
    } catch (error) {
      // A layer may be called a manifest and be anything.
      if (isBlob && isCacheportError(error, "DOCUMENT_INVALID")) return undefined;
      throw error;
    }
  }
  if (saysNothing(mediaType) && size > limits.manifest) return undefined;
  try {
    if (size > SMALL && !(await beginsLikeObject(reader, descriptor))) return undefined;
    const bytes = await reader.read(descriptor, limits.manifest);
    const document = identify(bytes, mediaType, what);
    return document && { document, bytes };
  } catch (error) {
    if (isCacheportError(error, "BLOB_MISSING")) return undefined;
    throw error;
  }
}

async function beginsLikeObject(reader: ContentReader, descriptor: Descriptor): Promise<boolean> {
  const stream = (await reader.open(descriptor)).getReader();
  try {
    for (;;) {
      const { done, value } = await stream.read();
      if (done) return false;
      if (value.some((byte) => byte > 0x20)) return startsLikeObject(value);
    }
  } finally {
    await stream.cancel().catch(() => {});
  }
}

/**
 * Gives a root of unknown type the type that its bytes show, if they are a document that
 * can be read; any other descriptor is returned as it is.
 *
 * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, DOCUMENT_TOO_LARGE
 */
export async function nameType(
  reader: ContentReader,
  descriptor: Descriptor,
  { limits }: { limits: DocumentLimits },
): Promise<Descriptor> {
  if (isDocumentType(descriptor.mediaType) || !mayBeDocument(descriptor)) return descriptor;
  try {
    const found = await readDocument(reader, descriptor, limits);
    return found ? { ...descriptor, mediaType: found.document.type } : descriptor;
  } catch (error) {
    // Whoever needs to know what it lists finds the same fault.
    if (isCacheportError(error, "DOCUMENT_INVALID", "DOCUMENT_UNKNOWN")) return descriptor;
    throw error;
  }
}

function refuseDepth(fresh: readonly Descriptor[], { limits }: WalkOptions): void {
  const deep = fresh.find(mayBeDocument);
  if (!deep) return;
  throw new CacheportError(
    "INDEX_TOO_DEEP",
    `Cannot read index "${deep.digest}": indexes are nested more than ${limits.depth} levels deep`,
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
    if (node.subject) visit(node.subject.digest);
    state.set(digest, "done");
    ordered.push(node);
  };
  for (const { digest } of roots) visit(digest);
  return ordered;
}
