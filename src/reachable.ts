/**
 * What a layout still needs: everything that the entries of its index.json reach.
 *
 * Where other tools lose content: a document of a type that they do not know is a
 * leaf to them (umoci, BuildKit's `reset`), as are Docker types (umoci) and
 * `subject` (BuildKit). Here nothing is a leaf that could be something else.
 */
import { mapLimit } from "./concurrency.ts";
import type { ContentReader, NamedEntry } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { sniffType } from "./document.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { goFields, isJsonObject, parseJson } from "./go-json.ts";
import { parseImageIndex } from "./image-index.ts";
import { blobNames } from "./layout-reader.ts";
import { isDocumentType, isLeafType } from "./media-types.ts";
import { walk } from "./walk.ts";
import type { ContentNode, WalkOptions } from "./walk.ts";

/** A number of blobs and their bytes on disk, each blob once. */
export interface Amount {
  blobs: number;
  /** Bytes. */
  bytes: number;
}

/** The referrers of manifests that no entry lists, by the digest of their subject. */
export type Referrers = ReadonlyMap<Digest, readonly Descriptor[]>;

/**
 * The digests that must stay while some descriptors do: theirs, and those of all that they
 * list or refer to, as a walk finds it.
 *
 * @throws {CacheportError} whatever {@link walk} throws, unless `onBroken` is given
 */
export async function neededDigests(
  reader: ContentReader,
  roots: readonly Descriptor[],
  options: WalkOptions,
): Promise<Set<Digest>> {
  const needed = new Set(roots.map(({ digest }) => digest));
  for (const { descriptor, document } of await walk(reader, roots, options)) {
    needed.add(descriptor.digest);
    if (document?.subject) needed.add(document.subject.digest);
  }
  return needed;
}

/**
 * Finds all content that entries reach: through indexes and manifests, through the
 * children of caches in every shape, from a referrer to its subject and from a
 * subject to its referrers.
 *
 * @param referrers Documents of the store that no entry may list.
 * @returns The digests, those of absent layers too.
 * @throws {CacheportError} GC_REFUSED when something reachable cannot be read, or
 *   is of a type that cannot be followed
 */
export async function findReachable(
  reader: ContentReader,
  entries: readonly NamedEntry[],
  referrers: Referrers,
  options: WalkOptions,
): Promise<Set<Digest>> {
  const broken = entries.find(({ problem }) => problem !== undefined);
  if (broken) throw refusal(reader, new CacheportError("DOCUMENT_INVALID", broken.problem ?? ""));
  const reached = new Set<Digest>();
  const documents = new Set<Digest>();
  /** Many may refer to one. */
  const subjects = new Set<Digest>();
  const followSubject = async (digest: Digest, into: Descriptor[]): Promise<void> => {
    if (subjects.has(digest)) return;
    subjects.add(digest);
    const subject = await subjectOf(reader, digest, options);
    if (subject) into.push(subject);
  };
  let roots = await mapLimit(entries, options.jobs ?? 1, ({ descriptor }) =>
    rootOf(reader, descriptor, options),
  );
  for (const { subject } of entries) if (subject) await followSubject(subject, roots);
  while (roots.length > 0) {
    const nodes = await follow(reader, roots, options);
    const next: Descriptor[] = [];
    for (const node of nodes) {
      const { digest } = node.descriptor;
      reached.add(digest);
      if (!node.document || documents.has(digest)) continue;
      documents.add(digest);
      for (const referrer of referrers.get(digest) ?? []) next.push(referrer);
      const { subject } = node.document;
      if (subject) await followSubject(subject.digest, next);
      for (const child of await unknownChildren(reader, node, options)) next.push(child);
    }
    roots = next.filter(({ digest }) => !documents.has(digest));
  }
  return reached;
}

