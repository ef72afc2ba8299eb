/**
 * What cacheport needs of an object store, the same for each of them: blobs by their
 * digest, and the documents of caches by name. One file for each service implements it.
 */
import type { Trace } from "./registry-trace.ts";
import type { BlobSource, PutOptions } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { DocumentLimits } from "./documents.ts";
import type { ObjectKind } from "./object-place.ts";

/** With what an object store is opened. */
export interface ObjectSettings {
  env: Readonly<Record<string, string | undefined>>;
  limits: DocumentLimits;
  /** Blobs at once. */
  jobs: number;
  signal?: AbortSignal | undefined;
  /** Tells the user what is no failure. */
  note?: ((text: string) => void) | undefined;
  caFile?: string | undefined;
  insecure?: boolean | undefined;
  /** Takes the log of requests. */
  trace?: Trace;
  /** Milliseconds before the second try of a request; 500. */
  retryDelayMs?: number | undefined;
}

/** What a store says of an object without giving it. */
export interface ObjectInfo {
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970 of its last change; undefined where the store does not tell. */
  readonly modified?: number | undefined;
}

/** An object that is being read. */
export interface OpenObject {
  /** Bytes of the whole object; undefined where the store does not tell. */
  readonly size: number | undefined;
  /** Where the body starts: the place that was asked for, or 0. */
  readonly from: number;
  readonly body: ReadableStream<Uint8Array>;
  /** Ends the exchange. */
  readonly abort: AbortController;
}

/** The blobs of a store, or the first of very many. */
export interface BlobList {
  readonly blobs: ReadonlyMap<Digest, ObjectInfo>;
  /** False when there are more. */
  readonly complete: boolean;
  /** The server's time, in milliseconds since 1970. */
  readonly now: number;
}

/** The name of a cache, and its document's own properties. */
export interface ObjectName extends ObjectInfo {
  readonly name: string;
}

/** A cache's document as it is stored. */
export interface StoredDocument {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** One rule by which a store removes what is old. */
export interface LifecycleRule {
  /** Of the keys that it is for. */
  readonly prefix: string;
  readonly days: number;
}

/** An object store. */
export interface ObjectService {
  readonly kind: ObjectKind;
  /** As the user would write it, without a secret and without a name. */
  readonly location: string;
  /** Milliseconds after which an export refreshes a blob's age; undefined where none does. */
  readonly touchRefresh: number | undefined;
  /** Whether an import takes all names of a list, or the first one alone. */
  readonly readsAllNames: boolean;

  /** Makes ready what writing needs: a container that is missing is created. */
  prepare(): Promise<void>;
  /** Size and age of a blob, undefined when it is absent. */
  has(digest: Digest, signal?: AbortSignal): Promise<ObjectInfo | undefined>;
  /**
   * Opens a blob, from a place in it.
   *
   * @throws {CacheportError} BLOB_MISSING, STORE_DENIED, STORE_FAILED
   */
  open(digest: Digest, from: number, signal?: AbortSignal): Promise<OpenObject>;
  /**
   * Writes a blob. It is to be had under its digest only once all of its bytes have
   * been hashed and found right.
   *
   * @param replace Something else of that name is there and is wrong.
   * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, STORE_DENIED, STORE_FAILED
   */
  write(
    blob: Descriptor,
    source: BlobSource,
    options: PutOptions & { replace: boolean },
  ): Promise<void>;
  /**
   * Copies a blob from another store of the same server without moving its bytes here.
   *
   * @returns False when the server cannot; then nothing was written.
   */
  copyFrom(other: ObjectService, blob: Descriptor, signal?: AbortSignal): Promise<boolean>;
  /** Makes a blob as young as if it were just written; does nothing where no export does so. */
  touch(blob: Descriptor, signal?: AbortSignal): Promise<void>;
  /**
   * All blobs, a page at a time.
   *
   * @param most Blobs after which it may stop.
   * @returns Undefined when the store does not list, or not for us.
   */
  blobs(most?: number): Promise<BlobList | undefined>;
  remove(digest: Digest): Promise<void>;

  /** @returns Undefined when the store does not list names. */
  names(): Promise<ObjectName[] | undefined>;
  /**
   * The documents that a name stands for: none, one, or one for each scope that is
   * read, the nearest first.
   *
   * @throws {CacheportError} DOCUMENT_TOO_LARGE, LOCATION_NOT_FOUND, STORE_DENIED, STORE_FAILED
   */
  documents(name: string): Promise<StoredDocument[]>;
  /** Writes a document under a name; who comes last wins. */
  writeDocument(name: string, bytes: Uint8Array): Promise<void>;
  /** @throws {CacheportError} NOT_SUPPORTED where nothing can be removed */
  removeDocument(name: string): Promise<void>;

  /** The rules by which the store removes blobs and documents by age; undefined when it does not say. */
  lifecycle(): Promise<LifecycleRule[] | undefined>;
  /** What stands before a blob's digest, and before a name, in their keys. */
  readonly prefixes: { readonly blobs: string; readonly names: string };
  close(): void;
}
