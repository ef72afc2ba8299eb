/**
 * GitHub's cache service in both versions: entries that are looked up by the start of
 * their key, reserved, uploaded and committed, and never changed again.
 *
 * Source: tonistiigi/go-actions-cache (api.md, cache.go, cache_v2.go), as BuildKit uses it.
 */
import * as v from "valibot";
import type { CacheportError } from "./errors.ts";
import { azureUpload } from "./object-azure-upload.ts";
import { readFault, refusal } from "./object-errors.ts";
import { ObjectHttp } from "./object-http.ts";
import type { ObjectReply } from "./object-http.ts";
import type { GithubOptions } from "./object-options.ts";
import type { ObjectSettings } from "./object-service.ts";
import { escapeUri } from "./object-sigv4.ts";
import type { PartedUpload, UploadTarget } from "./object-upload.ts";

/** The `version` of every entry: the SHA-256 of `|go-actionscache-1.0`. */
const ENTRY_VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2";
const V1 = "_apis/artifactcache/";
const V2 = "twirp/github.actions.results.api.v1.CacheService/";

/** An entry that was found. */
export interface FoundEntry {
  readonly key: string;
  /** Where its content is for the next minutes; a secret. */
  readonly url: URL;
}

/** An entry that was reserved and is to be filled. */
export interface ReservedEntry {
  readonly target: UploadTarget;
  /** Makes the entry visible. */
  commit(size: number): Promise<void>;
}

const FoundV1 = v.looseObject({ cacheKey: v.string(), archiveLocation: v.string() });
const FoundV2 = v.looseObject({
  ok: v.optional(v.boolean()),
  signed_download_url: v.nullish(v.string(), ""),
  matched_key: v.nullish(v.string(), ""),
});
const ReservedV1 = v.looseObject({ cacheId: v.union([v.number(), v.string()]) });
const ReservedV2 = v.looseObject({
  ok: v.optional(v.boolean()),
  signed_upload_url: v.nullish(v.string(), ""),
  message: v.nullish(v.string(), ""),
});
const Done = v.looseObject({ ok: v.optional(v.boolean()), message: v.nullish(v.string(), "") });

/** Asks GitHub's cache service. */
export class GithubClient {
  readonly #options: GithubOptions;
  readonly #http: ObjectHttp;
  /** For addresses that carry their own permission: no token goes there. */
  readonly #content: ObjectHttp;

