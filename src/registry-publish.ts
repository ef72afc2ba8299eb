/** Documents on their way into a repository, and the tags that they get. */
import type { NameUpdate, Root } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestAlgorithm, digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { cleanText, listsBlobs, looseWords } from "./registry-errors.ts";
import { keepReferrer } from "./registry-referrers.ts";
import type { RepositoryClient } from "./registry-client.ts";
import { headTag, tagOf } from "./registry-names.ts";
import type { Reply } from "./registry-transport.ts";
import { bytesBody } from "./registry-transport.ts";

/**
 * Writes a document under a tag or under its digest.
 *
 * A document that refers to another one is made known as its referrer.
 *
 * @param document Its media type, which the request's Content-Type must equal.
 * @param headers Further ones: a condition.
 * @returns `refused` when the condition did not hold.
 * @throws {CacheportError} REGISTRY_REJECTED, REGISTRY_DENIED, REGISTRY_FAILED, ...
 */
export async function putDocument(
  client: RepositoryClient,
  name: string,
  { mediaType, digest }: { mediaType: string; digest: Digest },
  bytes: Uint8Array,
  signal?: AbortSignal,
  headers: Readonly<Record<string, string>> = {},
): Promise<"written" | "refused"> {
  const shown = `${client.location}${isDigest(name) ? "@" : ":"}${name}`;
  const reply = await client.transport.request({
    ...client.manifest("PUT", name, "push", signal),
    headers: { "content-type": mediaType, ...headers },
    body: bytesBody(bytes),
    upload: true,
  });
  if (headers["if-none-match"] !== undefined && reply.status === 412) return "refused";
  if (reply.status < 200 || reply.status >= 300) {
    const document = { mediaType, name, listsBlobs: listsBlobs(mediaType, bytes) };
    throw await client.refusal(`Cannot write manifest "${shown}"`, reply, { document });
  }
  const stored = reply.headers.get("docker-content-digest");
  // What is not the answer for a stored document may be a page of something in between.
  if (reply.status !== 201 && !isDigest(stored)) await checkStored(client, digest, shown, reply);
  // A registry may know the same bytes by another algorithm.
  if (isDigest(stored) && stored !== digest && stored !== digestOf(bytes, digestAlgorithm(stored)))
    throw new CacheportError(
      "DIGEST_MISMATCH",
      `Cannot write manifest "${shown}": the registry stored it as ${stored}, and it is ${digest}`,
      { hint: "The registry changed the document; its clients will not find it" },
    );
  await keepReferrer(client, { mediaType, digest, size: bytes.length }, bytes, reply);
  return "written";
}

/** @throws {CacheportError} REGISTRY_FAILED when a document that was taken is not there */
async function checkStored(
  client: RepositoryClient,
  digest: Digest,
  shown: string,
  taken: Reply,
): Promise<void> {
  const reply = await client.transport.request(client.manifest("GET", digest));
  if (reply.status === 200 && digestOf(reply.body, digestAlgorithm(digest)) === digest) return;
  throw new CacheportError(
    "REGISTRY_FAILED",
    `Cannot write manifest "${shown}": it was answered with status ${taken.status} (${cleanText(looseWords(taken.body)) || "empty"}), and the registry does not have it`,
    { hint: "A proxy or a login page may stand between here and the registry" },
  );
}

/**
 * Writes a root under a tag that is not there yet.
 *
 * Registries that know `If-None-Match` decide themselves; at the others two writers
 * may pass between the question and the answer, and the tag then stands for what
 * the later one wrote.
 *
 * @returns What the tag stands for when it was there, else undefined.
 * @throws {CacheportError} REGISTRY_REJECTED, REGISTRY_DENIED, REGISTRY_FAILED, ...
 */
export async function publishIfAbsent(
  client: RepositoryClient,
  { descriptor, bytes }: Pick<Root, "descriptor" | "bytes">,
  tag: string,
  signal?: AbortSignal,
): Promise<Descriptor | undefined> {
  const present = await headTag(client, tag);
  if (present) return present;
  const headers = { "if-none-match": "*" };
  const outcome = await putDocument(client, tag, descriptor, bytes, signal, headers);
  return outcome === "refused" ? await headTag(client, tag) : undefined;
}

/**
 * Writes a root under its tags, or under its digest when it has none.
 *
 * @throws {CacheportError} NAME_CHANGED when a tag that is to be replaced has moved
 */
export async function publishRoot(
  client: RepositoryClient,
  { descriptor, bytes, names }: Root,
  signal?: AbortSignal,
): Promise<void> {
  const tags = new Set<string>();
  for (const update of names) {
    const tag = await updatedTag(client, update);
    if (tag !== undefined) tags.add(tag);
  }
  const targets = tags.size > 0 ? tags : [descriptor.digest];
  for (const target of targets) await putDocument(client, target, descriptor, bytes, signal);
}

async function updatedTag(
  client: RepositoryClient,
  update: NameUpdate,
): Promise<string | undefined> {
  if (update.kind === "list") return undefined;
  const { refName, imageName } = update.kind === "set" ? update.name : update.entry;
  const name = refName ?? imageName;
  if (name === undefined) return undefined;
  const tag = tagOf(client, name);
  if (update.kind === "replace") {
    const present = await headTag(client, tag);
    if (present?.digest !== update.entry.descriptor.digest) {
      throw new CacheportError(
        "NAME_CHANGED",
        `Cannot replace tag "${client.location}:${tag}": it was moved meanwhile`,
        { hint: "Run the command again on what the tag stands for now" },
      );
    }
  }
  return tag;
}
