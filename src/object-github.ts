/**
 * GitHub's cache service, as BuildKit keeps caches in it: one entry for each blob, and
 * for each name and ref a row of entries of which the newest counts.
 *
 * Source: BuildKit cache/remotecache/gha/gha.go; tonistiigi/go-actions-cache cache.go
 * (SaveMutable).
 */
import type { BlobSource, PutOptions } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError, interrupted } from "./errors.ts";
import { refusal } from "./object-errors.ts";
import { GithubClient } from "./object-github-client.ts";
import type { FoundEntry } from "./object-github-client.ts";
import { GithubRest } from "./object-github-rest.ts";
import { readToken, refHash } from "./object-github-token.ts";
import type { GithubToken } from "./object-github-token.ts";
import { openedObject } from "./object-http.ts";
import type { GithubOptions } from "./object-options.ts";
import type {
  BlobList,
  ObjectInfo,
  ObjectName,
  ObjectService,
  ObjectSettings,
  OpenObject,
  StoredDocument,
} from "./object-service.ts";
import { uploadVerified } from "./object-upload.ts";
import { pause } from "./registry-limits.ts";

const BLOB = "buildkit-blob-1-";
/** Waits for another writer: as many, each as long as a first pause and longer. */
const WAITS = 8;
const RETRY_DELAY = 500;
/** Addresses that are asked for until one is still good when it is used. */
const ADDRESSES = 3;

/** A cache in GitHub's service. */
export class GithubService implements ObjectService {
  readonly kind = "gha";
  readonly location: string;
  readonly touchRefresh = undefined;
  readonly readsAllNames = true;
  readonly prefixes = { blobs: BLOB, names: "index-" };
  readonly #limit: number;
  readonly #wait: number;
  readonly #signal: AbortSignal | undefined;
  readonly #client: GithubClient;
  readonly #rest: GithubRest | undefined;
  readonly #token: GithubToken;

  /** @throws {CacheportError} USAGE for a token that is none, STORE_DENIED for one that ran out */
  constructor(options: GithubOptions, settings: ObjectSettings) {
    this.location = options.location;
    this.#limit = settings.limits.config;
    this.#wait = settings.retryDelayMs ?? RETRY_DELAY;
    this.#signal = settings.signal;
    this.#token = readToken(options.token, options.location, Date.now());
    this.#client = new GithubClient(options, settings);
    const { repository, ghtoken } = options;
    this.#rest =
      repository && ghtoken
        ? new GithubRest({ location: options.location, repository, ghtoken }, settings)
        : undefined;
  }

  async prepare(): Promise<void> {}

  async has(digest: Digest, signal?: AbortSignal): Promise<ObjectInfo | undefined> {
    const found = await this.#findBlob(digest, signal);
    if (!found) return undefined;
    // The service does not tell the size, the store behind it does with any answer.
    const reply = await this.#client.open(found.url, "bytes=0-0", signal);
    if (reply.status === 416) return { size: 0 };
    if (reply.status === 404) return undefined;
    if (!("stream" in reply))
      throw refusal(reply, { action: `Cannot look for blob "${digest}" in "${this.location}"` });
    reply.abort.abort();
    const { size } = openedObject(reply, 0);
    return size === undefined ? undefined : { size };
  }

  async open(digest: Digest, from: number, signal?: AbortSignal): Promise<OpenObject> {
    const action = `Cannot read blob "${digest}" of "${this.location}"`;
    const missing = new CacheportError("BLOB_MISSING", `${action}: it is not there`, {
      hint: "GitHub removes entries that nothing has used for 7 days, and the oldest beyond 10 GB",
    });
    // An address may have run out between being given and being used.
    for (let attempt = 1; ; attempt++) {
      const found = await this.#findBlob(digest, signal);
      if (!found) throw missing;
      const range = from > 0 ? `bytes=${from}-` : undefined;
      const reply = await this.#client.open(found.url, range, signal);
      if ("stream" in reply) return openedObject(reply, from);
      if (attempt < ADDRESSES && (reply.status === 401 || reply.status === 403)) continue;
      if (reply.status === 404) throw missing;
      throw refusal(reply, { action });
    }
  }

  async write(
    blob: Descriptor,
    source: BlobSource,
    options: PutOptions & { replace: boolean },
  ): Promise<void> {
    const key = BLOB + blob.digest;
    const action = `Cannot write blob "${blob.digest}" to "${this.location}"`;
    if (options.replace) {
      throw new CacheportError(
        "STORE_FAILED",
        `${action}: an entry of that key has other bytes, and entries are never changed`,
        { hint: `Delete it first: gh cache delete ${key}` },
      );
    }
    const { signal } = options;
    const reserved = await this.#client.reserve(key, action, signal);
    if (reserved) {
      await uploadVerified(blob, source, reserved.target, options);
      await reserved.commit(blob.size);
      return;
    }
    // Somebody else is at it. BuildKit takes that for done and leaves a hole when it never is.
    for (let wait = 1; wait <= WAITS; wait++) {
      if ((await this.has(blob.digest, signal))?.size === blob.size) return;
      await this.#pause(wait);
    }
    throw new CacheportError(
      "STORE_FAILED",
      `${action}: another job has reserved its key and does not finish it`,
      {
        hint: "Try again when that job has ended; a key that was given up is free again after 24 hours",
      },
    );
  }

