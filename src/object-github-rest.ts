/**
 * What GitHub's REST API says of caches: which there are, how large and how old, and
 * their removal. It never gives content.
 *
 * Source: GitHub REST API, "Actions cache".
 */
import * as v from "valibot";
import type { CacheportError } from "./errors.ts";
import { refusal } from "./object-errors.ts";
import { readJson } from "./object-github-client.ts";
import { ObjectHttp } from "./object-http.ts";
import type { ObjectReply } from "./object-http.ts";
import type { ObjectSettings } from "./object-service.ts";
import { escapeUri } from "./object-sigv4.ts";

/** An entry as the API lists it. */
export interface ListedEntry {
  readonly id: number;
  readonly key: string;
  readonly ref: string;
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly created: number;
  /** When it was read last, in milliseconds since 1970. */
  readonly used: number;
}

/** Whose caches are meant, and who asks. */
export interface RestOptions {
  readonly location: string;
  /** `OWNER/NAME` */
  readonly repository: string;
  readonly ghtoken: string;
}

const PAGE = 100;
const ListSchema = v.looseObject({
  total_count: v.number(),
  actions_caches: v.array(
    v.looseObject({
      id: v.number(),
      key: v.string(),
      ref: v.string(),
      size_in_bytes: v.number(),
      created_at: v.string(),
      last_accessed_at: v.string(),
    }),
  ),
});

/** Lists and removes entries of one repository. */
export class GithubRest {
  readonly #options: RestOptions;
  readonly #http: ObjectHttp;
  readonly #base: string;

  constructor(options: RestOptions, settings: ObjectSettings) {
    this.#options = options;
    // A workflow on another server of GitHub is told its address.
    const api = settings.env["GITHUB_API_URL"] || "https://api.github.com";
    const repository = options.repository.split("/").map(escapeUri).join("/");
    this.#base = `${api.replace(/\/$/, "")}/repos/${repository}/actions/caches`;
    this.#http = new ObjectHttp({
      ...settings,
      server: `GitHub at "${URL.parse(api)?.host}"`,
      sign: async () => ({
        accept: "application/vnd.github+json",
        authorization: `Bearer ${options.ghtoken}`,
        "user-agent": "cacheport",
        "x-github-api-version": "2022-11-28",
      }),
    });
  }

  /**
   * All entries whose keys start so.
   *
   * @throws {CacheportError} STORE_DENIED, STORE_FAILED
   */
  async list(prefix: string): Promise<ListedEntry[]> {
    const entries: ListedEntry[] = [];
    for (let page = 1; ; page++) {
      const query = `key=${escapeUri(prefix)}&per_page=${PAGE}&page=${page}`;
      const url = new URL(`${this.#base}?${query}`);
      const reply = await this.#http.request({ method: "GET", url });
      const list = reply.status === 200 ? readJson(ListSchema, reply) : undefined;
      if (!list) throw this.#refusal(reply, "list");
      for (const one of list.actions_caches) {
        const { id, key, ref, size_in_bytes: size } = one;
        const created = Date.parse(one.created_at);
        entries.push({ id, key, ref, size, created, used: Date.parse(one.last_accessed_at) });
      }
      if (list.actions_caches.length < PAGE) return entries;
    }
  }

  /**
   * Removes the entries of a ref whose keys start so.
   *
   * @throws {CacheportError} STORE_DENIED, STORE_FAILED
   */
  async remove(prefix: string, ref: string): Promise<void> {
    for (const entry of await this.list(prefix)) {
      if (entry.ref !== ref || !entry.key.startsWith(prefix)) continue;
      const url = new URL(`${this.#base}/${entry.id}`);
      const reply = await this.#http.request({ method: "DELETE", url });
      if (reply.status >= 300 && reply.status !== 404) throw this.#refusal(reply, "remove");
    }
  }

  close(): void {
    this.#http.close();
  }

  #refusal(reply: ObjectReply, verb: string): CacheportError {
    return refusal(reply, {
      action: `Cannot ${verb} entries of "${this.#options.location}"`,
      hint: "Check repository= and ghtoken=: listing needs actions: read, removing actions: write",
    });
  }
}