  constructor(options: GithubOptions, settings: ObjectSettings) {
    this.#options = options;
    const accept =
      options.version === 1 ? "application/json;api-version=6.0-preview.1" : "application/json";
    const common = { ...settings, patience: options.timeout };
    this.#http = new ObjectHttp({
      ...common,
      server: `GitHub's cache service at "${options.url.host}"`,
      sign: async ({ headers }) => ({
        accept,
        authorization: `Bearer ${options.token}`,
        ...headers,
      }),
    });
    this.#content = new ObjectHttp({
      ...common,
      server: "the store behind GitHub's cache service",
      sign: async ({ headers }) => ({ "x-ms-version": "2021-12-02", ...headers }),
    });
  }

  /** Milliseconds since 1970 by the server's clock. */
  now(): number {
    return this.#http.now();
  }

  close(): void {
    this.#http.close();
    this.#content.close();
  }

  /**
   * Finds the newest entry whose key starts so.
   *
   * @throws {CacheportError} STORE_DENIED, STORE_FAILED
   */
  async find(prefix: string, signal?: AbortSignal): Promise<FoundEntry | undefined> {
    const action = `Cannot look for entry "${prefix}" of "${this.#options.location}"`;
    if (this.#options.version === 1) {
      const url = this.#url(`${V1}cache`, { keys: prefix, version: ENTRY_VERSION });
      const reply = await this.#http.request({ method: "GET", url, signal });
      if (reply.status === 204) return undefined;
      const found = reply.status === 200 ? readJson(FoundV1, reply) : undefined;
      const location = found && URL.parse(found.archiveLocation);
      if (!found || !location) throw refusal(reply, { action });
      return { key: found.cacheKey, url: location };
    }
    const body = { key: prefix, restore_keys: [prefix], version: ENTRY_VERSION };
    const reply = await this.#call("GetCacheEntryDownloadURL", body, signal);
    // A service that has none may say so either way.
    if (reply.status === 404) return undefined;
    const found = reply.status === 200 ? readJson(FoundV2, reply) : undefined;
    if (!found) throw refusal(reply, { action });
    const location = URL.parse(found.signed_download_url);
    return found.ok && location ? { key: found.matched_key, url: location } : undefined;
  }

  /** Opens the content of an entry, from a place in it or a part of it. */
  async open(url: URL, range: string | undefined, signal?: AbortSignal) {
    const headers: Record<string, string> = range === undefined ? {} : { range };
    return await this.#content.open({ method: "GET", url, headers, signal });
  }

  /** Reads the content of an entry whole. */
  async read(url: URL, limit: number): Promise<ObjectReply> {
    return await this.#content.request({ method: "GET", url }, limit);
  }

  /**
   * Reserves an entry.
   *
   * @returns Undefined when another one has that key, finished or not.
   * @throws {CacheportError} STORE_DENIED, STORE_FAILED
   */
  async reserve(
    key: string,
    action: string,
    signal?: AbortSignal,
  ): Promise<ReservedEntry | undefined> {
    const body = { key, version: ENTRY_VERSION };
    const isFirst = this.#options.version === 1;
    const reply = isFirst
      ? await this.#post(`${V1}caches`, body, signal)
      : await this.#call("CreateCacheEntry", body, signal);
    if (reply.status === 409 || /already_?exists/i.test(readFault(reply).code)) return undefined;
    if (isFirst) {
      const reserved = reply.status < 300 ? readJson(ReservedV1, reply) : undefined;
      if (!reserved) throw refusal(reply, { action });
      return this.#entryV1(String(reserved.cacheId), action, signal);
    }
    const reserved = reply.status === 200 ? readJson(ReservedV2, reply) : undefined;
    const url = URL.parse(reserved?.signed_upload_url ?? "");
    if (!reserved?.ok || !url) throw notDone(reply, reserved?.message, action);
    return this.#entryV2(key, url, action, signal);
  }

  #entryV1(id: string, action: string, signal: AbortSignal | undefined): ReservedEntry {
    const path = `${V1}caches/${escapeUri(id)}`;
    const part: PartedUpload["part"] = async (_index, offset, body) => {
      const headers = {
        "content-type": "application/octet-stream",
        "content-range": `bytes ${offset}-${offset + body.length - 1}/*`,
      };
      const url = this.#url(path);
      const reply = await this.#http.request({ method: "PATCH", url, headers, body, signal });
      if (reply.status >= 300) throw refusal(reply, { action });
    };
    return {
      target: {
        maxParts: 100_000,
        single: async (bytes) => (bytes.length > 0 ? part(0, 0, bytes) : undefined),
        // What is not committed is seen by nobody, and GitHub forgets it.
        begin: async () => ({ part, complete: async () => {}, abort: async () => {} }),
      },
      commit: async (size) => {
        const reply = await this.#post(path, { size }, signal);
        if (reply.status >= 300) throw refusal(reply, { action });
      },
    };
  }

  #entryV2(
    key: string,
    signed: URL,
    action: string,
    signal: AbortSignal | undefined,
  ): ReservedEntry {
    return {
      target: azureUpload({
        ask: async ({ method, query, headers, body }) => {
          const url = new URL(signed);
          for (const [name, value] of Object.entries(query ?? {}))
            url.searchParams.set(name, value);
          return await this.#content.request({ method, url, headers, body, signal });
        },
        refuse: (reply) => refusal(reply, { action }),
        onlyNew: false,
      }),
      commit: async (size) => {
        const body = { key, version: ENTRY_VERSION, size_bytes: size };
        const reply = await this.#call("FinalizeCacheEntryUpload", body, signal);
        const done = reply.status === 200 ? readJson(Done, reply) : undefined;
        if (!done?.ok) throw notDone(reply, done?.message, action);
      },
    };
  }

  #call(method: string, body: object, signal: AbortSignal | undefined): Promise<ObjectReply> {
    return this.#post(V2 + method, body, signal);
  }

  async #post(path: string, body: object, signal: AbortSignal | undefined): Promise<ObjectReply> {
    return await this.#http.request({
      method: "POST",
      url: this.#url(path),
      headers: { "content-type": "application/json" },
      body: new TextEncoder().encode(JSON.stringify(body)),
      signal,
    });
  }

  #url(path: string, query: Readonly<Record<string, string>> = {}): URL {
    const url = new URL(this.#options.url.pathname + path, this.#options.url);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url;
  }
}

/** Reads an answer; undefined for what has another form. */
export function readJson<T extends v.GenericSchema>(
  schema: T,
  reply: Pick<ObjectReply, "body">,
): v.InferOutput<T> | undefined {
  try {
    const parsed = v.safeParse(schema, JSON.parse(new TextDecoder().decode(reply.body)));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** An answer that says "no" with the status of a success. */
function notDone(
  reply: ObjectReply,
  message: string | null | undefined,
  action: string,
): CacheportError {
  const body = new TextEncoder().encode(JSON.stringify({ message: message || "it was not done" }));
  return refusal(reply.status === 200 ? { ...reply, body } : reply, {
    action,
    hint: /denied/.test(message ?? "")
      ? "The token of this event may only read: caches are written by pushes and by pull requests of the repository itself"
      : undefined,
  });
}
