/**
 * Amazon S3 and what speaks its protocol.
 *
 * Source: BuildKit cache/remotecache/s3/s3.go for keys and for what an export does;
 * Amazon S3 API reference for the requests.
 */
import { Gate } from "./concurrency.ts";
import type { BlobSource, PutOptions } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestAlgorithm, digestHex, isDigest, sizeMismatch } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { readFault } from "./object-errors.ts";
import { objectInfo, openedObject } from "./object-http.ts";
import type { S3Options } from "./object-options.ts";
import type {
  BlobList,
  LifecycleRule,
  ObjectInfo,
  ObjectName,
  ObjectService,
  ObjectSettings,
  OpenObject,
  StoredDocument,
} from "./object-service.ts";
import { S3Client } from "./object-s3-client.ts";
import { escapeKey, sha256, UNSIGNED_PAYLOAD } from "./object-sigv4.ts";
import { uploadVerified } from "./object-upload.ts";
import type { PartedUpload } from "./object-upload.ts";
import { escapeXml, xmlElements, xmlText } from "./object-xml.ts";

/** Bytes up to which one request copies an object on the server, and of a part beyond. */
const COPY_SIZE = 5 * 1024 ** 3;

/** A cache in a bucket. */
export class S3Service implements ObjectService {
  readonly kind = "s3";
  readonly location: string;
  readonly touchRefresh: number;
  readonly readsAllNames = false;
  readonly prefixes: { readonly blobs: string; readonly names: string };
  readonly #options: S3Options;
  readonly #limit: number;
  readonly #client: S3Client;
  readonly #gate: Gate | undefined;

  constructor(options: S3Options, settings: ObjectSettings) {
    this.#options = options;
    this.#gate = options.uploads === undefined ? undefined : new Gate(options.uploads);
    this.#limit = settings.limits.config;
    this.location = options.location;
    this.touchRefresh = options.touchRefresh;
    this.prefixes = { blobs: options.blobs, names: options.manifests };
    this.#client = new S3Client(options, settings);
  }

  async prepare(): Promise<void> {}

