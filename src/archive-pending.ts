/** Reads content that was put into a writer but is not written yet. */
import type { BlobLocation, ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import type { ArchiveBlob } from "./archive-plan.ts";

/** What was put, and behind it what the archive holds that is being changed. */
export class PutReader implements ContentReader {
  readonly location: string;
  readonly #blobs: ReadonlyMap<Digest, ArchiveBlob>;
  readonly #old: ContentReader | undefined;

  constructor(
    location: string,
    blobs: ReadonlyMap<Digest, ArchiveBlob>,
    old: ContentReader | undefined,
  ) {
    this.location = location;
    this.#blobs = blobs;
    this.#old = old;
  }

  async stat(descriptor: Descriptor): Promise<number | undefined> {
    const found = this.#find(descriptor);
    if (found && "bytes" in found) return found.bytes.length;
    return found?.store.stat(descriptor);
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    const found = this.#require(descriptor);
    if ("store" in found) return found.store.read(descriptor, limit);
    checkDocumentSize(found.bytes.length, limit, `blob "${descriptor.digest}"`);
    checkContent(found.bytes, descriptor);
    return found.bytes;
  }

  async open(descriptor: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const found = this.#require(descriptor);
    if ("store" in found) return found.store.open(descriptor, signal);
    return new Blob([found.bytes as Uint8Array<ArrayBuffer>]).stream();
  }

  async locate(descriptor: Descriptor): Promise<BlobLocation | undefined> {
    const found = this.#find(descriptor);
    return found && "store" in found ? found.store.locate(descriptor) : undefined;
  }

  #find({ digest }: Descriptor) {
    const put = this.#blobs.get(digest)?.source;
    return put ?? (this.#old && { store: this.#old });
  }

  #require(descriptor: Descriptor) {
    const found = this.#find(descriptor);
    if (found) return found;
    throw new CacheportError(
      "BLOB_MISSING",
      `Cannot find blob "${descriptor.digest}" in "${this.location}": it was not put there`,
    );
  }
}
