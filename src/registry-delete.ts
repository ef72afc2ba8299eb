/**
 * Deleting manifests and single tags, in the way that each registry has for it.
 *
 * Sources: OCI distribution-spec, "Content Management"; the reference registry,
 * version 2, takes digests alone, and GHCR and Docker Hub delete nothing through
 * this API (405).
 */
import type { Descriptor } from "./descriptor.ts";
import { digestAlgorithm, digestOf } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { ErrorCode } from "./errors.ts";
import { encodeImageManifest } from "./image-manifest.ts";
import { OCI_EMPTY, OCI_MANIFEST, isIndexType } from "./media-types.ts";
import { parseFaults } from "./registry-errors.ts";
import { forgetReferrer, listReferrers } from "./registry-referrers.ts";
import type { RepositoryClient } from "./registry-client.ts";
import { describeTags, headTag } from "./registry-names.ts";
import type { FetchedDocument } from "./registry-names.ts";
import { listTags } from "./registry-tags.ts";
import type { Reply } from "./registry-transport.ts";

/** How a tag was deleted. */
export type TagDeletion =
  /** By its name, which leaves the manifest. */
  | "tag"
  /** With its manifest, which nothing else names. */
  | "manifest"
  /** With a manifest without content that took its place, which leaves its own. */
  | "placeholder";

/** How the ways that need more than one request are gone. */
export interface DeleteOptions {
  /** Bytes of a document at most. */
  readonly limit: number;
  /** Requests at once. */
  readonly jobs: number;
  /** Stores the placeholder's blob and its manifest, under a tag or its digest. */
  write(descriptor: Descriptor, bytes: Uint8Array, tag?: string): Promise<void>;
}

/** Tags up to which it is worth looking whether another one has the manifest. */
const FEW_TAGS = 1000;

/**
 * Deletes a manifest, and with it all tags that stand for it.
 *
 * @throws {CacheportError} BLOB_NOT_FOUND, REGISTRY_UNSUPPORTED, REGISTRY_DENIED, REGISTRY_FAILED
 */
export async function deleteManifest(
  client: RepositoryClient,
  digest: Digest,
  limit: number,
): Promise<void> {
  // What it refers to is known only as long as it is there.
  const reply = await client.transport.request(client.manifest("GET", digest), limit);
  await removed(client, digest, "BLOB_NOT_FOUND");
  if (reply.status === 200) await forgetReferrer(client, digest, reply.body);
}

/**
 * Deletes one tag. Other tags of its manifest stay, and so does the manifest where
 * anything else in the repository names it.
 *
 * @throws {CacheportError} NAME_NOT_FOUND, REGISTRY_UNSUPPORTED, REGISTRY_DENIED, REGISTRY_FAILED
 */
export async function deleteTag(
  client: RepositoryClient,
  tag: string,
  options: DeleteOptions,
): Promise<TagDeletion> {
  const reply = await client.transport.request(client.manifest("DELETE", tag, "delete"));
  if (isDone(reply)) return "tag";
  if (!refusesTags(reply)) throw await refusal(client, tag, reply, "NAME_NOT_FOUND");
  const target = await headTag(client, tag, options.limit);
  if (!target) throw await refusal(client, tag, { ...reply, status: 404 }, "NAME_NOT_FOUND");
  await checkDeletes(client, tag);
  if (await isNamedOnce(client, tag, target.digest, options)) {
    await deleteManifest(client, target.digest, options.limit);
    return "manifest";
  }
  await replaceAndDelete(client, tag, target, options);
  return "placeholder";
}

/** Asks whether anything can be deleted, by a digest that nothing has. */
async function checkDeletes(client: RepositoryClient, tag: string): Promise<void> {
  const absent = digestOf(crypto.getRandomValues(new Uint8Array(32)));
  const reply = await client.transport.request(client.manifest("DELETE", absent, "delete"));
  // Nothing is begun that might not be brought to its end.
  if (reply.status === 404 || isDone(reply)) return;
  throw refusesTags(reply)
    ? unsupported(await refusal(client, tag, reply, "NAME_NOT_FOUND"))
    : await refusal(client, tag, reply, "NAME_NOT_FOUND");
}

