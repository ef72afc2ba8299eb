/**
 * An object store as a place for content and names, like a layout or a registry: its
 * documents show as the manifests and configs that BuildKit would have exported
 * elsewhere, and what is written becomes the document that it would have stored.
 */
import { decompressStream } from "./blob-compression.ts";
import { readWhole, verifiedStream } from "./blob-check.ts";
import { parseCacheConfig } from "./cache-config.ts";
import { parseCacheManifest } from "./document.ts";
import { mapLimit } from "./concurrency.ts";
import type {
  BlobLocation,
  BlobSource,
  ContentWriter,
  EntryName,
  NamedEntry,
  NameQuery,
  NameRemoval,
  NameUpdate,
  NameWriter,
  PutOptions,
  PutOutcome,
  Resolved,
  Root,
  Store,
} from "./content-store.ts";
import { namedRoot } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent, createHasher, digestOf } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { UNKNOWN_TYPE } from "./document.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { encodeImageIndex } from "./image-index.ts";
import { CACHE_CONFIG, isDocumentType, OCI_INDEX, OCI_MANIFEST } from "./media-types.ts";
import { KnownBlobs } from "./object-blobs.ts";
import { deriveCache, encodeObjectDocument, isSameLayers, plainDiffId } from "./object-document.ts";
import type { DerivedCache, NamedCache } from "./object-document.ts";
import { openDownload } from "./object-download.ts";
import { unreachedBlobs } from "./object-gc.ts";
import { DEFAULT_NAME, nameAttribute, splitNames } from "./object-place.ts";
import type { ObjectPlace } from "./object-place.ts";
import type { ObjectInfo, ObjectService, ObjectSettings } from "./object-service.ts";

export type { NamedCache } from "./object-document.ts";
export type { BlobList, LifecycleRule, ObjectName, ObjectSettings } from "./object-service.ts";

/** What a document that cannot be read stands for: its error, whenever it is asked for. */
type Held = { readonly bytes: Uint8Array } | { readonly error: CacheportError };

/** An object store, for reading and for writing. */
export class ObjectStore implements Store, ContentWriter, NameWriter {
  readonly wantsConfig = true;
  readonly service: ObjectService;
  readonly #place: ObjectPlace;
  readonly #settings: ObjectSettings;
  /** Manifests, configs and indexes that were derived or are on their way. */
  readonly #documents = new Map<Digest, Held>();
  /** By the digests of their manifests and of their configs. */
  readonly #caches = new Map<Digest, DerivedCache>();
  /** By the digests of the manifests that stand for them. */
  readonly #stored = new Map<Digest, Uint8Array>();
  /** Where blobs of which no diffID is known came from. */
  readonly #sources = new Map<Digest, BlobSource>();
  readonly #known: KnownBlobs;
  #prepared: Promise<void> | undefined;

  /** @param service The store itself, for tests; otherwise see {@link open}. */
  constructor(service: ObjectService, place: ObjectPlace, settings: ObjectSettings) {
    this.service = service;
    this.#known = new KnownBlobs(service);
    this.#place = place;
    this.#settings = settings;
  }

  /**
   * Opens an object store; it is not asked before there is something to ask.
   *
   * @throws {CacheportError} USAGE when the place is not told in full
   */
  static async open(place: ObjectPlace, settings: ObjectSettings): Promise<ObjectStore> {
    return new ObjectStore(await openService(place, settings), place, settings);
  }

  get location(): string {
    return this.service.location;
  }

