/** Names in a repository: a tag or a digest becomes a descriptor. */
import { mapLimit } from "./concurrency.ts";
import type { NameQuery, NamedEntry, Resolved } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestAlgorithm, digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { parseDocument } from "./document.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import type { ErrorCode } from "./errors.ts";
import { isJsonObject } from "./go-json.ts";
import { isDocumentType } from "./media-types.ts";
import { isTag, parseReference } from "./reference.ts";
import { cleanText, looseWords } from "./registry-errors.ts";
import type { RepositoryClient } from "./registry-client.ts";
import { blobSize, contentLength } from "./registry-presence.ts";
import { listTags } from "./registry-tags.ts";
import type { Reply } from "./registry-transport.ts";

/** A document and what it is known by. */
export interface FetchedDocument {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

const DEFAULT_TAG = "latest";
/** Tags that a hint shows. */
const SHOWN_TAGS = 8;

/**
 * Finds what a query names.
 *
 * @param limit Bytes of a document at most.
 * @param keep Takes the document that was read on the way.
 * @throws {CacheportError} NAME_NOT_FOUND, BLOB_NOT_FOUND, DIGEST_MISMATCH, REGISTRY_DENIED, ...
 */
export async function resolveName(
  client: RepositoryClient,
  { name, digest }: NameQuery,
  limit: number,
  keep: (document: FetchedDocument) => void,
): Promise<Resolved> {
  if (digest === undefined) {
    const tag = tagOf(client, name ?? DEFAULT_TAG);
    const found = await fetchTag(client, tag, limit);
    keep(found);
    const { descriptor } = found;
    return { descriptor, entry: { refName: tag, descriptor } };
  }
  const descriptor = await findDigest(client, digest, limit, keep);
  if (name === undefined) return { descriptor, entry: undefined };
  const tag = tagOf(client, name);
  const tagged = await headTag(client, tag);
  return {
    descriptor,
    entry: tagged?.digest === digest ? { refName: tag, descriptor } : undefined,
  };
}

/**
 * The tag in a name, which may be a full image name of this repository.
 *
 * @throws {CacheportError} REFERENCE_INVALID
 */
export function tagOf(client: RepositoryClient, name: string): string {
  if (isTag(name)) return name;
  const prefix = `${client.location}:`;
  const tag = name.startsWith(prefix) ? name.slice(prefix.length) : parseReference(name).tag;
  if (tag !== null && isTag(tag)) return tag;
  throw new CacheportError(
    "REFERENCE_INVALID",
    `Cannot use "${name}" in repository "${client.location}": it holds no tag`,
  );
}

/** A document by its tag, its digest taken from its bytes. */
async function fetchTag(
  client: RepositoryClient,
  tag: string,
  limit: number,
  { hint } = { hint: true },
): Promise<FetchedDocument> {
  const action = `Cannot read "${client.location}:${tag}"`;
  const reply = await requestDocument(client, tag, limit, action);
  if (reply.status === 404 && hint) throw await notFound(client, action, reply);
  if (reply.status !== 200)
    throw await client.refusal(action, reply, { missing: "NAME_NOT_FOUND" });
  return readDocument(reply, action);
}

/** Asks for a document; one that is over the limit is told by its name. */
async function requestDocument(
  client: RepositoryClient,
  name: string,
  limit: number,
  action: string,
): Promise<Reply> {
  try {
    return await client.transport.request(client.manifest("GET", name), limit);
  } catch (error) {
    if (!isCacheportError(error, "DOCUMENT_TOO_LARGE")) throw error;
    const message = `${action}: it has more than ${limit} bytes`;
    throw new CacheportError(error.code, message, {
      hint: error.hint ?? error.remedy,
      cause: error,
    });
  }
}

async function findDigest(
  client: RepositoryClient,
  digest: Digest,
  limit: number,
  keep: (document: FetchedDocument) => void,
): Promise<Descriptor> {
  const action = `Cannot read "${client.location}@${digest}"`;
  const reply = await requestDocument(client, digest, limit, action);
  if (reply.status === 200) {
    const found = readDocument(reply, action, digest);
    keep(found);
    return found.descriptor;
  }
  // Registries answer 404, 400 or 500 when they are asked for a blob as a document.
  if ([401, 403, 429].includes(reply.status)) throw await client.refusal(action, reply);
  const size = await blobSize(client, digest);
  const missing: ErrorCode = "BLOB_NOT_FOUND";
  if (typeof size === "object")
    throw await client.refusal(action, size.status === 404 ? reply : size, { missing });
  if (size === undefined) {
    throw new CacheportError(
      "REGISTRY_FAILED",
      `${action}: the registry does not say how large it is`,
    );
  }
  return { mediaType: "application/octet-stream", digest, size };
}

/** Takes a document from an answer and checks what the answer says of it. */
export function readDocument(
  { body, headers }: Reply,
  action: string,
  digest?: Digest,
): FetchedDocument {
  const claimed = headers.get("docker-content-digest");
  const named = digest ?? (isDigest(claimed) ? claimed : undefined);
  const actual = digestOf(body, named ? digestAlgorithm(named) : "sha256");
  if (named !== undefined && named !== actual) {
    throw new CacheportError(
      "DIGEST_MISMATCH",
      `${action}: the registry says its digest is ${named}, and its bytes have ${actual}`,
      {
        hint: "The content was damaged or replaced on its way; try again, or ask who runs the registry",
      },
    );
  }
  // What was asked for by its digest is what it is.
  if (digest === undefined) checkIsDocument(body, headers.get("content-type"), action);
  const mediaType = documentType(body, headers.get("content-type"), action);
  const descriptor = { mediaType, digest: actual, size: body.length };
  return { descriptor, bytes: body };
}

/**
 * Refuses what a tag cannot stand for: the page of a captive portal or a proxy, an
 * error that comes as a success.
 *
 * @throws {CacheportError} DOCUMENT_INVALID, with what the server sent
 */
function checkIsDocument(bytes: Uint8Array, contentType: string | null, action: string): void {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    // No JSON, no document.
  }
  const listed = ["manifests", "layers", "config", "blobs", "fsLayers"];
  if (
    isJsonObject(value) &&
    (isDocumentType(bareType(contentType)) ||
      typeof value["mediaType"] === "string" ||
      typeof value["schemaVersion"] === "number" ||
      listed.some((field) => Object.hasOwn(value, field)))
  )
    return;
  const words = cleanText(looseWords(bytes));
  throw new CacheportError(
    "DOCUMENT_INVALID",
    `${action}: the server sent no manifest but ${bareType(contentType) || "something"} (${words || "empty"})`,
    { hint: "A proxy or a login page may stand between here and the registry" },
  );
}

