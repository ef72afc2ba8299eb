/** Blobs of a far location in a folder, so that they are fetched once. */
import type { BlobLocation, ContentReader, Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "./layout-directory.ts";
import type { BlobCache } from "./serve-repository.ts";

/** A layout folder whose index names nothing: blobs that were checked when they came. */
export class FolderCache implements BlobCache {
  readonly #store: Store;
  readonly #writer: LayoutDirectoryWriter;
  readonly #underWay = new Map<Digest, Promise<BlobLocation>>();

  private constructor(store: Store, writer: LayoutDirectoryWriter) {
    this.#store = store;
    this.#writer = writer;
  }

  /**
   * Opens the folder, or makes it.
   *
   * @throws {CacheportError} LAYOUT_INVALID, PERMISSION_DENIED, NO_SPACE
   */
  static async open(path: string): Promise<FolderCache> {
    const writer = await LayoutDirectoryWriter.open(path, { create: true });
    await writer.publish([]);
    return new FolderCache(await LayoutDirectory.open(path), writer);
  }

  /** Several requests for one blob wait for one fetch. */
  async fetch(descriptor: Descriptor, from: ContentReader): Promise<BlobLocation> {
    const { digest } = descriptor;
    const running = this.#underWay.get(digest);
    if (running) return running;
    const run = this.#fetch(descriptor, from).finally(() => this.#underWay.delete(digest));
    this.#underWay.set(digest, run);
    return run;
  }

  async #fetch(descriptor: Descriptor, from: ContentReader): Promise<BlobLocation> {
    await this.#writer.put(descriptor, { store: from });
    // Small blobs wait for each other until something is published.
    await this.#writer.publish([]);
    return (await this.#store.locate(descriptor)) as BlobLocation;
  }

  async close(): Promise<void> {
    await this.#writer.close();
    await this.#store.close();
  }
}
