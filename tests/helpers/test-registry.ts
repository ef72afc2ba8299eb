/**
 * A registry in memory for tests: as the distribution-spec says, or strict, or with
 * a login, with TLS, with the quirks of registries that exist.
 */
import { createHash } from "node:crypto";
import { TestServer, failed, sha256 } from "./test-server.ts";
import type { Answer, SeenRequest } from "./test-server.ts";
import type { TestTokenServer } from "./test-token-server.ts";

export * from "./test-server.ts";
export { TestTokenServer } from "./test-token-server.ts";

/** What kind of registry it is. */
export interface TestRegistryOptions {
  /** Takes an index only when each of its entries is a manifest that it has. */
  strict?: boolean;
  /** Wants this user. */
  basic?: { username: string; password: string };
  /** Wants bearer tokens of this server. */
  bearer?: TestTokenServer;
  tls?: { key: string; cert: string };
  /** Mounts blobs of other repositories; true unless told otherwise. */
  mount?: boolean;
  /** Says that pieces must have so many bytes at least. */
  chunkMinLength?: number;
  /** Tags on one page of the list. */
  pageSize?: number;
  /** Answers 400 to a page of more tags than this. */
  largestPage?: number;
  /** How the next page is named. */
  link?: (target: string) => string;
  /** Takes documents whose blobs it does not have. */
  lenient?: boolean;
  /** The answer to a PATCH that is not the last; ECR: 201. */
  patchStatus?: number;
  /** What the Range of a PATCH's answer says. */
  range?: "short" | "relative" | "off by one" | "partial";
  /** Refuses a PUT with the whole blob, as Artifactory did. */
  patchOnly?: boolean;
  /** What HEAD is answered: a status, or a wrong length. */
  head?: number | "zero" | "wrong";
  /** Blobs that it says it has and cannot give. */
  lost?: Set<string>;
  /** What asking for a lost blob is answered: 404, or a promise of bytes that do not come. */
  lostAs?: "absent" | "promised" | "failed";
  /** Answers 500 where a blob is asked for as a manifest, as docker-registry 2.8. */
  manifestFault?: boolean;
  /** Knows the referrers API. */
  referrers?: boolean;
  /** The digest's algorithm in answers, whatever was asked. */
  canonical?: "sha256";
  /** What deleting a tag or a manifest is answered; it is deleted unless told otherwise. */
  deletion?: { tag?: Answer | undefined; manifest?: Answer | undefined };
}

interface StoredManifest {
  mediaType: string;
  bytes: Uint8Array;
}

class Repository {
  readonly blobs = new Map<string, Uint8Array>();
  readonly manifests = new Map<string, StoredManifest>();
  readonly tags = new Map<string, string>();
}

/** A registry. */
export class TestRegistry extends TestServer {
  readonly repositories = new Map<string, Repository>();
  readonly #options: TestRegistryOptions;
  readonly #uploads = new Map<string, Uint8Array[]>();
  #nextUpload = 0;