/** The type that a document names itself, else what the registry says, else what it looks like. */
function documentType(bytes: Uint8Array, contentType: string | null, what: string): string {
  const said = bareType(contentType);
  let own: unknown;
  try {
    own = (JSON.parse(new TextDecoder().decode(bytes)) as { mediaType?: unknown })?.mediaType;
  } catch {
    return said;
  }
  if (typeof own === "string" && own !== "") return own;
  if (isDocumentType(said) || said.includes("manifest")) return said;
  return parseDocument(bytes, "", what.replace(/^Cannot read /, "")).type;
}

/** A media type without its parameters. */
function bareType(contentType: string | null): string {
  return (contentType ?? "").split(";")[0]?.trim() ?? "";
}

/**
 * What a tag stands for, by HEAD; by GET where the answer leaves something out.
 *
 * @returns Undefined when there is no such tag.
 */
export async function headTag(
  client: RepositoryClient,
  tag: string,
  limit = 4 * 1024 * 1024,
): Promise<Descriptor | undefined> {
  const hint = await askForTag(client, tag);
  if (!hint) return undefined;
  if (hint.descriptor) return hint.descriptor;
  try {
    return (await fetchTag(client, tag, limit)).descriptor;
  } catch (error) {
    if (isCacheportError(error, "NAME_NOT_FOUND")) return undefined;
    throw error;
  }
}

/** What HEAD tells of a tag, as far as it tells it. */
interface TagHint {
  readonly digest?: Digest;
  /** Its size is what the registry says. */
  readonly descriptor?: Descriptor;
}

/** Asks for a tag by HEAD. @returns Undefined when there is no such tag. */
async function askForTag(client: RepositoryClient, tag: string): Promise<TagHint | undefined> {
  const reply = await client.transport.request({ ...client.manifest("HEAD", tag), hint: true });
  if (reply.status === 404) return undefined;
  const digest = reply.headers.get("docker-content-digest");
  if (reply.status !== 200 || !isDigest(digest)) return {};
  const mediaType = bareType(reply.headers.get("content-type"));
  const size = contentLength(reply);
  return isDocumentType(mediaType) && size !== undefined
    ? { digest, descriptor: { mediaType, digest, size } }
    : { digest };
}

/**
 * Describes tags: one HEAD for each, and one GET for each thing that they stand for,
 * from whose bytes its size and type are taken.
 *
 * @param keep Takes the documents that were read on the way.
 * @returns A tag that was deleted meanwhile is left out.
 */
export async function describeTags(
  client: RepositoryClient,
  tags: readonly string[],
  { limit, jobs }: { limit: number; jobs: number },
  keep: (document: FetchedDocument) => void,
): Promise<NamedEntry[]> {
  const fetched = new Map<Digest, Promise<Descriptor>>();
  const fetch = async (tag: string): Promise<Descriptor> => {
    const document = await fetchTag(client, tag, limit, { hint: false });
    keep(document);
    return document.descriptor;
  };
  const entries = await mapLimit(tags, jobs, async (tag) => {
    const told = await askForTag(client, tag);
    if (!told) return undefined;
    try {
      if (!told.digest) return { refName: tag, descriptor: await fetch(tag) };
      const first = fetched.get(told.digest) ?? fetch(tag);
      fetched.set(told.digest, first);
      const descriptor = await first;
      // A tag may move between the two requests.
      return {
        refName: tag,
        descriptor: descriptor.digest === told.digest ? descriptor : await fetch(tag),
      };
    } catch (error) {
      if (isCacheportError(error, "NAME_NOT_FOUND")) return undefined;
      // Whoever reads the document is told what is wrong with it.
      if (!told.descriptor || !isCacheportError(error) || error.exitCode !== 4) throw error;
      return { refName: tag, descriptor: told.descriptor };
    }
  });
  return entries.filter((entry) => entry !== undefined);
}

async function notFound(
  client: RepositoryClient,
  action: string,
  reply: Reply,
): Promise<CacheportError> {
  const refusal = await client.refusal(action, reply, {
    missing: "NAME_NOT_FOUND",
  });
  const tags = await listTags(client).catch(() => []);
  if (tags.length === 0) return refusal;
  const shown = tags.slice(0, SHOWN_TAGS).join(", ");
  const more = tags.length > SHOWN_TAGS ? `, ${tags.length} in all` : "";
  return new CacheportError(refusal.code, refusal.message, {
    hint: `The tags there are: ${shown}${more}`,
  });
}

/** Bytes of all kept documents together. */
const CAPACITY = 16 * 1024 * 1024;

/** A bounded cache of documents that were read, by digest; the one that was asked for longest ago goes first. */
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
