/**
 * What clients have pushed and no name reaches yet: blobs and manifests in a temporary
 * folder, whole and checked, until a tag comes that needs them.
 */
import { open, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { readChunks } from "./blob-check.ts";
import type { BlobLocation, ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { createHasher, digestAlgorithm } from "./digest.ts";
import type { Digest, Hasher } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import { CacheportError, systemError } from "./errors.ts";
import { writeAll } from "./layout-durable.ts";
import type { RunFolder } from "./layout-work.ts";

/** Uploads that are open at once; what is begun beyond is refused. */
const MAX_UPLOADS = 256;

/** Milliseconds after which an upload that nobody goes on with is given up. */
const UPLOAD_LIFETIME = 3_600_000;

/** Milliseconds for which a blob that no manifest has named is kept. */
const BLOB_LIFETIME = 24 * 3_600_000;

/** A blob on its way in. */
export interface Upload {
  readonly id: string;
  readonly path: string;
  /** Bytes so far. */
  size: number;
  hasher: Hasher;
  file: FileHandle;
  /** When it last moved. */
  touched: number;
  /** A request is writing to it. */
  isBusy: boolean;
}

interface PendingBlob {
  path: string;
  size: number;
  /** Of a manifest. */
  mediaType?: string | undefined;
  since: number;
}

/** Pushed content that waits for a name. */
export class PendingContent implements ContentReader {
  readonly location = "what was pushed";
  readonly #folder: RunFolder;
  readonly #uploads = new Map<string, Upload>();
  readonly #blobs = new Map<Digest, PendingBlob>();

  constructor(folder: RunFolder) {
    this.#folder = folder;
  }

  /** @throws {CacheportError} NO_SPACE, IO_FAILED; REGISTRY_FAILED with too many open uploads */
  async begin(): Promise<Upload> {
    await this.#giveUpOld();
    if (this.#uploads.size >= MAX_UPLOADS)
      throw new CacheportError(
        "REGISTRY_FAILED",
        `Cannot begin an upload: ${MAX_UPLOADS} are open already`,
      );
    const path = this.#folder.temporaryPath();
    const file = await open(path, "wx", 0o600);
    const upload: Upload = {
      id: crypto.randomUUID(),
      path,
      size: 0,
      hasher: createHasher("sha256"),
      file,
      touched: Date.now(),
      isBusy: false,
    };
    this.#uploads.set(upload.id, upload);
    return upload;
  }

  upload(id: string): Upload | undefined {
    return this.#uploads.get(id);
  }

  /** Adds bytes to an upload. One that breaks off keeps what has come. */
  async append(upload: Upload, body: ReadableStream<Uint8Array>): Promise<void> {
    upload.isBusy = true;
    try {
      for await (const chunk of body) {
        upload.touched = Date.now();
        await writeAll(upload.file, chunk);
        upload.hasher.update(chunk);
        upload.size += chunk.length;
      }
    } catch (error) {
      throw systemError("Cannot take what is uploaded", error);
    } finally {
      upload.isBusy = false;
    }
  }

  /**
   * Ends an upload: it becomes content if it has the digest.
   *
   * @throws {CacheportError} DIGEST_MISMATCH
   */
  async finish(upload: Upload, digest: Digest): Promise<void> {
    this.#uploads.delete(upload.id);
    try {
      const actual =
        digestAlgorithm(digest) === "sha256"
          ? upload.hasher.digest()
          : await hashAgain(upload, digest);
      if (actual !== digest)
        throw new CacheportError(
          "DIGEST_MISMATCH",
          `Cannot take blob "${digest}": what was uploaded is ${actual}`,
        );
    } catch (error) {
      await upload.file.close();
      await unlink(upload.path);
      throw error;
    }
    await upload.file.close();
    if (this.#blobs.has(digest)) await unlink(upload.path);
    else this.#blobs.set(digest, { path: upload.path, size: upload.size, since: Date.now() });
  }

  /** Gives an upload up. */
  async cancel(upload: Upload): Promise<void> {
    this.#uploads.delete(upload.id);
    await upload.file.close().catch(() => {});
    await unlink(upload.path).catch(() => {});
  }

  /** Keeps a manifest that came without a tag. */
  async keepManifest({ mediaType, digest }: Descriptor, bytes: Uint8Array): Promise<void> {
    const path = this.#folder.temporaryPath();
    await Bun.write(path, bytes);
    this.#blobs.set(digest, { path, size: bytes.length, mediaType, since: Date.now() });
  }

  has(digest: Digest): boolean {
    return this.#blobs.has(digest);
  }

  /** The descriptor of a manifest that waits here, or undefined. */
  manifest(digest: Digest): Descriptor | undefined {
    const found = this.#blobs.get(digest);
    return found?.mediaType === undefined
      ? undefined
      : { mediaType: found.mediaType, digest, size: found.size };
  }

  /** All manifests that wait here, the oldest first. */
  manifests(): Descriptor[] {
    return [...this.#blobs.keys()].flatMap((digest) => this.manifest(digest) ?? []);
  }

  /** Forgets content that has found its place. */
  async drop(digest: Digest): Promise<void> {
    const found = this.#blobs.get(digest);
    this.#blobs.delete(digest);
    // Its writer may have moved the file away.
    if (found) await unlink(found.path).catch(() => {});
  }

  async stat({ digest }: Descriptor): Promise<number | undefined> {
    return this.#blobs.get(digest)?.size;
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    checkDocumentSize(descriptor.size, limit, `manifest "${descriptor.digest}"`);
    return new Uint8Array(await Bun.file(this.#find(descriptor).path).arrayBuffer());
  }

  async open(descriptor: Descriptor): Promise<ReadableStream<Uint8Array>> {
    return Bun.file(this.#find(descriptor).path).stream();
  }

  async locate(descriptor: Descriptor): Promise<BlobLocation | undefined> {
    const { path, size } = this.#find(descriptor);
    return { path, offset: 0, size, disposable: false };
  }

  #find({ digest }: Descriptor): PendingBlob {
    const found = this.#blobs.get(digest);
    if (found) return found;
    throw new CacheportError("BLOB_MISSING", `Cannot find "${digest}": it was not pushed`);
  }

  async #giveUpOld(): Promise<void> {
    const now = Date.now();
    for (const upload of this.#uploads.values())
      if (!upload.isBusy && now - upload.touched > UPLOAD_LIFETIME) await this.cancel(upload);
    for (const [digest, { since, mediaType }] of this.#blobs)
      if (mediaType === undefined && now - since > BLOB_LIFETIME) await this.drop(digest);
  }
}

/** A digest of another algorithm than the one that was reckoned on the way. */
async function hashAgain(upload: Upload, digest: Digest): Promise<Digest> {
  const hasher = createHasher(digestAlgorithm(digest));
  for await (const chunk of readChunks(Bun.file(upload.path).stream())) hasher.update(chunk);
  return hasher.digest();
}
