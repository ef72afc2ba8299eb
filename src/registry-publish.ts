/** Documents on their way into a repository, and the tags that they get. */
import type { NameUpdate, Root } from "./content-store.ts";
import { digestAlgorithm, digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { listsBlobs } from "./registry-errors.ts";
import type { RepositoryClient } from "./registry-repository.ts";
import { headTag, tagOf } from "./registry-resolve.ts";
import { bytesBody } from "./registry-transport.ts";

/**
 * Writes a document under a tag or under its digest.
 *
 * @param document Its media type, which the request's Content-Type must equal.
 * @throws {CacheportError} REGISTRY_REJECTED, REGISTRY_DENIED, REGISTRY_FAILED, ...
 */
export async function putDocument(
  client: RepositoryClient,
  name: string,
  { mediaType, digest }: { mediaType: string; digest: Digest },
  bytes: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const shown = `${client.location}${isDigest(name) ? "@" : ":"}${name}`;
  const reply = await client.transport.request({
    ...client.manifest("PUT", name, "push", signal),
    headers: { "content-type": mediaType },
    body: bytesBody(bytes),
    upload: true,
  });
  const { status, headers } = reply;
  if (status < 200 || status >= 300) {
    const document = {
      mediaType,
      name,
      listsBlobs: listsBlobs(mediaType, bytes),
    };
    throw await client.refusal(`Cannot write manifest "${shown}"`, reply, {
      document,
    });
  }
  const stored = headers.get("docker-content-digest");
  if (!isDigest(stored) || stored === digest) return;
  // A registry may know the same bytes by another algorithm.
  if (stored === digestOf(bytes, digestAlgorithm(stored))) return;
  throw new CacheportError(
    "DIGEST_MISMATCH",
    `Cannot write manifest "${shown}": the registry stored it as ${stored}, and it is ${digest}`,
    { hint: "The registry changed the document; its clients will not find it" },
  );
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