  async has(digest: Digest, signal?: AbortSignal): Promise<ObjectInfo | undefined> {
    const reply = await this.#client.request({
      method: "HEAD",
      key: this.#blobKey(digest),
      signal,
    });
    if (reply.status === 404) return undefined;
    if (reply.status === 200) return objectInfo(reply.headers);
    throw this.#client.refusal(reply, {
      action: `Cannot look for blob "${digest}" in "${this.location}"`,
    });
  }

  async open(digest: Digest, from: number, signal?: AbortSignal): Promise<OpenObject> {
    const headers: Record<string, string> = {};
    if (from > 0) headers["range"] = `bytes=${from}-`;
    const key = this.#blobKey(digest);
    const reply = await this.#client.send({ method: "GET", key, headers, signal });
    if ("stream" in reply) return openedObject(reply, from);
    throw this.#client.refusal(reply, {
      action: `Cannot read blob "${digest}" of "${this.location}"`,
      missing: "BLOB_MISSING",
    });
  }

  async write(
    blob: Descriptor,
    source: BlobSource,
    options: PutOptions & { replace: boolean },
  ): Promise<void> {
    const key = this.#blobKey(blob.digest);
    const action = `Cannot write blob "${blob.digest}" to "${this.location}"`;
    const { signal } = options;
    // The server checks the whole against its digest as well, where that is a SHA-256.
    const payload =
      digestAlgorithm(blob.digest) === "sha256" ? digestHex(blob.digest) : UNSIGNED_PAYLOAD;
    const leave = await this.#gate?.enter();
    await uploadVerified(
      blob,
      source,
      {
        maxParts: 10_000,
        single: async (body) => {
          const reply = await this.#client.request({ method: "PUT", key, body, payload, signal });
          if (reply.status !== 200) throw this.#client.refusal(reply, { action });
        },
        begin: async () => {
          const upload = await this.#beginParts(key, action, signal);
          return {
            ...upload,
            complete: async (size) => {
              await upload.complete(size);
              const stored = await this.has(blob.digest, signal);
              if (stored?.size !== blob.size) throw sizeMismatch(blob, stored?.size ?? 0);
            },
          };
        },
      },
      options,
    ).finally(leave);
  }

  async copyFrom(other: ObjectService, blob: Descriptor, signal?: AbortSignal): Promise<boolean> {
    if (!(other instanceof S3Service) || !this.#isBeside(other)) return false;
    const there = await other.has(blob.digest, signal);
    if (there?.size !== blob.size) throw missingOrCut(other, blob, there);
    return await this.#copy(other, blob, {}, signal);
  }

  async touch(blob: Descriptor, signal?: AbortSignal): Promise<void> {
    // BuildKit's own sign that a blob was refreshed; without a change S3 refuses the copy.
    await this.#copy(
      this,
      blob,
      {
        "x-amz-metadata-directive": "REPLACE",
        "x-amz-meta-updated-at": new Date(this.#client.now()).toISOString(),
      },
      signal,
    );
  }

  async blobs(most = Number.POSITIVE_INFINITY): Promise<BlobList | undefined> {
    const blobs = new Map<Digest, ObjectInfo>();
    const prefix = this.#options.blobs;
    let complete = true;
    for await (const page of this.#client.list(`${prefix}sha`)) {
      if (page === undefined) return undefined;
      for (const { key, info } of page) {
        const digest = key.slice(prefix.length);
        if (isDigest(digest)) blobs.set(digest, info);
      }
      complete = blobs.size < most;
      if (!complete) break;
    }
    return { blobs, complete, now: this.#client.now() };
  }

  async remove(digest: Digest): Promise<void> {
    await this.#delete(this.#blobKey(digest), `blob "${digest}"`);
  }

  async names(): Promise<ObjectName[] | undefined> {
    const names: ObjectName[] = [];
    const { manifests, blobs } = this.#options;
    for await (const page of this.#client.list(manifests)) {
      if (page === undefined) return undefined;
      for (const { key, info } of page) {
        // One prefix may serve for both, or lie within the other.
        const isBlob = isDigest(key.slice(key.lastIndexOf("sha")));
        if (isBlob && (key.startsWith(blobs) || isDigest(key.slice(manifests.length)))) continue;
        names.push({ name: key.slice(manifests.length), ...info });
      }
    }
    return names;
  }

  async documents(name: string): Promise<StoredDocument[]> {
    const key = this.#options.manifests + name;
    const reply = await this.#client.request({ method: "GET", key }, this.#limit);
    if (reply.status === 200) return [{ name, bytes: reply.body }];
    const { code } = readFault(reply);
    if (reply.status === 404 && code !== "NoSuchBucket") return [];
    throw this.#client.refusal(reply, {
      action: `Cannot read cache "${name}" of "${this.location}"`,
    });
  }

  async writeDocument(name: string, bytes: Uint8Array): Promise<void> {
    const key = this.#options.manifests + name;
    const reply = await this.#client.request({
      method: "PUT",
      key,
      body: bytes,
      payload: sha256(bytes),
    });
    if (reply.status === 200) return;
    throw this.#client.refusal(reply, {
      action: `Cannot write cache "${name}" to "${this.location}"`,
    });
  }

  async removeDocument(name: string): Promise<void> {
    await this.#delete(this.#options.manifests + name, `cache "${name}"`);
  }

  async lifecycle(): Promise<LifecycleRule[] | undefined> {
    const reply = await this.#client.request({ method: "GET", query: { lifecycle: "" } });
    if (reply.status === 404) return [];
    if (reply.status !== 200) return undefined;
    return xmlElements(reply.body, "Rule").flatMap((rule) => {
      const [expiration = ""] = xmlElements(rule, "Expiration");
      const days = Number(xmlText(expiration, "Days"));
      if (xmlText(rule, "Status") !== "Enabled" || !(days > 0)) return [];
      return [{ prefix: xmlText(rule, "Prefix") ?? "", days }];
    });
  }

  close(): void {
    this.#client.close();
  }

  #blobKey(digest: Digest): string {
    return this.#options.blobs + digest;
  }

  /** True when both are buckets of one server that the same credentials reach. */
  #isBeside(other: S3Service): boolean {
    const [own, others] = [this.#options, other.#options];
    return (
      own.endpoint?.href === others.endpoint?.href &&
      own.keys?.accessKeyId === others.keys?.accessKeyId
    );
  }

  async #copy(
    from: S3Service,
    blob: Descriptor,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const key = this.#blobKey(blob.digest);
    const source = `/${from.#options.bucket}/${escapeKey(from.#blobKey(blob.digest))}`;
    const action = `Cannot copy blob "${blob.digest}" to "${this.location}"`;
    if (blob.size > COPY_SIZE) {
      await this.#copyParts(key, source, blob.size, action, signal);
      return true;
    }
    const reply = await this.#client.request({
      method: "PUT",
      key,
      headers: { ...headers, "x-amz-copy-source": source },
      signal,
    });
    // A copy may fail after its answer has begun.
    if (reply.status === 200 && !xmlText(reply.body, "Code")) return true;
    // The rights for one bucket may not reach to the other.
    if (from !== this && (reply.status === 403 || reply.status === 501)) return false;
    throw this.#client.refusal(reply, { action });
  }

  async #copyParts(
    key: string,
    source: string,
    size: number,
    action: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const upload = await this.#beginParts(key, action, signal);
    try {
      for (let index = 0; index * COPY_SIZE < size; index++) {
        const start = index * COPY_SIZE;
        const end = Math.min(start + COPY_SIZE, size) - 1;
        await upload.send(index, undefined, {
          "x-amz-copy-source": source,
          "x-amz-copy-source-range": `bytes=${start}-${end}`,
        });
      }
      await upload.complete();
    } catch (error) {
      await upload.abort().catch(() => {});
      throw error;
    }
  }

  async #beginParts(key: string, action: string, signal: AbortSignal | undefined) {
    const begun = await this.#client.request({
      method: "POST",
      key,
      query: { uploads: "" },
      signal,
    });
    const uploadId = xmlText(begun.body, "UploadId");
    if (begun.status !== 200 || !uploadId) throw this.#client.refusal(begun, { action });
    const tags: string[] = [];
    const send = async (
      index: number,
      body: Uint8Array | undefined,
      headers: Readonly<Record<string, string>> = {},
    ): Promise<void> => {
      const query = { partNumber: String(index + 1), uploadId };
      const reply = await this.#client.request({
        method: "PUT",
        key,
        query,
        headers,
        ...(body && { body, payload: this.#client.payload(body) }),
        signal,
      });
      const tag = reply.headers.get("etag") ?? xmlText(reply.body, "ETag");
      if (reply.status !== 200 || !tag) throw this.#client.refusal(reply, { action });
      tags[index] = tag;
    };
    const upload: PartedUpload & { send: typeof send; complete(size?: number): Promise<void> } = {
      send,
      part: (index, _offset, bytes) => send(index, bytes),
      complete: async () => {
        const parts = tags.map(
          (tag, index) =>
            `<Part><PartNumber>${index + 1}</PartNumber><ETag>${escapeXml(tag)}</ETag></Part>`,
        );
        const xml = `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts.join("")}</CompleteMultipartUpload>`;
        const body = new TextEncoder().encode(xml);
        const payload = sha256(body);
        const reply = await this.#client.request({
          method: "POST",
          key,
          query: { uploadId },
          body,
          payload,
          signal,
        });
        if (reply.status !== 200 || xmlText(reply.body, "Code"))
          throw this.#client.refusal(reply, { action });
      },
      abort: async () =>
        void (await this.#client.request({
          method: "DELETE",
          key,
          query: { uploadId },
          cleanup: true,
        })),
    };
    return upload;
  }

  async #delete(key: string, what: string): Promise<void> {
    const reply = await this.#client.request({ method: "DELETE", key });
    if (reply.status < 300 || reply.status === 404) return;
    throw this.#client.refusal(reply, { action: `Cannot remove ${what} from "${this.location}"` });
  }
}

/** The error for a blob that is to be copied and is not there in its right size. */
function missingOrCut(
  { location }: ObjectService,
  blob: Descriptor,
  there: ObjectInfo | undefined,
): CacheportError {
  if (there) return sizeMismatch(blob, there.size);
  return new CacheportError(
    "BLOB_MISSING",
    `Cannot read blob "${blob.digest}" of "${location}": it is not there`,
  );
}