  async copyFrom(): Promise<boolean> {
    return false;
  }

  async touch(): Promise<void> {}

  async blobs(): Promise<BlobList | undefined> {
    const entries = await this.#rest?.list(BLOB);
    if (!entries) return undefined;
    const blobs = new Map<Digest, ObjectInfo>();
    const refs = new Set(this.#token.scopes.map(({ ref }) => ref));
    for (const { key, ref, size, used } of entries) {
      const digest = key.slice(BLOB.length);
      if (isDigest(digest) && refs.has(ref)) blobs.set(digest, { size, modified: used });
    }
    return { blobs, complete: true, now: this.#client.now() };
  }

  async remove(digest: Digest): Promise<void> {
    await this.#needRest(`remove blob "${digest}"`).remove(
      BLOB + digest,
      this.#token.writable ?? "",
    );
  }

  async names(): Promise<ObjectName[] | undefined> {
    const entries = await this.#rest?.list("index-");
    if (!entries) return undefined;
    const hashes = new Set(this.#token.scopes.map(({ ref }) => refHash(ref)));
    const names = new Map<string, ObjectName>();
    for (const { key, size, created } of entries) {
      const [, name, hash] = /^index-(.*)-1-([0-9a-f]{8})(?:-sig)?#\d+$/.exec(key) ?? [];
      if (name === undefined || !hashes.has(hash as string)) continue;
      const known = names.get(name);
      if (!known || (known.modified ?? 0) < created)
        names.set(name, { name, size, modified: created });
    }
    return [...names.values()];
  }

  async documents(name: string): Promise<StoredDocument[]> {
    const documents: StoredDocument[] = [];
    for (const ref of new Set(this.#token.scopes.map((scope) => scope.ref))) {
      const key = indexKey(name, ref);
      const bytes = await this.#readIndex(name, key);
      if (bytes) documents.push({ name, bytes });
    }
    return documents;
  }

  /** Reads the newest entry of an index; undefined for none. */
  async #readIndex(name: string, key: string): Promise<Uint8Array | undefined> {
    for (let attempt = 1; ; attempt++) {
      const found =
        (await this.#client.find(`${key}#`)) ?? (await this.#client.find(`${key}-sig#`));
      if (!found) return undefined;
      const reply = await this.#client.read(found.url, this.#limit);
      if (reply.status === 200) return reply.body;
      if (attempt < ADDRESSES && (reply.status === 401 || reply.status === 403)) continue;
      if (reply.status === 404) return undefined;
      throw refusal(reply, { action: `Cannot read cache "${name}" of "${this.location}"` });
    }
  }

  /** Each version of a document is a new entry; a number that another writer has is passed over in the end. */
  async writeDocument(name: string, bytes: Uint8Array): Promise<void> {
    const action = `Cannot write cache "${name}" to "${this.location}"`;
    const ref = this.#token.writable;
    if (ref === undefined) {
      throw new CacheportError("STORE_DENIED", `${action}: the token permits no writing`, {
        hint: "Caches are written by pushes and by pull requests of the repository itself",
      });
    }
    const key = indexKey(name, ref);
    for (let tries = 1, skip = 0; ; tries++) {
      const newest = await this.#client.find(`${key}#`);
      const number = Number(/#(\d+)$/.exec(newest?.key ?? "")?.[1] ?? 0);
      const reserved = await this.#client.reserve(`${key}#${number + 1 + skip}`, action);
      if (reserved) {
        await reserved.target.single(bytes);
        await reserved.commit(bytes.length);
        return;
      }
      // Either another writer is about to finish it, or it never will.
      if (tries > WAITS) skip++;
      else await this.#pause(tries);
      if (skip > 100)
        throw new CacheportError(
          "STORE_FAILED",
          `${action}: the next 100 numbers are all reserved`,
        );
    }
  }

  async removeDocument(name: string): Promise<void> {
    const ref = this.#token.writable ?? "";
    await this.#needRest(`remove cache "${name}"`).remove(`${indexKey(name, ref)}#`, ref);
  }

  async lifecycle(): Promise<undefined> {
    return undefined;
  }

  close(): void {
    this.#client.close();
    this.#rest?.close();
  }

  async #findBlob(digest: Digest, signal?: AbortSignal): Promise<FoundEntry | undefined> {
    const found = await this.#client.find(BLOB + digest, signal);
    return found?.key === BLOB + digest ? found : undefined;
  }

  #needRest(action: string): GithubRest {
    if (this.#rest) return this.#rest;
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot ${action} from "${this.location}": the cache service itself removes nothing`,
      {
        hint: "Add repository=OWNER/NAME and ghtoken=TOKEN, a token that may write to actions",
      },
    );
  }

  async #pause(attempt: number): Promise<void> {
    await pause(Math.min(attempt, 4) * this.#wait, this.#signal).catch(() => {
      throw interrupted();
    });
  }
}

/** The key of a name's entries without their number. */
function indexKey(name: string, ref: string): string {
  return `index-${name}-1-${refHash(ref)}`;
}
