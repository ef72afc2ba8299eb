/**
 * A repository of a registry as a place for content and names.
 *
 * Source: OCI distribution-spec 1.1.
 */
import type {
  BlobLocation,
  BlobSource,
  ConditionalNamer,
  ContentWriter,
  ManifestDeleter,
  ReferrerLister,
  EntryName,
  NamedEntry,
  NameQuery,
  NameRemoval,
  NameWriter,
  PutOptions,
  PutOutcome,
  Resolved,
  Root,
  Store,
} from "./content-store.ts";
import { namedRoot } from "./content-store.ts";
import { embeddedContent, embeddedStream, isDocument } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import type { ErrorCode } from "./errors.ts";
import type { NormalizedReference } from "./reference.ts";
import { deleteManifest, deleteTag } from "./registry-delete.ts";
import type { TagDeletion } from "./registry-delete.ts";
import { openDownload, saveDownload } from "./registry-download.ts";
import type { DownloadOptions } from "./registry-download.ts";
import { StoreFeed, bytesFeed, fileFeed } from "./registry-body.ts";
import type { BlobFeed } from "./registry-body.ts";
import { hostGate } from "./registry-limits.ts";
import { isStored, storedSize } from "./registry-presence.ts";
import { publishIfAbsent, publishRoot, putDocument } from "./registry-publish.ts";
import { listReferrers } from "./registry-referrers.ts";
import { RepositoryClient } from "./registry-client.ts";
import { DocumentCache, describeTags, headTag, resolveName, tagOf } from "./registry-names.ts";
import type { FetchedDocument } from "./registry-names.ts";
import { listTags } from "./registry-tags.ts";
import type { Reply, TransportOptions } from "./registry-transport.ts";
import { uploadBlob } from "./registry-upload.ts";

/** How a repository is opened. */
export interface RegistryOptions extends TransportOptions {
  limits: DocumentLimits;
  /** Bytes of a piece, where a registry wants uploads in pieces; 32 MiB. */
  chunkSize?: number | undefined;
  /** Content that the registry says it has is not uploaded only when a byte of it can be read. */
  checkTarget?: boolean | undefined;
}

const CHUNK_SIZE = 32 * 1024 * 1024;
/** Blobs up to this many bytes are read whole and checked before they are sent. */
const SMALL_BLOB = 1024 * 1024;