  async stat(descriptor: Descriptor): Promise<number | undefined> {
    const held = this.#documents.get(descriptor.digest);
    if (held) return descriptor.size;
    return (await this.#known.find(descriptor.digest, { sure: true }))?.size;
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    const { digest } = descriptor;
    if (isDerived(descriptor) && !this.#documents.has(digest)) await this.caches();
    const held = this.#documents.get(digest);
    if (!held) {
      const stream = await openDownload(this.service, descriptor, this.#settings.signal);
      const what = `blob "${digest}"`;
      return await readWhole(verifiedStream(stream, descriptor), limit, what);
    }
    if ("error" in held) throw held.error;
    // Its size was bounded when it was read.
    checkContent(held.bytes, descriptor);
    return held.bytes;
  }

  async open(descriptor: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    if (isDerived(descriptor) || this.#documents.has(descriptor.digest)) {
      const bytes = await this.read(descriptor, Number.POSITIVE_INFINITY);
      return new Blob([bytes as Uint8Array<ArrayBuffer>]).stream();
    }
    return await openDownload(this.service, descriptor, signal);
  }

  async locate(): Promise<BlobLocation | undefined> {
    return undefined;
  }

  /** The document behind a manifest that was derived, as it is stored; of several the nearest. */
  async stored(descriptor: Descriptor): Promise<Uint8Array | undefined> {
    return this.#stored.get(descriptor.digest);
  }

  async list(): Promise<NamedEntry[]> {
    return (await this.caches()).map(({ name, descriptor }) => ({ refName: name, descriptor }));
  }

  async unreached(): Promise<Descriptor[] | undefined> {
    const blobs = await unreachedBlobs(this, await this.caches());
    return blobs?.map(({ digest, size }) => ({ mediaType: UNKNOWN_TYPE, digest, size }));
  }

  /**
   * Reads all caches that have a name.
   *
   * @throws {CacheportError} LOCATION_NOT_FOUND, STORE_DENIED, STORE_FAILED
   */
  async caches(): Promise<NamedCache[]> {
    const names = (await this.service.names())?.map(({ name }) => name) ?? this.#ownNames();
    const found = await mapLimit(names, this.#settings.jobs, (name) => this.#load(name));
    return found.flat();
  }

  /** Reads the caches that some names stand for. @throws {CacheportError} NAME_NOT_FOUND for none */
  async cachesOf(names: readonly string[]): Promise<NamedCache[]> {
    const found = await mapLimit(names, this.#settings.jobs, (name) => this.#load(name));
    if (found.flat().length === 0) throw await this.#noName(names.join(";"));
    return found.flat();
  }

  /** The names that a text stands for when it is read. */
  namesIn(text: string): string[] {
    const names = splitNames(this.service.kind, text);
    return this.service.readsAllNames ? names : names.slice(0, 1);
  }

  async resolve({ name, digest }: NameQuery): Promise<Resolved> {
    if (digest !== undefined) return await this.#resolveDigest(digest);
    const names = this.namesIn(name ?? DEFAULT_NAME);
    const descriptor = this.#combine(await this.cachesOf(names));
    const own = names.length === 1 ? names[0] : undefined;
    return { descriptor, entry: own === undefined ? undefined : { refName: own, descriptor } };
  }

  async put(
    descriptor: Descriptor,
    source: BlobSource,
    options: PutOptions = {},
  ): Promise<PutOutcome> {
    const { digest, mediaType, size } = descriptor;
    if (isDocumentType(mediaType) || mediaType === CACHE_CONFIG) {
      await this.#hold(descriptor, source);
      return "copied";
    }
    if (mediaType.endsWith("+json")) throw this.#noCache(digest);
    if (descriptor.annotations?.["containerd.io/uncompressed"] === undefined)
      this.#sources.set(digest, source);
    await this.#prepare();
    const there = await this.#known
      .find(digest, { signal: options.signal })
      .catch((error: unknown) => {
        // Without the right to list, a store does not say whether something is there.
        if (isCacheportError(error, "STORE_DENIED")) return undefined;
        throw error;
      });
    if (there?.size === size) {
      await this.#refresh(descriptor, there, options.signal);
      return "skipped";
    }
    const origin =
      "store" in source && source.store instanceof ObjectStore ? source.store : undefined;
    if (origin && (await this.service.copyFrom(origin.service, descriptor, options.signal))) {
      options.onBytes?.(size);
    } else {
      await this.service.write(descriptor, source, { ...options, replace: there !== undefined });
    }
    this.#known.add(digest, { size });
    return "copied";
  }

  async publish(roots: readonly Root[], options: PutOptions = {}): Promise<void> {
    await this.#prepare();
    for (const { descriptor, bytes, names } of roots) {
      options.signal?.throwIfAborted();
      checkContent(bytes, descriptor);
      const document = await this.#documentOf(descriptor, bytes);
      for (const update of names) {
        const name = await this.#nameOf(update);
        await this.service.writeDocument(name, document);
        this.#derive(name, document);
      }
    }
  }

  /** Gives a cache further names. @throws {CacheportError} as {@link publish} */
  async setNames(
    descriptor: Descriptor,
    names: readonly EntryName[],
    read: () => Promise<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    await this.publish([await namedRoot(descriptor, names, read)], options);
  }

  /**
   * Removes a name; blobs stay.
   *
   * @returns False when there was none.
   * @throws {CacheportError} NOT_SUPPORTED, STORE_DENIED, STORE_FAILED
   */
  async removeName({ name, entries }: NameRemoval): Promise<boolean> {
    const names = entries.map(({ refName }) => refName ?? name);
    for (const each of new Set(names)) await this.service.removeDocument(each);
    return names.length > 0;
  }

  async close(): Promise<void> {
    this.service.close();
  }

  /** The names that the place itself speaks of. */
  #ownNames(): string[] {
    const { kind, attributes } = this.#place;
    return splitNames(kind, attributes.get(nameAttribute(kind)) ?? DEFAULT_NAME);
  }

  async #load(name: string): Promise<NamedCache[]> {
    const documents = await this.service.documents(name);
    return documents.map(({ bytes }) => this.#derive(name, bytes));
  }

  /** Reads a document; one that cannot be read stands for its error. */
  #derive(name: string, stored: Uint8Array): NamedCache {
    try {
      const cache = deriveCache(stored, `cache "${name}" of "${this.location}"`);
      const { manifest, config } = cache;
      this.#caches.set(manifest.descriptor.digest, cache);
      this.#caches.set(config.descriptor.digest, cache);
      this.#documents.set(manifest.descriptor.digest, manifest);
      this.#stored.set(manifest.descriptor.digest, stored);
      this.#documents.set(config.descriptor.digest, config);
      return { name, stored, cache, descriptor: manifest.descriptor };
    } catch (error) {
      if (!isCacheportError(error)) throw error;
      const descriptor = {
        mediaType: OCI_MANIFEST,
        digest: digestOf(stored),
        size: stored.length,
      };
      this.#documents.set(descriptor.digest, { error });
      this.#stored.set(descriptor.digest, stored);
      return { name, stored, cache: undefined, descriptor, error };
    }
  }

  /** One cache as it is, or an index of several, which are read as one. */
  #combine(caches: readonly NamedCache[]): Descriptor {
    const distinct = new Map(caches.map(({ descriptor }) => [descriptor.digest, descriptor]));
    const [only] = distinct.values();
    if (only && distinct.size === 1) return only;
    const bytes = encodeImageIndex({ mediaType: OCI_INDEX, manifests: [...distinct.values()] });
    const descriptor = { mediaType: OCI_INDEX, digest: digestOf(bytes), size: bytes.length };
    this.#documents.set(descriptor.digest, { bytes });
    if (caches[0]) this.#stored.set(descriptor.digest, caches[0].stored);
    return descriptor;
  }

  async #resolveDigest(digest: Digest): Promise<Resolved> {
    const info = await this.service.has(digest);
    if (info) {
      const descriptor = { mediaType: UNKNOWN_TYPE, digest, size: info.size };
      return { descriptor, entry: undefined };
    }
    for (const { name, cache, descriptor } of await this.caches()) {
      if (descriptor.digest === digest) return { descriptor, entry: { refName: name, descriptor } };
      const config = cache?.config.descriptor;
      if (config?.digest === digest) return { descriptor: config, entry: undefined };
    }
    throw new CacheportError(
      "BLOB_NOT_FOUND",
      `Cannot find blob "${digest}" in "${this.location}"`,
    );
  }

  async #noName(name: string): Promise<CacheportError> {
    const names = (await this.service.names()) ?? [];
    const shown = names.slice(0, 20).map((one) => one.name);
    return new CacheportError(
      "NAME_NOT_FOUND",
      `Cannot find ${nameAttribute(this.service.kind)} "${name}" in "${this.location}"`,
      {
        hint:
          shown.length > 0
            ? `The names there are: ${shown.join(", ")}${names.length > shown.length ? ", ..." : ""}`
            : "No cache is there; check the prefixes, which are taken as they are, without a slash between them",
      },
    );
  }