  private constructor(options: TestRegistryOptions) {
    super((request) => this.#answer(request), options.tls);
    this.#options = options;
  }

  static async start(options: TestRegistryOptions = {}): Promise<TestRegistry> {
    return await new TestRegistry(options).listen();
  }

  /** A repository, made when it is not there. */
  repository(name: string): Repository {
    const known = this.repositories.get(name);
    if (known) return known;
    const made = new Repository();
    this.repositories.set(name, made);
    return made;
  }

  /** Puts a manifest there and gives its digest. */
  addManifest(
    name: string,
    document: object,
    tag?: string,
    mediaType = (document as { mediaType?: string }).mediaType ?? "",
  ): string {
    const bytes = Buffer.from(JSON.stringify(document));
    const digest = sha256(bytes);
    const repository = this.repository(name);
    repository.manifests.set(digest, { mediaType, bytes });
    if (tag !== undefined) repository.tags.set(tag, digest);
    return digest;
  }

  /** Puts a blob there and gives its digest. */
  addBlob(name: string, bytes: Uint8Array): string {
    const digest = sha256(bytes);
    this.repository(name).blobs.set(digest, bytes);
    return digest;
  }

  #answer(request: SeenRequest): Answer {
    const { pathname, searchParams } = new URL(request.url, "http://x");
    const write = !["GET", "HEAD"].includes(request.method);
    const match = /^\/v2\/(.+)\/(manifests|blobs|tags|referrers)\/(.*)$/.exec(pathname) ?? [];
    const [, name = "", kind = "", rest = ""] = match;
    const upload = /^(.+)\/blobs\/uploads\/(.*)$/.exec(pathname.replace(/^\/v2\//, ""));
    const repository = upload?.[1] ?? name;
    const refusal = this.#authorize(request, repository, write);
    if (refusal) return refusal;
    if (pathname === "/v2/") return { status: 200, body: "{}" };
    if (upload) return this.#upload(request, repository, upload[2] ?? "", searchParams);
    if (!write && !this.repositories.has(name)) return failed(404, "NAME_UNKNOWN");
    const { head } = this.#options;
    if (request.method === "HEAD" && head !== undefined) {
      if (typeof head === "number") return { status: head };
      const answer =
        kind === "blobs" ? this.#blob(request, name, rest) : this.#manifest(request, name, rest);
      return {
        ...answer,
        headers: { ...answer.headers, "content-length": head === "zero" ? "0" : "77" },
      };
    }
    if (kind === "manifests") return this.#manifest(request, name, rest);
    if (kind === "blobs") return this.#blob(request, name, rest);
    if (kind === "tags") return this.#tags(name, searchParams);
    if (kind === "referrers") return this.#referrers(name, rest);
    return failed(404, "NOT_FOUND");
  }

  #authorize({ headers }: SeenRequest, repository: string, write: boolean): Answer | undefined {
    const { basic, bearer } = this.#options;
    if (basic) {
      const good = Buffer.from(`${basic.username}:${basic.password}`).toString("base64");
      if (headers["authorization"] === `Basic ${good}`) return undefined;
      const answer = failed(401, "UNAUTHORIZED");
      answer.headers!["www-authenticate"] = 'Basic realm="test"';
      return answer;
    }
    if (!bearer) return undefined;
    const scope = repository ? `repository:${repository}:${write ? "pull,push" : "pull"}` : "";
    const token = headers["authorization"]?.replace(/^Bearer /, "") ?? "";
    if (bearer.permits(token, repository, write ? "push" : "pull")) return undefined;
    const answer = failed(401, "UNAUTHORIZED", `token ${token} is not good`);
    answer.headers!["www-authenticate"] =
      `Bearer realm="${bearer.origin}/token",service="test"${scope && `,scope="${scope}"`}`;
    return answer;
  }

  #manifest(request: SeenRequest, name: string, reference: string): Answer {
    const repository = this.repository(name);
    const digest = repository.tags.get(reference) ?? reference;
    const found = repository.manifests.get(digest);
    if (request.method === "PUT") return this.#putManifest(request, name, reference);
    const { tag, manifest } = this.#options.deletion ?? {};
    const refusal = reference.includes(":") ? manifest : tag;
    if (request.method === "DELETE" && refusal) return refusal;
    if (!found && this.#options.manifestFault && reference.includes(":"))
      return failed(500, "UNKNOWN", "unknown error");
    if (!found) return failed(404, "MANIFEST_UNKNOWN");
    if (request.method === "DELETE") {
      if (reference.includes(":")) repository.manifests.delete(reference);
      for (const [tag, target] of repository.tags)
        if (tag === reference || target === reference) repository.tags.delete(tag);
      return { status: 202 };
    }
    return {
      status: 200,
      headers: {
        "content-type": found.mediaType,
        "docker-content-digest": digest,
        "content-length": String(found.bytes.length),
      },
      body: found.bytes,
    };
  }

  #putManifest(request: SeenRequest, name: string, reference: string): Answer {
    const repository = this.repository(name);
    const digest = sha256(request.body);
    if (reference.includes(":") && reference !== digest) return failed(400, "DIGEST_INVALID");
    const { lenient } = this.#options;
    const document = JSON.parse(Buffer.from(request.body).toString());
    const mediaType = request.headers["content-type"] ?? "";
    if (document.mediaType && document.mediaType !== mediaType)
      return failed(400, "MANIFEST_INVALID", "content type differs");
    for (const child of document.manifests ?? []) {
      const known = this.#options.strict
        ? repository.manifests.has(child.digest)
        : repository.manifests.has(child.digest) || repository.blobs.has(child.digest);
      if (!known && !lenient)
        return failed(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
    }
    const blobs = [document.config, ...(document.layers ?? [])];
    for (const blob of blobs)
      if (blob && !lenient && !repository.blobs.has(blob.digest))
        return failed(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
    repository.manifests.set(digest, { mediaType, bytes: request.body });
    if (!reference.includes(":")) repository.tags.set(reference, digest);
    const subject = this.#options.referrers ? document.subject?.digest : undefined;
    return {
      status: 201,
      headers: { "docker-content-digest": digest, ...(subject && { "oci-subject": subject }) },
    };
  }

  #referrers(name: string, digest: string): Answer {
    if (!this.#options.referrers) return failed(404, "NOT_FOUND");
    const manifests = [...this.repository(name).manifests].flatMap(
      ([own, { mediaType, bytes }]) => {
        const { subject, artifactType, config, annotations } = JSON.parse(
          Buffer.from(bytes).toString(),
        );
        return subject?.digest === digest
          ? [
              {
                mediaType,
                digest: own,
                size: bytes.length,
                artifactType: artifactType ?? config?.mediaType,
                annotations,
              },
            ]
          : [];
      },
    );
    const mediaType = "application/vnd.oci.image.index.v1+json";
    return {
      status: 200,
      headers: { "content-type": mediaType },
      body: JSON.stringify({ schemaVersion: 2, mediaType, manifests }),
    };
  }

  #blob({ headers, method }: SeenRequest, name: string, digest: string): Answer {
    const bytes = this.repository(name).blobs.get(digest);
    if (!bytes) return failed(404, "BLOB_UNKNOWN");
    const { lost, lostAs = "absent" } = this.#options;
    if (method !== "HEAD" && lost?.has(digest)) {
      if (lostAs === "absent") return failed(404, "BLOB_UNKNOWN");
      if (lostAs === "failed") return failed(500, "UNKNOWN");
      return { status: 200, headers: { "content-length": String(bytes.length) } };
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers["range"] ?? "");
    if (!range) {
      return {
        status: 200,
        headers: {
          "content-type": "application/octet-stream",
          "content-length": String(bytes.length),
          "docker-content-digest": digest,
        },
        body: bytes,
      };
    }
    const [start, end] = [Number(range[1]), Number(range[2])];
    return {
      status: 206,
      headers: { "content-range": `bytes ${start}-${end}/${bytes.length}` },
      body: bytes.subarray(start, end + 1),
    };
  }

  #upload(
    { method, headers, body }: SeenRequest,
    name: string,
    session: string,
    query: URLSearchParams,
  ): Answer {
    const at = `/v2/${name}/blobs/uploads/${session}?state=a%2Fb`;
    if (method === "POST") {
      const digest = query.get("mount") ?? "";
      const from = this.repositories.get(query.get("from") ?? "");
      const bytes = from?.blobs.get(digest);
      if (bytes && this.#options.mount !== false) {
        this.repository(name).blobs.set(digest, bytes);
        return { status: 201, headers: { "docker-content-digest": digest } };
      }
      const id = `${++this.#nextUpload}`;
      this.#uploads.set(id, []);
      const least = this.#options.chunkMinLength;
      return {
        status: 202,
        headers: {
          location: `/v2/${name}/blobs/uploads/${id}?state=a%2Fb`,
          ...(least && { "oci-chunk-min-length": String(least) }),
        },
      };
    }
    const { patchStatus, patchOnly, canonical } = this.#options;
    const parts = this.#uploads.get(session);
    if (!parts || query.get("state") !== "a/b") return failed(404, "BLOB_UPLOAD_UNKNOWN");
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    const range = `0-${Math.max(size - 1, 0)}`;
    if (method === "GET") return { status: 204, headers: { location: at, range } };
    if (method === "DELETE") {
      this.#uploads.delete(session);
      return { status: 204 };
    }
    if (method === "PATCH") {
      const piece = headers["content-range"];
      const start = piece === undefined ? 0 : Number(piece.split("-")[0]);
      if (start !== size) return { status: 416, headers: { range } };
      const taken = this.#options.range === "partial" ? body.subarray(0, 300_000) : body;
      parts.push(taken);
      const told = this.#toldRange(size, taken.length);
      return { status: patchStatus ?? 202, headers: { location: at, range: told } };
    }
    if (patchOnly && parts.length === 0) return failed(404, "BLOB_UNKNOWN");
    const bytes = Buffer.concat([...parts, body]);
    const wanted = query.get("digest") ?? "";
    const digest = digestIn(wanted.split(":")[0] ?? "", bytes);
    if (digest !== wanted) return failed(400, "DIGEST_INVALID");
    this.repository(name).blobs.set(digest, bytes);
    this.#options.lost?.delete(digest);
    this.#uploads.delete(session);
    const named = canonical ? digestIn(canonical, bytes) : digest;
    return { status: 201, headers: { "docker-content-digest": named } };
  }

