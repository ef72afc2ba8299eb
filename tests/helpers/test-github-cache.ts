/**
 * GitHub's cache service in memory for tests, both versions and the REST API, with faults
 * on demand. Entries are never changed, look-ups are by prefix with the newest first.
 */

/** One entry, reserved or finished. */
export interface TestEntry {
  id: number;
  key: string;
  version: string;
  done: boolean;
  bytes: Uint8Array;
  parts: Map<string, Uint8Array>;
  created: number;
}

/** A request as it came. */
export interface SeenGithub {
  method: string;
  path: string;
  authorization: string | null;
  body: Uint8Array;
}

const REF = "refs/heads/main";

/** A token for some refs, as a workflow's step has one. */
export function githubToken(
  scopes: readonly (readonly [ref: string, permission: number])[] = [[REF, 3]],
  exp = 4_102_444_800,
): string {
  const ac = JSON.stringify(scopes.map(([Scope, Permission]) => ({ Scope, Permission })));
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "none" })}.${part({ ac, nbf: 1_500_000_000, exp })}.c2ln`;
}

/** A running service. */
export class TestGithub {
  readonly entries: TestEntry[] = [];
  readonly seen: SeenGithub[] = [];
  fault: ((seen: SeenGithub) => Response | undefined) | undefined;
  readonly #server: Bun.Server<undefined>;
  #next = 1;

  constructor() {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      maxRequestBodySize: 1024 ** 4,
      fetch: (request) => this.#answer(request),
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}/`;
  }

  /** The attributes of a cache in it. */
  location(version: 1 | 2, scope: string, token = githubToken()): string {
    return `type=gha,version=${version},${version === 2 ? "url_v2" : "url"}=${this.url},token=${token},scope=${scope}`;
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  /** The keys that are finished. */
  keys(): string[] {
    return this.entries.filter(({ done }) => done).map(({ key }) => key);
  }

  add(key: string, bytes: Uint8Array | string, done = true): TestEntry {
    const version = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2";
    const entry = {
      id: this.#next++,
      key,
      version,
      done,
      bytes: Buffer.from(bytes),
      parts: new Map(),
      created: Date.now(),
    };
    this.entries.push(entry);
    return entry;
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const body = new Uint8Array(await request.arrayBuffer());
    const path = decodeURIComponent(url.pathname) + decodeURIComponent(url.search);
    const seen = {
      method: request.method,
      path,
      authorization: request.headers.get("authorization"),
      body,
    };
    this.seen.push(seen);
    const fault = this.fault?.(seen);
    if (fault) return fault;
    const blob = /^\/blob\/(\d+)/.exec(url.pathname)?.[1];
    if (blob !== undefined) return this.#blob(request, url, Number(blob), body);
    if (url.pathname.startsWith("/api/repos/")) return this.#rest(request, url);
    if (!seen.authorization?.startsWith("Bearer "))
      return Response.json({ message: "no token" }, { status: 401 });
    const json = () => JSON.parse(new TextDecoder().decode(body) || "{}");
    const second = /CacheService\/(\w+)$/.exec(url.pathname)?.[1];
    return second === undefined
      ? this.#first(request, url, json, body)
      : this.#second(second, json());
  }

  #find(prefixes: readonly string[], version: string): TestEntry | undefined {
    for (const prefix of prefixes) {
      const [found] = this.entries
        .filter((entry) => entry.done && entry.version === version && entry.key.startsWith(prefix))
        .toSorted((a, b) => Number(b.key === prefix) - Number(a.key === prefix) || b.id - a.id);
      if (found) return found;
    }
    return undefined;
  }

  #reserve({ key, version }: { key: string; version: string }): TestEntry | undefined {
    if (this.entries.some((entry) => entry.key === key && entry.version === version))
      return undefined;
    const entry = this.add(key, "", false);
    entry.version = version;
    return entry;
  }

  #first(request: Request, url: URL, json: () => any, body: Uint8Array): Response {
    if (url.pathname.endsWith("/cache")) {
      const keys = (url.searchParams.get("keys") ?? "").split(",");
      const found = this.#find(keys, url.searchParams.get("version") ?? "");
      return found
        ? Response.json({
            cacheKey: found.key,
            scope: REF,
            archiveLocation: `${this.url}blob/${found.id}?sig=hush`,
          })
        : new Response(null, { status: 204 });
    }
    if (url.pathname.endsWith("/caches")) {
      const entry = this.#reserve(json());
      return entry
        ? Response.json({ cacheId: entry.id }, { status: 201 })
        : Response.json(
            { typeKey: "ArtifactCacheItemAlreadyExistsException", message: "exists" },
            { status: 409 },
          );
    }
    const entry = this.entries.find(({ id }) => id === Number(url.pathname.split("/").at(-1)));
    if (!entry) return Response.json({ message: "no such entry" }, { status: 404 });
    if (request.method === "PATCH") {
      const [, start = "0"] = /bytes (\d+)-/.exec(request.headers.get("content-range") ?? "") ?? [];
      entry.parts.set(start.padStart(15, "0"), body);
      return new Response(null, { status: 204 });
    }
    return this.#commit(entry, [...entry.parts.keys()].toSorted(), json().size)
      ? new Response(null, { status: 204 })
      : Response.json({ message: "another size" }, { status: 400 });
  }

  #second(method: string, request: any): Response {
    if (method === "GetCacheEntryDownloadURL") {
      const found = this.#find([request.key, ...(request.restore_keys ?? [])], request.version);
      return Response.json({
        ok: found !== undefined,
        signed_download_url: found ? `${this.url}blob/${found.id}?sig=hush` : "",
        matched_key: found?.key ?? "",
      });
    }
    if (method === "CreateCacheEntry") {
      const entry = this.#reserve(request);
      return entry
        ? Response.json({ ok: true, signed_upload_url: `${this.url}blob/${entry.id}?sig=hush` })
        : Response.json({ code: "already_exists", msg: "exists" }, { status: 409 });
    }
    const entry = this.entries.find(({ key, done }) => key === request.key && !done);
    if (!entry) return Response.json({ code: "not_found" }, { status: 404 });
    entry.done = entry.bytes.length === Number(request.size_bytes);
    return Response.json({ ok: entry.done, entry_id: String(entry.id) });
  }

  #commit(entry: TestEntry, order: readonly string[], size: number): boolean {
    entry.bytes = Buffer.concat(order.map((name) => entry.parts.get(name) ?? new Uint8Array()));
    entry.done = entry.bytes.length === size;
    return entry.done;
  }

  /** What stands behind the addresses: as Azure, without a check of signatures. */
  #blob(request: Request, url: URL, id: number, body: Uint8Array): Response {
    const entry = this.entries.find((one) => one.id === id);
    if (!entry) return new Response(null, { status: 404 });
    if (request.method === "PUT") {
      const comp = url.searchParams.get("comp");
      if (comp === "block") entry.parts.set(url.searchParams.get("blockid") ?? "", body);
      else if (comp === "blocklist") {
        const ids = [...new TextDecoder().decode(body).matchAll(/<Latest>([^<]*)</g)].map(
          ([, one = ""]) => one,
        );
        entry.bytes = Buffer.concat(ids.map((one) => entry.parts.get(one) ?? new Uint8Array()));
      } else entry.bytes = body;
      return new Response(null, { status: 201 });
    }
    const [, from, to] = /^bytes=(\d+)-(\d*)/.exec(request.headers.get("range") ?? "") ?? [];
    if (from === undefined) return new Response(entry.bytes as Uint8Array<ArrayBuffer>);
    const part = entry.bytes.subarray(Number(from), to ? Number(to) + 1 : undefined);
    return new Response(part as Uint8Array<ArrayBuffer>, {
      status: 206,
      headers: {
        "content-range": `bytes ${from}-${Number(from) + part.length - 1}/${entry.bytes.length}`,
      },
    });
  }

  #rest(request: Request, url: URL): Response {
    if (request.method === "DELETE") {
      const at = this.entries.findIndex(({ id }) => id === Number(url.pathname.split("/").at(-1)));
      if (at === -1) return Response.json({ message: "Not Found" }, { status: 404 });
      this.entries.splice(at, 1);
      return new Response(null, { status: 204 });
    }
    const prefix = url.searchParams.get("key") ?? "";
    const page = Number(url.searchParams.get("page") ?? 1);
    const found = this.entries.filter(({ key, done }) => done && key.startsWith(prefix));
    const time = (entry: TestEntry): string => new Date(entry.created).toISOString();
    return Response.json({
      total_count: found.length,
      actions_caches: found.slice((page - 1) * 100, page * 100).map((entry) => ({
        id: entry.id,
        ref: REF,
        key: entry.key,
        version: entry.version,
        size_in_bytes: entry.bytes.length,
        created_at: time(entry),
        last_accessed_at: time(entry),
      })),
    });
  }
}