/** A repository of a registry, for reading and for writing. */
export class RegistryRepository
  implements Store, ContentWriter, NameWriter, ConditionalNamer, ManifestDeleter, ReferrerLister
{
  readonly location: string;
  readonly #client: RepositoryClient;
  readonly #options: RegistryOptions;
  readonly #documents = new DocumentCache();

  private constructor(reference: NormalizedReference, options: RegistryOptions) {
    this.#client = new RepositoryClient(reference, options);
    this.#options = options;
    this.location = this.#client.location;
  }

  /** Opens a repository; the registry is not asked before there is something to ask. */
  static open(reference: NormalizedReference, options: RegistryOptions): RegistryRepository {
    return new RegistryRepository(reference, options);
  }

  async stat(descriptor: Descriptor): Promise<number | undefined> {
    const size = await storedSize(this.#client, descriptor);
    return size ?? embeddedContent(descriptor)?.length;
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    checkDocumentSize(descriptor.size, limit, `blob "${descriptor.digest}"`);
    const known = this.#documents.get(descriptor.digest);
    if (known) {
      checkContent(known, descriptor);
      return known;
    }
    let refused: Reply | undefined;
    for (const call of this.#client.content("GET", descriptor)) {
      const reply = await this.#client.transport.request(call, limit);
      if (reply.status === 200) {
        checkContent(reply.body, descriptor);
        this.#documents.set(descriptor.digest, reply.body);
        return reply.body;
      }
      refused ??= reply;
      if (reply.status !== 404) break;
    }
    const refusal = await this.#readRefusal(descriptor, refused as Reply);
    const embedded = refusal.code === "BLOB_MISSING" && embeddedContent(descriptor);
    if (embedded) return embedded;
    throw refusal;
  }

  async open(descriptor: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const known = this.#documents.get(descriptor.digest);
    if (known) return new Blob([known as Uint8Array<ArrayBuffer>]).stream();
    try {
      return await this.#download(descriptor, true, signal);
    } catch (error) {
      const embedded = isCacheportError(error, "BLOB_MISSING") && embeddedStream(descriptor);
      if (embedded) return embedded;
      throw error;
    }
  }

  async save(
    descriptor: Descriptor,
    fd: number,
    reached: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    const how = this.#downloadOptions(descriptor, true, signal);
    await saveDownload(this.#client.transport, descriptor, how, fd, reached);
  }

  #download(
    descriptor: Descriptor,
    gated: boolean,
    signal: AbortSignal | undefined,
  ): Promise<ReadableStream<Uint8Array>> {
    const how = this.#downloadOptions(descriptor, gated, signal);
    return openDownload(this.#client.transport, descriptor, how);
  }

  #downloadOptions(
    descriptor: Descriptor,
    gated: boolean,
    signal: AbortSignal | undefined,
  ): DownloadOptions {
    return {
      calls: this.#client.content("GET", descriptor, "pull", signal),
      gated,
      refuse: (reply) => this.#readRefusal(descriptor, reply),
      unreadable: (reason) =>
        unreadable(`Cannot read blob "${descriptor.digest}" of "${this.location}": ${reason}`),
    };
  }

  async #readRefusal(descriptor: Descriptor, reply: Reply): Promise<CacheportError> {
    const missing: ErrorCode = "BLOB_MISSING";
    const action = `Cannot read blob "${descriptor.digest}" of "${this.location}"`;
    const error = await this.#client.refusal(action, reply, { missing });
    // The registry is there; it is this blob that it fails at.
    return reply.status === 500 ? unreadable(error.message) : error;
  }

  async locate(): Promise<BlobLocation | undefined> {
    return undefined;
  }

  async list(): Promise<NamedEntry[]> {
    const tags = await this.listNames();
    const { jobs, limits } = this.#options;
    return await describeTags(this.#client, tags, { limit: limits.manifest, jobs }, this.#keep);
  }

  /**
   * All tags of the repository, in the registry's order.
   *
   * @throws {CacheportError} LOCATION_NOT_FOUND, REGISTRY_DENIED, REGISTRY_FAILED
   */
  async listNames(): Promise<string[]> {
    return await listTags(this.#client);
  }

  async resolve(query: NameQuery): Promise<Resolved> {
    const { manifest } = this.#options.limits;
    return await resolveName(this.#client, query, manifest, this.#keep);
  }

  async meaning(name: string): Promise<Digest | undefined> {
    return (await headTag(this.#client, tagOf(this.#client, name)))?.digest;
  }

  /** Keeps a document whose bytes were checked for a second look. */
  readonly #keep = ({ descriptor, bytes }: FetchedDocument): void =>
    this.#documents.set(descriptor.digest, bytes);

  async put(
    descriptor: Descriptor,
    source: BlobSource,
    options: PutOptions = {},
  ): Promise<PutOutcome> {
    const { signal } = options;
    if ("bytes" in source) checkContent(source.bytes, descriptor);
    const proved = this.#options.checkTarget ?? false;
    if (await isStored(this.#client, descriptor, { proved, signal })) return "skipped";
    if (isDocument(descriptor)) {
      const bytes =
        "bytes" in source
          ? source.bytes
          : await source.store.read(descriptor, this.#options.limits.manifest);
      await putDocument(this.#client, descriptor.digest, descriptor, bytes, signal);
      options.onBytes?.(bytes.length);
      return "copied";
    }
    return await this.#upload(descriptor, source, options);
  }

  async #upload(
    descriptor: Descriptor,
    source: BlobSource,
    { signal, onBytes, isLive = false }: PutOptions,
  ): Promise<PutOutcome> {
    const { transport, path } = this.#client;
    const store = "store" in source ? source.store : undefined;
    const origin = store instanceof RegistryRepository ? store : undefined;
    const sibling =
      origin && origin.#client.transport.domain === transport.domain ? origin : undefined;
    const from = sibling && sibling.#client.path;
    return await uploadBlob(transport, descriptor, {
      path,
      mountFrom: from === path ? undefined : from,
      chunkSize: this.#options.chunkSize ?? CHUNK_SIZE,
      signal,
      onBytes,
      openFeed: () => openFeed(descriptor, source, { sibling, signal, isLive }),
      enter: () => {
        // A blob that comes from the same host takes two requests at once.
        if (sibling) return transport.gate.enter(2);
        // Behind another store may stand this very host, whose gate must not be
        // waited for while a place in it is held.
        const relayed = store !== undefined && origin === undefined;
        return relayed
          ? hostGate(`relay ${transport.domain}`, this.#options.jobs).enter()
          : transport.gate.enter();
      },
      begun: () => {
        this.#client.exists = true;
      },
      refuse: (reply) =>
        this.#client.refusal(
          `Cannot write blob "${descriptor.digest}" to "${this.location}"`,
          reply,
        ),
    });
  }

  async publish(roots: readonly Root[], options: PutOptions = {}): Promise<void> {
    for (const root of roots) {
      checkContent(root.bytes, root.descriptor);
      await publishRoot(this.#client, root, options.signal);
    }
  }

  /**
   * Names a document that the repository has, unless the tag is there.
   *
   * @returns What the tag stands for when it was there, else undefined.
   * @throws {CacheportError} REFERENCE_INVALID, REGISTRY_REJECTED, REGISTRY_DENIED, ...
   */
  async publishIfAbsent(
    root: Pick<Root, "descriptor" | "bytes">,
    name: string,
    signal?: AbortSignal,
  ): Promise<Descriptor | undefined> {
    checkContent(root.bytes, root.descriptor);
    return await publishIfAbsent(this.#client, root, tagOf(this.#client, name), signal);
  }

  /**
   * What refers to a manifest: signatures, SBOMs, attestations.
   *
   * @throws {CacheportError} REGISTRY_DENIED, REGISTRY_FAILED, DOCUMENT_INVALID
   */
  async listReferrers(subject: Digest): Promise<Descriptor[]> {
    return await listReferrers(this.#client, subject);
  }

  /**
   * Deletes a manifest with all tags that stand for it.
   *
   * @throws {CacheportError} BLOB_NOT_FOUND, REGISTRY_UNSUPPORTED, REGISTRY_DENIED, REGISTRY_FAILED
   */
  async deleteManifest(digest: Digest): Promise<void> {
    await deleteManifest(this.#client, digest, this.#options.limits.manifest);
    this.#documents.delete(digest);
  }

  /**
   * Deletes one tag and nothing that anything else in the repository names.
   *
   * @throws {CacheportError} NAME_NOT_FOUND, NAME_CHANGED, REGISTRY_UNSUPPORTED, REGISTRY_DENIED, ...
   */
  async deleteTag(name: string): Promise<TagDeletion> {
    const { limits, jobs } = this.#options;
    return await deleteTag(this.#client, tagOf(this.#client, name), {
      limit: limits.manifest,
      jobs,
      write: async (descriptor, bytes, tag) => {
        if (tag === undefined) await this.put(descriptor, { bytes });
        else await putDocument(this.#client, tag, descriptor, bytes);
      },
    });
  }

  /** Gives tags; a registry takes one with the document alone. */
  async setNames(
    descriptor: Descriptor,
    names: readonly EntryName[],
    read: () => Promise<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    await this.publish([await namedRoot(descriptor, names, read)], options);
  }

  /** Deletes a tag, as {@link RegistryRepository.deleteTag}. */
  async removeName({ name }: NameRemoval): Promise<boolean> {
    await this.deleteTag(name);
    return true;
  }

  async close(): Promise<void> {
    this.#documents.clear();
    this.#client.transport.close();
  }

  /** Opens the blob outside of the gate, for a caller that holds places in it. */
  static openUngated(
    repository: RegistryRepository,
    descriptor: Descriptor,
    signal: AbortSignal | undefined,
  ): Promise<ReadableStream<Uint8Array>> {
    return repository.#download(descriptor, false, signal);
  }
}

function unreadable(message: string): CacheportError {
  return new CacheportError("BLOB_UNREADABLE", message, {
    hint: { do: "push-again" },
  });
}

/** Makes a blob ready to be sent, in the way that costs least. */
async function openFeed(
  descriptor: Descriptor,
  source: BlobSource,
  how: {
    sibling: RegistryRepository | undefined;
    signal: AbortSignal | undefined;
    isLive: boolean;
  },
): Promise<BlobFeed> {
  const { sibling, signal, isLive } = how;
  if ("bytes" in source) return bytesFeed(source.bytes);
  const { store } = source;
  if (descriptor.size <= SMALL_BLOB) return bytesFeed(await store.read(descriptor, SMALL_BLOB));
  const file = await store.locate(descriptor);
  if (file) return fileFeed(descriptor, file, isLive);
  return new StoreFeed(descriptor, () =>
    sibling
      ? RegistryRepository.openUngated(sibling, descriptor, signal)
      : store.open(descriptor, signal),
  );
}
