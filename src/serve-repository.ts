/**
 * One location as a repository of a registry: its tags, manifests and blobs, and what is
 * pushed into it.
 *
 * Source: OCI distribution-spec 1.1.
 */
import type {
  BlobLocation,
  ContentReader,
  ContentWriter,
  NamedEntry,
  Root,
  Store,
} from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { parseDocument } from "./document.ts";
import type { Document } from "./document.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { isDocumentType } from "./media-types.ts";
import { tagOfName } from "./reference.ts";
import { PendingContent } from "./serve-pending.ts";
import { nameType, walk } from "./walk.ts";

/** The media type of content of which nothing is known. */
const UNKNOWN = "application/octet-stream";

/** Descriptors that are remembered from manifests that were asked for. */
const REMEMBERED = 100_000;

/** How a location is served. */
export interface RepositoryOptions {
  /** The repository's name, without a host. */
  name: string;
  /** As the user wrote it. */
  location: string;
  /** Opens the location for reading; again after something was written to it. */
  open(): Promise<Store>;
  /** Opens it for writing; undefined where nothing may be pushed. */
  openWriter: (() => Promise<ContentWriter>) | undefined;
  pending: PendingContent | undefined;
  /** Keeps blobs that are not in a local file. */
  cache: BlobCache | undefined;
  /** The one name that is served; all where it is undefined. */
  only: { name?: string | undefined; digest?: Digest | undefined } | undefined;
  limits: DocumentLimits;
}

/** A place for blobs that come from elsewhere. */
export interface BlobCache {
  /** The blob in a local file, fetched and checked if it was not there. */
  fetch(descriptor: Descriptor, from: ContentReader): Promise<BlobLocation>;
}

/** A document with what describes it. */
export interface ServedManifest {
  descriptor: Descriptor;
  bytes: Uint8Array;
  document: Document;
}

/** A blob, and where its bytes are. */
export interface ServedBlob {
  size: number;
  location: BlobLocation | undefined;
  open(): Promise<ReadableStream<Uint8Array>>;
}

/** A repository that is served. */
export class ServedRepository {
  readonly name: string;
  readonly location: string;
  readonly pending: PendingContent | undefined;
  readonly #options: RepositoryOptions;
  #store: Store;
  /** Media types and sizes of what manifests name: a registry looks for content by both. */
  readonly #known = new Map<Digest, Descriptor>();
  /** The subject of each manifest that was looked into, null for none. */
  readonly #subjects = new Map<Digest, Digest | null>();
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(options: RepositoryOptions, store: Store) {
    this.#options = options;
    this.#store = store;
    this.name = options.name;
    this.location = options.location;
    this.pending = options.pending;
  }

  /** @throws {CacheportError} as the location's store; for one that is to be made, when it is written */
  static async open(options: RepositoryOptions): Promise<ServedRepository> {
    return new ServedRepository(options, await openOrEmpty(options));
  }

  get isWritable(): boolean {
    return this.#options.openWriter !== undefined;
  }

  /** All tags, sorted. */
  async tags(): Promise<string[]> {
    const only = this.#options.only;
    if (only?.name !== undefined) return [tagOfName(only.name) ?? "latest"];
    if (only?.digest !== undefined) return ["latest"];
    const entries = await this.#store.list();
    return [...new Set(entries.flatMap(entryTag))].toSorted();
  }

  /**
   * The manifest behind a tag or a digest.
   *
   * @returns Undefined when there is none.
   */
  async manifest(reference: string): Promise<ServedManifest | undefined> {
    const descriptor = await this.#find(reference);
    if (!descriptor || !isDocumentType(descriptor.mediaType)) return undefined;
    const bytes = await this.#reader().read(descriptor, this.#options.limits.manifest);
    const document = describeBytes(descriptor, bytes);
    for (const child of document.children) this.#remember(child);
    return { descriptor, bytes, document };
  }

