/** Documents that were read from a registry and are kept for a second look. */
import type { Digest } from "./digest.ts";

/** Bytes of all kept documents together. */
const CAPACITY = 16 * 1024 * 1024;

/** A bounded cache of documents by digest; the one that was asked for longest ago goes first. */
export class DocumentCache {
  readonly #documents = new Map<Digest, Uint8Array>();
  #size = 0;

  get(digest: Digest): Uint8Array | undefined {
    const bytes = this.#documents.get(digest);
    if (!bytes) return undefined;
    this.#documents.delete(digest);
    this.#documents.set(digest, bytes);
    return bytes;
  }

  /** Keeps a document whose digest has been checked. */
  set(digest: Digest, bytes: Uint8Array): void {
    if (bytes.length > CAPACITY / 2 || this.#documents.has(digest)) return;
    this.#documents.set(digest, bytes);
    this.#size += bytes.length;
    for (const [oldest, old] of this.#documents) {
      if (this.#size <= CAPACITY) break;
      this.#documents.delete(oldest);
      this.#size -= old.length;
    }
  }

  delete(digest: Digest): void {
    this.#size -= this.#documents.get(digest)?.length ?? 0;
    this.#documents.delete(digest);
  }

  clear(): void {
    this.#documents.clear();
    this.#size = 0;
  }
}