async function follow(
  reader: ContentReader,
  roots: readonly Descriptor[],
  options: WalkOptions,
): Promise<ContentNode[]> {
  try {
    return await walk(reader, roots, options);
  } catch (error) {
    throw refusal(reader, error);
  }
}

/** The root of an entry, with the type that its bytes show when its own says too little. */
async function rootOf(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions,
): Promise<Descriptor> {
  return isFollowed(descriptor) ? descriptor : look(reader, descriptor, options);
}

/** The children of an index that turn out to be documents themselves. */
async function unknownChildren(
  reader: ContentReader,
  node: ContentNode,
  options: WalkOptions,
): Promise<Descriptor[]> {
  // Config and layers of a manifest are content of any kind, never documents.
  if (!node.document?.isIndex) return [];
  const found: Descriptor[] = [];
  for (const child of node.children) {
    if (isFollowed(child)) continue;
    if ((await reader.stat(child)) === undefined) continue;
    const seen = await look(reader, child, options);
    if (isDocumentType(seen.mediaType)) found.push(seen);
  }
  return found;
}

/** Tells whether a media type says all that is needed: a document, or surely a leaf. */
function isFollowed({ mediaType }: Descriptor): boolean {
  return isDocumentType(mediaType) || isLeafType(mediaType);
}

/**
 * Looks into content whose media type is not known. What is JSON and no index or
 * manifest could list content in a way that nobody here understands.
 */
async function look(
  reader: ContentReader,
  descriptor: Descriptor,
  { limits }: WalkOptions,
): Promise<Descriptor> {
  const { digest, mediaType } = descriptor;
  try {
    const isJsonType = /json|jws/i.test(mediaType);
    if (!isJsonType && (await firstByte(reader, descriptor)) !== BRACE) return descriptor;
    const bytes = await reader.read(descriptor, limits.manifest);
    const type = sniffType(bytes);
    if (type !== undefined && isPlain(bytes, mediaType)) return { ...descriptor, mediaType: type };
  } catch (error) {
    throw refusal(reader, error);
  }
  const reason = `${digest} is of the type ${JSON.stringify(mediaType.slice(0, 200))}, and what such a document refers to is not known`;
  throw new CacheportError(
    "GC_REFUSED",
    `Cannot collect garbage in "${reader.location}": ${reason}`,
    {
      cause: new CacheportError("DOCUMENT_INVALID", `Cannot follow it: ${reason}`),
      hint: "Nothing was removed; untag it if it is not needed, or keep it in a layout of its own",
    },
  );
}

const BRACE = 0x7b;

/** Descriptors of these types say nothing of what the content is. */
const NO_TYPES = new Set(["", "application/octet-stream"]);

/** Tells whether a document claims to be an index or a manifest, or nobody claims that it is anything else. */
function isPlain(bytes: Uint8Array, mediaType: string): boolean {
  const document = parseJson(bytes, "document");
  const own = isJsonObject(document) ? goFields(document, ["mediaType"])["mediaType"] : undefined;
  if (typeof own === "string" && own !== "") return isDocumentType(own);
  return NO_TYPES.has(mediaType);
}

async function firstByte(
  reader: ContentReader,
  descriptor: Descriptor,
): Promise<number | undefined> {
  const stream = await reader.open(descriptor);
  const streamReader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await streamReader.read();
      if (done || value.length > 0) return value?.[0];
    }
  } finally {
    await streamReader.cancel().catch(() => {});
  }
}

/**
 * Finds the documents among blobs that have a `subject`.
 *
 * @param blobs Of a layout; what is too large for a document is passed over.
 * @throws {CacheportError} PERMISSION_DENIED, INTERRUPTED, IO_FAILED
 */
