/**
 * The interfaces between operations and the places that hold content: layout
 * folders, layout archives and registries. Readers and writers are apart, so that
 * nothing that only reads can write.
 */
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";

/** Where the bytes of a blob lie in a local file, so that they can be cloned unread. */
export interface BlobLocation {
  /** Absolute path of a regular file. */
  readonly path: string;
  /** Bytes from the start of the file. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** The file is temporary and holds this blob alone: whoever takes it may rename it away. */
  readonly disposable: boolean;
  /** This process hashed the bytes when it wrote them: with `disposable`, no need to do it again. */
  readonly hashed?: boolean;
}

/** Reads content by descriptor. The media type decides where a registry looks for it. */
export interface ContentReader {
  /** The location as the user would write it, without a name: for messages. */
  readonly location: string;
  /** The size in bytes of the content as it is stored, or undefined when it is absent. Opens no blob. */
  stat(descriptor: Descriptor): Promise<number | undefined>;
  /**
   * Reads content whole and checks its digest and size.
   *
   * @param limit Bytes; what is larger is refused before it is read.
   * @throws {CacheportError} BLOB_MISSING, DOCUMENT_TOO_LARGE, DIGEST_MISMATCH, SIZE_MISMATCH
   */
  read(descriptor: Descriptor, limit: number): Promise<Uint8Array>;
  /**
   * Opens content as a stream of bytes as they are stored, NOT checked: whoever
   * consumes it checks digest and size (see blob-check.ts).
   *
   * @throws {CacheportError} BLOB_MISSING
   */
  open(descriptor: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>>;
  /**
   * Writes content as it is stored into an open, empty file, NOT checked: for stores
   * whose bytes can get there without a trip through this program.
   *
   * @param fd The file, whose position is its end.
   * @param reached Is told the number of bytes that have come into it since the last call.
   * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH, ...; the file then has a part
   */
  save?(
    descriptor: Descriptor,
    fd: number,
    reached: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Where the content lies in a local file, or undefined where it does not. NOT checked. */
  locate(descriptor: Descriptor): Promise<BlobLocation | undefined>;
}

/** The names that an entry of an index.json carries, as they stand there. */
export interface EntryName {
  /** `org.opencontainers.image.ref.name` */
  refName?: string | undefined;
  /** `io.containerd.image.name` */
  imageName?: string | undefined;
}

/** One entry of an index.json, or one tag of a registry repository. */
export interface NamedEntry extends EntryName {
  /** With the entry's own annotations and platform. */
  descriptor: Descriptor;
  /**
   * Why the entry cannot be used, where it is damaged or of a kind that is not supported. Its
   * descriptor then shows what stands there, unchecked, and nothing is to be read by it.
   */
  problem?: string | undefined;
  /** The manifest that this one refers to; such an entry is no tag. */
  subject?: Digest | undefined;
}

/** What to look for: a name, a digest, both, or neither (then `latest`, else the only entry). */
export interface NameQuery {
  /** A tag or a full image name. */
  name?: string | undefined;
  digest?: Digest | undefined;
}

/** What a query found. */
export interface Resolved {
  descriptor: Descriptor;
  /** The entry that named it; undefined for a digest that no name has. */
  entry: NamedEntry | undefined;
}

/** Reads names. */
export interface NameReader {
  /** All entries in their own order, those without a name too. A registry lists tags without descriptors' annotations. */
  list(): Promise<NamedEntry[]>;
  /** The names alone, where they can be had without what they stand for. */
  listNames?(): Promise<string[]>;
  /** @throws {CacheportError} NAME_NOT_FOUND, NAME_AMBIGUOUS, BLOB_NOT_FOUND */
  resolve(query: NameQuery): Promise<Resolved>;
  /**
   * What a name stands for now, asked as cheaply as can be, where that is cheaper than
   * {@link resolve}; undefined for nothing.
   */
  meaning?(name: string): Promise<Digest | undefined>;
}

/** A place that content and names can be read from. */
export interface Store extends ContentReader, NameReader {
  /**
   * The document as the place itself keeps it, where it is another one than the one that
   * the descriptor names: object stores have no manifests.
   */
  stored?(descriptor: Descriptor): Promise<Uint8Array | undefined>;
  /** The blobs that no name reaches, where the place can tell at the price of a list. */
  unreached?(): Promise<Descriptor[] | undefined>;
  /** Releases files, connections and temporary folders. May be called twice. */
  close(): Promise<void>;
}

/** Where the bytes of a blob that is to be written come from. */
export type BlobSource = { readonly bytes: Uint8Array } | { readonly store: ContentReader };

/** How a blob came to be in the target. */
export type PutOutcome = "copied" | "skipped" | "mounted";

/** What a caller can pass along with a blob. */
export interface PutOptions {
  signal?: AbortSignal | undefined;
  /** Is told the number of bytes that were moved since the last call. */
  onBytes?: ((count: number) => void) | undefined;
  /** `onBytes` is to be told while a blob is under way, even where that costs something. */
  isLive?: boolean | undefined;
  /**
   * Is told by `publish` the names that the target had just before its own were given. A
   * registry does not tell.
   */
  onNames?: ((entries: readonly NamedEntry[]) => void) | undefined;
}

/** A change of names in the target. */
export type NameUpdate =
  /** Gives a name; an entry with just this name is replaced. */
  | { readonly kind: "set"; readonly name: EntryName }
  /** Lists the descriptor without a name. */
  | { readonly kind: "list" }
  /**
   * Puts the new descriptor in the place of this entry and keeps the entry's
   * names and annotations; fails with NAME_CHANGED when the entry is no longer there.
   */
  | { readonly kind: "replace"; readonly entry: NamedEntry };

/** A top document, written last, with what it is to be called. */
export interface Root {
  /** Annotations and platform go into the index entry. */
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
  readonly names: readonly NameUpdate[];
}

/**
 * Writes content and names. Nothing is named before {@link publish}; whoever writes
 * puts children before their parents.
 */
export interface ContentWriter {
  /** The location as the user would write it, without a name: for messages. */
  readonly location: string;
  /** What is put is moved by {@link publish} only; `onBytes` is told then. */
  readonly defers?: boolean;
  /** What is left of a put after `onBytes` was told of the last byte is this machine's own work. */
  readonly finishesLocally?: boolean;
  /** A cache's config is to be handed over even where it is there: it is kept within another document. */
  readonly wantsConfig?: boolean;
  /**
   * Writes a blob or a document that is no root, unless the target has it with the
   * right size. The bytes are checked against digest and size before they count.
   *
   * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, BLOB_MISSING, NO_SPACE, ...
   */
  put(descriptor: Descriptor, source: BlobSource, options?: PutOptions): Promise<PutOutcome>;
  /** Writes the roots, then all names at once (a layout) or tag by tag (a registry). */
  publish(roots: readonly Root[], options?: PutOptions): Promise<void>;
  /** Removes temporary files and releases the rest. May be called twice. */
  close(): Promise<void>;
}

/** A name that is to go. */
export interface NameRemoval {
  /** As the user wrote it. */
  readonly name: string;
  readonly digest: Digest;
  /** The entries that have the name; none in a registry. */
  readonly entries: readonly NamedEntry[];
}

/** Deletes documents by their digests, in places that keep them whether a name reaches them or not. */
export interface ManifestDeleter {
  /**
   * Deletes a manifest with all names that stand for it.
   *
   * @throws {CacheportError} BLOB_NOT_FOUND, REGISTRY_UNSUPPORTED, REGISTRY_DENIED, REGISTRY_FAILED
   */
  deleteManifest(digest: Digest): Promise<void>;
}

/** Knows what refers to a manifest without reading all that it holds. */
export interface ReferrerLister {
  /** @throws {CacheportError} REGISTRY_DENIED, REGISTRY_FAILED, DOCUMENT_INVALID */
  listReferrers(subject: Digest): Promise<Descriptor[]>;
}

/** Tells whether a place knows referrers by itself. */
export function listsReferrers<T extends object>(place: T): place is T & ReferrerLister {
  return "listReferrers" in place;
}

/** Names content in places that are asked to leave a name that is there. */
export interface ConditionalNamer {
  /**
   * Names a document that the place has, unless the name is there.
   *
   * @returns What the name stands for when it was there, else undefined.
   */
  publishIfAbsent(
    root: Pick<Root, "descriptor" | "bytes">,
    name: string,
    signal?: AbortSignal,
  ): Promise<Descriptor | undefined>;
}

/** Tells whether a place names content only where a name is absent. */
export function namesIfAbsent(place: object): place is ConditionalNamer {
  return "publishIfAbsent" in place;
}

/** Tells whether a place deletes manifests by digest. */
export function deletesManifests(place: object): place is ManifestDeleter {
  return "deleteManifest" in place;
}

/** Gives and takes names of content that the place holds already. */
export interface NameWriter {
  /**
   * Gives names.
   *
   * @param read Reads the document, for places that take a name only together with it.
   * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH, NAME_AMBIGUOUS, LOCK_TIMEOUT, ...
   */
  setNames(
    descriptor: Descriptor,
    names: readonly EntryName[],
    read: () => Promise<Uint8Array>,
    options?: PutOptions,
  ): Promise<void>;
  /**
   * Takes a name away; the content stays.
   *
   * @returns False when nothing had it any more.
   * @throws {CacheportError} NAME_NOT_FOUND, NOT_SUPPORTED, REGISTRY_DENIED, LOCK_TIMEOUT, ...
   */
  removeName(removal: NameRemoval): Promise<boolean>;
}

/** What gives names to a document where only a write of the document itself can. */
export async function namedRoot(
  descriptor: Descriptor,
  names: readonly EntryName[],
  read: () => Promise<Uint8Array>,
): Promise<Root> {
  const updates = names.map((name) => ({ kind: "set" as const, name }));
  return { descriptor, bytes: await read(), names: updates };
}
