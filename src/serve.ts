/**
 * A registry over any location: the pull part of the OCI distribution specification, and
 * the push part where it is asked for.
 *
 * Source: OCI distribution-spec 1.1, "Endpoints".
 */
import { isDigest } from "./digest.ts";
import { CacheportError, systemError } from "./errors.ts";
import { readWhole } from "./blob-check.ts";
import { parseRange, rangeResponse } from "./serve-range.ts";
import { digestIn, failureResponse, Refusal } from "./serve-refusal.ts";
import { answerUpload, beginUpload } from "./serve-upload.ts";
import { manifestDigest } from "./serve-repository.ts";
import type { ServedRepository } from "./serve-repository.ts";

/** How to serve. */
export interface ServeOptions {
  repositories: readonly ServedRepository[];
  /** The address to listen at. */
  hostname: string;
  /** 0 for any that is free. */
  port: number;
  /** Bytes of a manifest that is pushed. */
  maxManifest: number;
  /** Is told of every request, and of faults behind it. */
  onRequest?: ((line: string) => void) | undefined;
}

/** A registry that runs. */
export interface RunningRegistry {
  readonly port: number;
  /** Ends it; requests under way are cut off. */
  stop(): Promise<void>;
}

const NAME = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const ROUTE = new RegExp(`^/v2/(${NAME}(?:/${NAME})*)/(manifests|blobs|tags|referrers)/(.*)$`);

/** Tags of one page at most. */
const PAGE = 1000;

/**
 * Starts a registry.
 *
 * @throws {CacheportError} IO_FAILED, PERMISSION_DENIED when it cannot listen there
 */
export function serveRegistry(options: ServeOptions): RunningRegistry {
  const { hostname, port } = options;
  let server: ReturnType<typeof Bun.serve>;
  try {
    server = Bun.serve({
      hostname,
      port,
      // A layer may take its time, and may be of any size.
      idleTimeout: 0,
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch: (request) => answer(request, options),
    });
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code === "EADDRINUSE")
      throw new CacheportError(
        "IO_FAILED",
        `Cannot listen at "${hostname}:${port}": another program does`,
        { hint: { do: "choose-port" } },
      );
    throw systemError(`Cannot listen at "${hostname}:${port}"`, error);
  }
  return { port: server.port as number, stop: () => server.stop(true) };
}

async function answer(request: Request, options: ServeOptions): Promise<Response> {
  const { pathname } = new URL(request.url);
  const response = await route(request, options).catch((error: unknown) =>
    failureResponse(error, options.onRequest),
  );
  response.headers.set("docker-distribution-api-version", "registry/2.0");
  options.onRequest?.(`${request.method} ${pathname} ${response.status}`);
  return response;
}

async function route(request: Request, options: ServeOptions): Promise<Response> {
  checkHost(request, options.hostname);
  const url = new URL(request.url);
  if (url.pathname === "/v2/" || url.pathname === "/v2") return Response.json({});
  const [, name, kind, rest] = ROUTE.exec(decoded(url.pathname)) ?? [];
  if (name === undefined || rest === undefined)
    throw new Refusal(404, "UNSUPPORTED", "there is nothing at this address");
  const repository = options.repositories.find((one) => one.name === name);
  if (!repository) throw new Refusal(404, "NAME_UNKNOWN", `there is no repository ${name}`);
  switch (kind) {
    case "manifests":
      return manifests(request, repository, rest, options);
    case "tags":
      if (rest === "list") return tags(url, repository);
      break;
    case "referrers":
      return referrers(url, repository, rest);
    case "blobs":
      if (rest.startsWith("uploads")) return uploads(request, url, repository, rest, options);
      return blobs(request, repository, rest);
  }
  throw new Refusal(404, "UNSUPPORTED", "there is nothing at this address");
}

/** @throws {Refusal} for a path whose percent signs make no text */
function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    throw new Refusal(400, "UNSUPPORTED", "the address cannot be read");
  }
}

/**
 * A page in a browser can be made to ask this machine under a name that its owner points
 * here: on loopback, only names of loopback are answered.
 */
function checkHost(request: Request, hostname: string): void {
  if (!isLoopback(hostname)) return;
  const host = new URL(`http://${request.headers.get("host") ?? hostname}`).hostname;
  if (isLoopback(host)) return;
  throw new Refusal(403, "DENIED", `this registry is for this machine, not for ${host}`);
}

/** Tells whether an address or a name is this machine's own. */
export function isLoopback(host: string): boolean {
  return (
    host === "localhost" ||
    host.endsWith(".localhost") ||
    /^127(?:\.\d{1,3}){3}$/.test(host) ||
    host === "::1" ||
    host === "[::1]"
  );
}