export async function findReferrers(
  reader: ContentReader,
  blobs: readonly { readonly digest: Digest; readonly size: number }[],
  { limits, jobs = 1, signal }: WalkOptions,
): Promise<Referrers> {
  const referrers = new Map<Digest, Descriptor[]>();
  await mapLimit(blobs, jobs, async ({ digest, size }) => {
    signal?.throwIfAborted();
    if (size > limits.manifest) return;
    const descriptor = { mediaType: "", digest, size };
    const document = await readDocument(reader, descriptor);
    if (!document) return;
    const found = referrers.get(document.subject) ?? [];
    referrers.set(document.subject, found);
    found.push({ ...descriptor, mediaType: document.mediaType });
  });
  // In an order that does not depend on which was read first.
  for (const found of referrers.values()) found.sort((a, b) => (a.digest < b.digest ? -1 : 1));
  return referrers;
}

/** The type and the subject of a document that has one; undefined for anything else. */
async function readDocument(
  reader: ContentReader,
  descriptor: Descriptor,
): Promise<{ mediaType: string; subject: Digest } | undefined> {
  try {
    if ((await firstByte(reader, descriptor)) !== BRACE) return undefined;
    const bytes = await reader.read(descriptor, descriptor.size);
    if (!Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes('"subject"'))
      return undefined;
    const mediaType = sniffType(bytes);
    // An index and a manifest have their subject in the same place.
    const subject = mediaType && parseImageIndex(bytes, "document").subject?.digest;
    return mediaType && subject ? { mediaType, subject } : undefined;
  } catch (error) {
    // Damaged, or gone meanwhile: then it refers to nothing.
    if (isCacheportError(error, "PERMISSION_DENIED", "INTERRUPTED", "IO_FAILED")) throw error;
    return undefined;
  }
}

/** The manifest that another one refers to, if the store has it. */
async function subjectOf(
  reader: ContentReader,
  digest: Digest,
  options: WalkOptions,
): Promise<Descriptor | undefined> {
  const unsized = { mediaType: "", digest, size: 0 };
  const size = await reader.stat(unsized);
  if (size === undefined) return undefined;
  return rootOf(reader, { ...unsized, size }, options);
}

function refusal(reader: ContentReader, cause: unknown): CacheportError {
  if (!isCacheportError(cause)) throw cause;
  if (["INTERRUPTED", "GC_REFUSED"].includes(cause.code)) return cause;
  return new CacheportError(
    "GC_REFUSED",
    `Cannot collect garbage in "${reader.location}": what a name reaches cannot be read, so nothing was removed (${cause.message})`,
    {
      hint: { do: "verify-layout", location: reader.location },
      cause,
    },
  );
}

/**
 * Measures what no name reaches, for a line beside something else: names are not told apart,
 * so each document is read once. What they reach is not opened beyond its documents, and of
 * the rest only what is small enough for a document, since it may refer to what is named.
 * Where all blobs are reached, no more than their names is looked at.
 *
 * @param folder Path of the layout that the store reads.
 * @param entries All that the layout has.
 * @returns What `gc` would remove without its grace; null where it would refuse.
 * @throws {CacheportError} PERMISSION_DENIED, INTERRUPTED, IO_FAILED
 */
export async function measureUnreached(
  store: ContentReader,
  folder: string,
  entries: readonly NamedEntry[],
  options: WalkOptions,
): Promise<Amount | null> {
  try {
    let reached = await findReachable(store, entries, new Map(), options);
    if (blobNames(folder).every((digest) => reached.has(digest))) return { blobs: 0, bytes: 0 };
    const { listLayoutFiles } = await import("./layout-files.ts");
    const { blobs } = await listLayoutFiles(folder);
    const unnamed = blobs.filter(({ digest }) => !reached.has(digest));
    const referrers = await findReferrers(store, unnamed, options);
    if (referrers.size > 0) reached = await findReachable(store, entries, referrers, options);
    const rest = unnamed.filter(({ digest }) => !reached.has(digest));
    return { blobs: rest.length, bytes: rest.reduce((sum, { size }) => sum + size, 0) };
  } catch (error) {
    if (isCacheportError(error, "GC_REFUSED")) return null;
    throw error;
  }
}