  /** A blob by its digest, or undefined. Its bytes are not checked: clients do that. */
  async blob(digest: Digest): Promise<ServedBlob | undefined> {
    const reader = this.#reader();
    const known = this.#known.get(digest) ?? { mediaType: UNKNOWN, digest, size: 0 };
    const size = await reader.stat(known);
    if (size === undefined) return undefined;
    const descriptor = { ...known, size };
    const location =
      (await reader.locate(descriptor)) ??
      (await this.#options.cache?.fetch(descriptor, this.#store));
    return { size, location, open: () => reader.open(descriptor) };
  }

  /** Descriptors of the manifests whose subject is a manifest. */
  async referrers(subject: Digest): Promise<Descriptor[]> {
    const found: Descriptor[] = [];
    const candidates = [
      ...(await this.#store.list()).map(({ descriptor }) => descriptor),
      ...(this.pending?.manifests() ?? []),
    ];
    for (const descriptor of new Map(candidates.map((one) => [one.digest, one])).values()) {
      if ((await this.#subjectOf(descriptor)) !== subject) continue;
      found.push(await this.#describe(descriptor));
    }
    return found;
  }

  /** The blob is here, or was pushed. */
  async has(digest: Digest): Promise<boolean> {
    return (await this.#reader().stat({ mediaType: UNKNOWN, digest, size: 0 })) !== undefined;
  }

  /**
   * Takes a manifest. With a tag it goes to the location together with everything that it
   * reaches; without one it waits until a tag needs it.
   *
   * @returns The manifest's subject.
   * @throws {CacheportError} BLOB_MISSING when something that it names was not pushed, and
   *   what the location's writer throws
   */
  async putManifest(
    descriptor: Descriptor,
    bytes: Uint8Array,
    tag: string | undefined,
  ): Promise<Digest | undefined> {
    const { subject, type } = describeBytes(descriptor, bytes);
    if (type !== descriptor.mediaType)
      throw new CacheportError(
        "DOCUMENT_INVALID",
        `Cannot take manifest: it is announced as "${descriptor.mediaType}" and is ${type}`,
      );
    const pending = this.pending as PendingContent;
    await pending.keepManifest(descriptor, bytes);
    try {
      const nodes = await walk(this.#reader(), [descriptor], { limits: this.#options.limits });
      for (const node of nodes) await this.#checkPresence(node.descriptor);
      if (tag !== undefined) await this.#publish(descriptor, [{ refName: tag }]);
      return subject?.digest;
    } catch (error) {
      if (!isCacheportError(error, "NO_SPACE")) await pending.drop(descriptor.digest);
      throw error;
    }
  }

  /** Gives what was pushed without a tag a place in the location: nothing that was taken is lost. */
  async settle(): Promise<number> {
    let count = 0;
    // An index comes after what it lists, and takes that with it.
    for (const descriptor of this.pending?.manifests().toReversed() ?? []) {
      if (!this.pending?.has(descriptor.digest)) continue;
      await this.#publish(descriptor, []);
      count++;
    }
    return count;
  }

  async close(): Promise<void> {
    await this.#writing.catch(() => {});
    await this.#store.close();
  }

  /** Writes what a manifest reaches, one manifest at a time. */
  #publish(descriptor: Descriptor, names: { refName: string }[]): Promise<void> {
    const run = this.#writing.catch(() => {}).then(() => this.#write(descriptor, names));
    this.#writing = run;
    return run;
  }

  async #write(descriptor: Descriptor, names: { refName: string }[]): Promise<void> {
    const pending = this.pending as PendingContent;
    const open = this.#options.openWriter as () => Promise<ContentWriter>;
    const nodes = await walk(this.#reader(), [descriptor], { limits: this.#options.limits });
    const root = nodes.at(-1);
    const writer = await open();
    try {
      for (const node of nodes) {
        if (node === root || !pending.has(node.descriptor.digest)) continue;
        await writer.put(node.descriptor, { store: pending });
      }
      const update: Root = {
        descriptor,
        bytes: root?.bytes as Uint8Array,
        names:
          names.length > 0
            ? names.map((name) => ({ kind: "set" as const, name }))
            : [{ kind: "list" as const }],
      };
      await writer.publish([update]);
    } finally {
      await writer.close();
    }
    await this.#store.close();
    this.#store = await openOrEmpty(this.#options);
    for (const node of nodes) await pending.drop(node.descriptor.digest);
  }

  async #checkPresence(descriptor: Descriptor): Promise<void> {
    if (descriptor.urls?.length) return;
    const size = await this.#reader().stat(descriptor);
    if (size === descriptor.size) return;
    throw new CacheportError(
      size === undefined ? "BLOB_MISSING" : "SIZE_MISMATCH",
      size === undefined
        ? `Cannot take manifest: "${descriptor.digest}" was not pushed`
        : `Cannot take manifest: "${descriptor.digest}" has ${size} bytes, not ${descriptor.size}`,
    );
  }

  async #find(reference: string): Promise<Descriptor | undefined> {
    const { only, limits } = this.#options;
    if (isDigest(reference)) {
      const waiting = this.pending?.manifest(reference);
      if (waiting) return waiting;
    } else if (only && !(await this.tags()).includes(reference)) return undefined;
    const query = isDigest(reference)
      ? { digest: reference }
      : only
        ? { name: only.name, digest: only.digest }
        : { name: reference };
    try {
      const { descriptor } = await this.#store.resolve(query);
      return await nameType(this.#store, descriptor, { limits });
    } catch (error) {
      if (isCacheportError(error, "NAME_NOT_FOUND", "BLOB_NOT_FOUND", "LOCATION_NOT_FOUND"))
        return undefined;
      throw error;
    }
  }

  #remember(descriptor: Descriptor): void {
    if (this.#known.size >= REMEMBERED) this.#known.clear();
    this.#known.set(descriptor.digest, descriptor);
  }

  async #subjectOf(descriptor: Descriptor): Promise<Digest | null> {
    const known = this.#subjects.get(descriptor.digest);
    if (known !== undefined) return known;
    const manifest = await this.manifest(descriptor.digest).catch(() => undefined);
    const subject = manifest?.document.subject?.digest ?? null;
    if (this.#subjects.size >= REMEMBERED) this.#subjects.clear();
    this.#subjects.set(descriptor.digest, subject);
    return subject;
  }

  /** A referrer as the list of referrers has it: with its artifact type and annotations. */
  async #describe({ mediaType, digest, size }: Descriptor): Promise<Descriptor> {
    const document = (await this.manifest(digest))?.document;
    const annotations = (document?.manifest ?? document?.index)?.annotations;
    const artifactType = document?.artifactType ?? document?.config?.mediaType;
    return {
      mediaType,
      digest,
      size,
      ...(annotations && { annotations }),
      ...(artifactType !== undefined && { artifactType }),
    };
  }

  /** What was pushed, then what the location has. */
  #reader(): ContentReader {
    const { pending } = this;
    const store = this.#store;
    if (!pending) return store;
    const holder = ({ digest }: Descriptor): ContentReader =>
      pending.has(digest) ? pending : store;
    return {
      location: this.location,
      stat: (descriptor) => holder(descriptor).stat(descriptor),
      read: (descriptor, limit) => holder(descriptor).read(descriptor, limit),
      open: (descriptor, signal) => holder(descriptor).open(descriptor, signal),
      locate: (descriptor) => holder(descriptor).locate(descriptor),
    };
  }
}

function describeBytes({ mediaType, digest }: Descriptor, bytes: Uint8Array): Document {
  return parseDocument(bytes, mediaType, `manifest "${digest}"`);
}

/** The tag that an entry has, in a repository of any name. */
function entryTag({ refName, imageName, subject }: NamedEntry): string[] {
  if (subject) return [];
  const tag = tagOfName(imageName ?? "") ?? tagOfName(refName ?? "");
  return tag === undefined ? [] : [tag];
}

/** A location that is yet to be made is an empty repository where it may be written. */
async function openOrEmpty(options: RepositoryOptions): Promise<Store> {
  try {
    return await options.open();
  } catch (error) {
    if (!options.openWriter || !isCacheportError(error, "LOCATION_NOT_FOUND")) throw error;
    return new EmptyStore(options.location);
  }
}

/** A store that has nothing. */
class EmptyStore implements Store {
  readonly location: string;

  constructor(location: string) {
    this.location = location;
  }

  list = async (): Promise<NamedEntry[]> => [];
  stat = async (): Promise<undefined> => undefined;
  locate = async (): Promise<undefined> => undefined;
  close = async (): Promise<void> => {};

  resolve = (): Promise<never> => Promise.reject(this.#nothing("NAME_NOT_FOUND"));
  read = (): Promise<never> => Promise.reject(this.#nothing("BLOB_MISSING"));
  open = (): Promise<never> => Promise.reject(this.#nothing("BLOB_MISSING"));

  #nothing(code: "NAME_NOT_FOUND" | "BLOB_MISSING"): CacheportError {
    return new CacheportError(
      code,
      `Cannot find anything in "${this.location}": nothing is there yet`,
    );
  }
}

/** The digest of a manifest that a client sends, in the algorithm of the digest that it is sent under. */
export function manifestDigest(bytes: Uint8Array, reference: string): Digest {
  return digestOf(bytes, reference.startsWith("sha512:") ? "sha512" : "sha256");
}