async function manifests(
  request: Request,
  repository: ServedRepository,
  reference: string,
  options: ServeOptions,
): Promise<Response> {
  if (request.method === "PUT") return putManifest(request, repository, reference, options);
  if (!isRead(request)) throw notAllowed(repository);
  const found = await repository.manifest(reference);
  if (!found)
    throw new Refusal(404, "MANIFEST_UNKNOWN", `${repository.name} has no manifest ${reference}`);
  const { descriptor, bytes } = found;
  return new Response(request.method === "HEAD" ? null : bytes, {
    headers: {
      "content-type": descriptor.mediaType,
      "content-length": String(bytes.length),
      "docker-content-digest": descriptor.digest,
      etag: `"${descriptor.digest}"`,
    },
  });
}

async function putManifest(
  request: Request,
  repository: ServedRepository,
  reference: string,
  { maxManifest }: ServeOptions,
): Promise<Response> {
  if (!repository.isWritable) throw notAllowed(repository);
  if (!isDigest(reference) && !/^\w[\w.-]{0,127}$/.test(reference))
    throw new Refusal(400, "TAG_INVALID", `${reference} is no tag`);
  const body = request.body ?? new Blob([]).stream();
  const bytes = await readWhole(body, maxManifest, "manifest");
  const digest = manifestDigest(bytes, reference);
  if (isDigest(reference) && reference !== digest)
    throw new Refusal(400, "DIGEST_INVALID", `the manifest has the digest ${digest}`);
  const mediaType = (request.headers.get("content-type") ?? "").split(";")[0]?.trim() ?? "";
  const subject = await repository.putManifest(
    { mediaType, digest, size: bytes.length },
    bytes,
    isDigest(reference) ? undefined : reference,
  );
  return new Response(null, {
    status: 201,
    headers: {
      location: `/v2/${repository.name}/manifests/${digest}`,
      "docker-content-digest": digest,
      ...(subject !== undefined && { "oci-subject": subject }),
    },
  });
}

async function blobs(
  request: Request,
  repository: ServedRepository,
  reference: string,
): Promise<Response> {
  const digest = digestIn(reference);
  if (!isRead(request)) throw notAllowed(repository);
  const blob = await repository.blob(digest);
  if (!blob) throw new Refusal(404, "BLOB_UNKNOWN", `${repository.name} has no blob ${digest}`);
  const range = parseRange(request.headers.get("range"), blob.size);
  if (range === "unsatisfiable")
    throw new Refusal(416, "RANGE_INVALID", `the blob has ${blob.size} bytes`, {
      "content-range": `bytes */${blob.size}`,
    });
  return rangeResponse(blob, range, request.method === "HEAD", {
    "content-type": "application/octet-stream",
    "docker-content-digest": digest,
    "accept-ranges": "bytes",
    etag: `"${digest}"`,
  });
}

async function tags(url: URL, repository: ServedRepository): Promise<Response> {
  const all = await repository.tags();
  const last = url.searchParams.get("last");
  const wanted = url.searchParams.get("n");
  if (wanted !== null && !/^\d{1,9}$/.test(wanted))
    throw new Refusal(400, "PAGINATION_NUMBER_INVALID", `${wanted} is no number`);
  const count = wanted === null ? all.length : Math.min(Number(wanted), PAGE);
  const rest = last === null ? all : all.filter((tag) => tag > last);
  const page = rest.slice(0, count);
  const next = page.at(-1);
  const link =
    next !== undefined && rest.length > page.length
      ? `</v2/${repository.name}/tags/list?n=${count}&last=${encodeURIComponent(next)}>; rel="next"`
      : undefined;
  return Response.json(
    { name: repository.name, tags: page },
    { headers: link === undefined ? {} : { link } },
  );
}

async function referrers(
  url: URL,
  repository: ServedRepository,
  reference: string,
): Promise<Response> {
  const digest = digestIn(reference);
  const type = url.searchParams.get("artifactType");
  const all = await repository.referrers(digest);
  const manifests = type === null ? all : all.filter((one) => one.artifactType === type);
  return Response.json(
    { schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests },
    {
      headers: {
        "content-type": "application/vnd.oci.image.index.v1+json",
        ...(type !== null && { "oci-filters-applied": "artifactType" }),
      },
    },
  );
}

async function uploads(
  request: Request,
  url: URL,
  repository: ServedRepository,
  rest: string,
  { repositories }: ServeOptions,
): Promise<Response> {
  if (!repository.isWritable || !repository.pending) throw notAllowed(repository);
  const id = /^uploads\/?(.*)$/.exec(rest)?.[1] ?? "";
  if (id !== "") return answerUpload(request, url, repository, id);
  if (request.method !== "POST") throw notAllowed(repository);
  return beginUpload(request, url, repository, repositories);
}

function isRead({ method }: Request): boolean {
  return method === "GET" || method === "HEAD";
}

function notAllowed({ isWritable }: ServedRepository): Refusal {
  return isWritable
    ? new Refusal(405, "UNSUPPORTED", "this registry does not do that")
    : new Refusal(405, "UNSUPPORTED", "this registry is read-only");
}