  #toldRange(before: number, length: number): string {
    switch (this.#options.range) {
      case "short":
        return `0-${Math.max(before - 1, 0)}`;
      case "relative":
        return `0-${length - 1}`;
      case "off by one":
        return `0-${before + length}`;
      default:
        return `0-${before + length - 1}`;
    }
  }

  #tags(name: string, query: URLSearchParams): Answer {
    const {
      largestPage,
      pageSize = 1000,
      link = (target) => `<${target}>; rel="next"`,
    } = this.#options;
    if (largestPage !== undefined && Number(query.get("n") ?? 0) > largestPage)
      return failed(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested");
    const all = [...this.repository(name).tags.keys()].toSorted();
    const last = query.get("last");
    const rest = last === null ? all : all.filter((tag) => tag > last);
    const page = rest.slice(0, pageSize);
    const next = `/v2/${name}/tags/list?last=${page.at(-1)}&n=2`;
    return {
      status: 200,
      headers: page.length < rest.length ? { link: link(next) } : {},
      body: JSON.stringify({ name, tags: page }),
    };
  }
}

function digestIn(algorithm: string, bytes: Uint8Array): string {
  return `${algorithm}:${createHash(algorithm === "sha512" ? "sha512" : "sha256")
    .update(bytes)
    .digest("hex")}`;
}