  /** Makes a blob young that the store's rules might soon remove. */
  async #refresh(
    descriptor: Descriptor,
    { modified }: ObjectInfo,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { touchRefresh } = this.service;
    if (touchRefresh === undefined || modified === undefined) return;
    if (Date.now() - modified > touchRefresh) await this.service.touch(descriptor, signal);
  }

  #prepare(): Promise<void> {
    this.#prepared ??= this.service.prepare();
    return this.#prepared;
  }

  /** Keeps a document until it is published. */
  async #hold(descriptor: Descriptor, source: BlobSource): Promise<void> {
    const bytes =
      "bytes" in source
        ? source.bytes
        : await source.store.read(descriptor, this.#settings.limits.config);
    checkContent(bytes, descriptor);
    this.#documents.set(descriptor.digest, { bytes });
    if (!("store" in source) || !(source.store instanceof ObjectStore)) return;
    const cache = source.store.#caches.get(descriptor.digest);
    if (cache) this.#caches.set(descriptor.digest, cache);
  }

  /** The document to store for a manifest: that of the store it came from, or a new one. */
  async #documentOf(root: Descriptor, bytes: Uint8Array): Promise<Uint8Array> {
    const manifest = parseCacheManifest(bytes, `manifest "${root.digest}"`);
    if (!manifest) throw this.#noCache(root.digest);
    const { config, layers } = manifest;
    if (!this.#documents.has(config.digest)) await this.caches();
    const original = this.#caches.get(config.digest);
    if (original && isSameLayers(original.layers, layers)) return original.stored;
    const configBytes = await this.read(config, this.#settings.limits.config);
    const parsed = parseCacheConfig(configBytes, `cache config "${config.digest}"`);
    const document = await encodeObjectDocument(parsed, layers, (layer) => this.#diffId(layer));
    for (const digest of document.dropped)
      this.#settings.note?.(
        `The results that need ${digest} are left out: nothing says what it is, and BuildKit would refuse the whole cache`,
      );
    return document.bytes;
  }

  /** Unpacks a layer of which nobody says the diffID. */
  async #diffId(layer: Descriptor): Promise<Digest | undefined> {
    const plain = plainDiffId(layer);
    if (plain !== undefined) return plain;
    const source = this.#sources.get(layer.digest);
    const store = source && "store" in source ? source.store : this;
    const { signal } = this.#settings;
    const hasher = createHasher();
    try {
      const packed = verifiedStream(await store.open(layer, signal), layer);
      const what = `layer "${layer.digest}"`;
      for await (const chunk of decompressStream(packed, undefined, what)) hasher.update(chunk);
    } catch (error) {
      if (isCacheportError(error, "BLOB_MISSING", "COMPRESSION_INVALID")) return undefined;
      throw error;
    }
    return hasher.digest();
  }

  /** @throws {CacheportError} USAGE for no name, NAME_CHANGED */
  async #nameOf(update: NameUpdate): Promise<string> {
    const entry = update.kind === "set" ? update.name : undefined;
    if (update.kind === "replace") {
      const name = update.entry.refName ?? DEFAULT_NAME;
      const now = await this.resolve({ name }).catch(() => undefined);
      if (now?.descriptor.digest === update.entry.descriptor.digest) return name;
      throw new CacheportError(
        "NAME_CHANGED",
        `Cannot replace "${name}" in "${this.location}": it stands for something else meanwhile`,
        { hint: "Run the command again to work on what is there now" },
      );
    }
    const name = entry?.refName ?? entry?.imageName;
    if (name !== undefined) return name;
    throw new CacheportError(
      "USAGE",
      `Cannot write to "${this.location}" without a name: an object store has nothing else`,
      { hint: `Add ${nameAttribute(this.service.kind)}=NAME` },
    );
  }

  #noCache(digest: Digest): CacheportError {
    return new CacheportError(
      "NOT_A_CACHE",
      `Cannot write to "${this.location}": ${digest} is no build cache, and an object store holds nothing else`,
      {
        hint: { do: "convert-inline-cache" },
      },
    );
  }
}

/** Tells whether a descriptor is of what is derived and not stored. */
function isDerived({ mediaType }: Descriptor): boolean {
  return mediaType === CACHE_CONFIG || isDocumentType(mediaType);
}

async function openService(place: ObjectPlace, settings: ObjectSettings): Promise<ObjectService> {
  const options = await import("./object-options.ts");
  const { env } = settings;
  if (place.kind === "s3") {
    const { S3Service } = await import("./object-s3.ts");
    return new S3Service(options.readS3Options(place, env), settings);
  }
  if (place.kind === "azblob") {
    const { AzureService } = await import("./object-azure.ts");
    return new AzureService(options.readAzureOptions(place, env), settings);
  }
  const { GithubService } = await import("./object-github.ts");
  return new GithubService(options.readGithubOptions(place, env), settings);
}