/** Tells whether a tag is the only thing that names a manifest; false in doubt. */
async function isNamedOnce(
  client: RepositoryClient,
  tag: string,
  digest: Digest,
  { limit, jobs }: DeleteOptions,
): Promise<boolean> {
  const tags = await listTags(client);
  if (tags.length > FEW_TAGS) return false;
  let named = false;
  const look = ({ descriptor, bytes }: FetchedDocument): void => {
    // Its own document may name it as little as any other; a mention anywhere counts.
    if (descriptor.digest === digest) return;
    const text = Buffer.from(bytes).toString();
    // An index below an index is not read for this.
    const nested =
      isIndexType(descriptor.mediaType) && text.split(/image\.index|manifest\.list/).length > 2;
    named ||= text.includes(digest) || nested;
  };
  const entries = await describeTags(client, tags, { limit, jobs }, look);
  const others = entries.filter(({ refName }) => refName !== tag);
  if (named || others.some(({ descriptor }) => descriptor.digest === digest)) return false;
  return (await listReferrers(client, digest)).length === 0;
}

/**
 * Moves the tag to a manifest that is made for it and deletes that one, as skopeo's
 * and regclient's users do it by hand.
 */
async function replaceAndDelete(
  client: RepositoryClient,
  tag: string,
  target: Descriptor,
  { write, limit }: DeleteOptions,
): Promise<void> {
  const { digest } = target;
  const config = new TextEncoder().encode("{}");
  const blob = { mediaType: OCI_EMPTY, digest: digestOf(config), size: config.length };
  await write(blob, config);
  const bytes = encodeImageManifest({
    mediaType: OCI_MANIFEST,
    artifactType: OCI_EMPTY,
    config: blob,
    layers: [blob],
    // Another manifest than any that is there, whose deletion harms nothing.
    annotations: { "cacheport.placeholder": crypto.randomUUID() },
  });
  const placeholder = { mediaType: OCI_MANIFEST, digest: digestOf(bytes), size: bytes.length };
  const present = await client.transport.request(client.manifest("GET", tag), limit);
  const own = present.status === 200 && digestOf(present.body, digestAlgorithm(digest)) === digest;
  if (!own)
    throw new CacheportError(
      "NAME_CHANGED",
      `Cannot delete "${client.location}:${tag}": it was moved meanwhile`,
      { hint: "Run the command again on what the tag stands for now" },
    );
  await write(placeholder, bytes, tag);
  try {
    await removed(client, placeholder.digest, "BLOB_NOT_FOUND");
  } catch (error) {
    await write(target, present.body, tag);
    throw error;
  }
  const left = await headTag(client, tag, limit);
  if (left?.digest !== placeholder.digest) return;
  throw new CacheportError(
    "REGISTRY_FAILED",
    `Cannot delete "${client.location}:${tag}": the registry deleted the manifest and kept the tag`,
  );
}

async function removed(client: RepositoryClient, name: string, missing: ErrorCode): Promise<void> {
  const reply = await client.transport.request(client.manifest("DELETE", name, "delete"));
  if (!isDone(reply)) throw await refusal(client, name, reply, missing);
}

function isDone({ status }: Reply): boolean {
  return status >= 200 && status < 300;
}

async function refusal(
  client: RepositoryClient,
  name: string,
  reply: Reply,
  missing: ErrorCode,
): Promise<CacheportError> {
  const shown = `${client.location}${name.includes(":") ? "@" : ":"}${name}`;
  const error = await client.refusal(`Cannot delete "${shown}"`, reply, { missing });
  return refusesAll(reply) ? unsupported(error) : error;
}

function unsupported({ message }: CacheportError): CacheportError {
  return new CacheportError("REGISTRY_UNSUPPORTED", message, {
    hint: "Delete it on the registry's own page or with its own tool, or allow deletion in its settings",
  });
}

/** Tells whether a registry deletes nothing by this API. */
function refusesAll({ status, body }: Reply): boolean {
  return status === 405 || status === 501 || codesOf(body).includes("UNSUPPORTED");
}

/**
 * Tells whether a registry takes digests alone for what is to be deleted: the
 * reference registry, version 2, takes the tag for a digest that is invalid.
 */
function refusesTags(reply: Reply): boolean {
  const codes = codesOf(reply.body);
  return refusesAll(reply) || (reply.status === 400 && codes.includes("DIGEST_INVALID"));
}

function codesOf(body: Uint8Array): string[] {
  return parseFaults(body).map(({ code }) => code.toUpperCase());
}
