/**
 * What refers to a manifest: signatures, SBOMs, attestations. A registry with the
 * referrers API knows by itself; elsewhere the client keeps a list under a tag.
 *
 * Sources: OCI distribution-spec 1.1, "Listing Referrers", "Pushing Manifests with
 * Subject", "Referrers Tag Schema"; oras issue 2148 (GitLab resolves a tag of the
 * form `sha256-<hex>` to the image itself).
 */
import * as v from "valibot";
import { DescriptorSchema } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestAlgorithm, digestHex, digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkSchema } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { isJsonObject, parseJson } from "./go-json.ts";
import { encodeImageIndex } from "./image-index.ts";
import { OCI_INDEX } from "./media-types.ts";
import type { RepositoryClient } from "./registry-client.ts";
import { nextPage } from "./registry-tags.ts";
import { bytesBody } from "./registry-transport.ts";
import type { Reply } from "./registry-transport.ts";

/** Bytes of a list of referrers; registries take no larger manifests. */
const MAX_LIST = 4 * 1024 * 1024;
const MAX_PAGES = 100;
/** Tries to get an entry into a list that others write at the same time. */
const TRIES = 5;

const ListSchema = v.object({ manifests: v.nullish(v.array(DescriptorSchema), []) });

/** The tag that stands for the list of referrers of a manifest. */
export function referrersTag(subject: Digest): string {
  return `${digestAlgorithm(subject)}-${digestHex(subject).slice(0, 64)}`;
}

/** The digest of the manifest that a document refers to; undefined for none. */
export function subjectOf(bytes: Uint8Array): Digest | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    const subject = isJsonObject(value) ? value["subject"] : undefined;
    const digest = isJsonObject(subject) ? subject["digest"] : undefined;
    return isDigest(digest) ? digest : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Lists what refers to a manifest, by the API or by the tag.
 *
 * @throws {CacheportError} REGISTRY_DENIED, REGISTRY_FAILED, DOCUMENT_INVALID
 */
export async function listReferrers(
  client: RepositoryClient,
  subject: Digest,
): Promise<Descriptor[]> {
  return (await askApi(client, subject)) ?? (await readList(client, subject)).entries;
}

/** What the API lists; undefined where a registry does not know it. */
async function askApi(
  client: RepositoryClient,
  subject: Digest,
): Promise<Descriptor[] | undefined> {
  if (client.referrersApi === false) return undefined;
  const found = new Map<Digest, Descriptor>();
  let url: URL | string = `/v2/${client.path}/referrers/${subject}`;
  for (let page = 0; page < MAX_PAGES; page++) {
    const reply: Reply = await client.transport.request(
      { method: "GET", url, headers: { accept: OCI_INDEX }, scopes: client.scopes("pull") },
      MAX_LIST,
    );
    const entries = reply.status === 200 ? listedBy(reply) : undefined;
    if (!entries) {
      if (reply.status === 401 || reply.status === 403 || page > 0)
        throw await client.refusal(`Cannot list referrers of "${subject}"`, reply);
      client.referrersApi = false;
      return undefined;
    }
    client.referrersApi = true;
    for (const entry of entries) found.set(entry.digest, entry);
    const link = nextPage(reply);
    const next = link === undefined ? null : URL.parse(link, reply.url.href);
    if (next?.origin !== reply.url.origin) break;
    url = next;
  }
  return [...found.values()];
}

/** The entries of an answer of the API; undefined for what is no index. */
function listedBy({ body, headers }: Reply): Descriptor[] | undefined {
  const type = (headers.get("content-type") ?? "").split(";")[0]?.trim();
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(body));
  } catch {
    return undefined;
  }
  if (!isJsonObject(value) || (type !== OCI_INDEX && value["mediaType"] !== OCI_INDEX))
    return undefined;
  return checkSchema(ListSchema, value, "list of referrers").manifests;
}

/** The list under the tag: empty where there is none, or where the tag is the subject itself. */
async function readList(
  client: RepositoryClient,
  subject: Digest,
): Promise<{ entries: Descriptor[]; stands?: "subject" | "other" }> {
  const tag = referrersTag(subject);
  const reply = await client.transport.request(client.manifest("GET", tag), MAX_LIST);
  if (reply.status === 404) return { entries: [] };
  const what = `list of referrers "${client.location}:${tag}"`;
  if (reply.status !== 200) throw await client.refusal(`Cannot read ${what}`, reply);
  const own = digestOf(reply.body, digestAlgorithm(subject)) === subject;
  if (own) return { entries: [], stands: "subject" };
  const value = parseJson(reply.body, what);
  if (!isJsonObject(value) || !Array.isArray(value["manifests"]))
    return { entries: [], stands: "other" };
  return { entries: checkSchema(ListSchema, value, what).manifests };
}

/**
 * Makes a manifest that refers to another one known as its referrer, where the
 * registry does not do that by itself: puts it into the list under the tag.
 *
 * @param reply The registry's answer to the manifest.
 * @throws {CacheportError} REGISTRY_DENIED, REGISTRY_REJECTED, REGISTRY_FAILED
 */
export async function keepReferrer(
  client: RepositoryClient,
  descriptor: Descriptor,
  bytes: Uint8Array,
  reply: Reply,
): Promise<void> {
  const subject = subjectOf(bytes);
  if (subject === undefined) return;
  if (reply.headers.get("oci-subject") !== null) {
    client.referrersApi = true;
    return;
  }
  const entry = referrerEntry(descriptor, bytes);
  // In one run one after the other; another program may write it meanwhile all the same.
  await client.inTurn(subject, async () => {
    if (client.referrersApi ?? (await askApi(client, subject)) !== undefined) return;
    await updateList(client, subject, (entries) =>
      entries.some(({ digest }) => digest === entry.digest) ? undefined : [...entries, entry],
    );
  });
}

/**
 * Takes a manifest that was deleted out of the list of its subject's referrers.
 *
 * @throws {CacheportError} REGISTRY_DENIED, REGISTRY_FAILED
 */
export async function forgetReferrer(
  client: RepositoryClient,
  digest: Digest,
  bytes: Uint8Array,
): Promise<void> {
  const subject = subjectOf(bytes);
  if (subject === undefined) return;
  await client.inTurn(subject, async () => {
    if ((await askApi(client, subject)) !== undefined) return;
    await updateList(client, subject, (entries) =>
      entries.some((entry) => entry.digest === digest)
        ? entries.filter((entry) => entry.digest !== digest)
        : undefined,
    );
  });
}

/** As the specification wants it in a list: a manifest without a type of its own has its config's. */
function referrerEntry({ mediaType, digest }: Descriptor, bytes: Uint8Array): Descriptor {
  const value = parseJson(bytes, `manifest "${digest}"`) as Record<string, unknown>;
  const config = isJsonObject(value["config"]) ? value["config"]["mediaType"] : undefined;
  const artifactType = value["artifactType"] || config;
  const annotations = v.safeParse(v.record(v.string(), v.string()), value["annotations"]);
  return {
    mediaType,
    digest,
    size: bytes.length,
    ...(typeof artifactType === "string" && { artifactType }),
    ...(annotations.success && { annotations: annotations.output }),
  };
}

/**
 * Writes a list anew until what was changed stays: registries have no condition for
 * it, so that the last of several writers may have undone what an earlier one did.
 *
 * @param change The new entries; undefined when nothing is to be done.
 */
async function updateList(
  client: RepositoryClient,
  subject: Digest,
  change: (entries: Descriptor[]) => Descriptor[] | undefined,
): Promise<void> {
  const tag = referrersTag(subject);
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const { entries, stands } = await readList(client, subject);
    // A registry that knows the tag to be the image will not learn otherwise.
    if (stands === "subject" && attempt > 0) return;
    if (stands === "other")
      throw new CacheportError(
        "REGISTRY_REJECTED",
        `Cannot list what refers to "${subject}" in "${client.location}": its tag ${tag} stands for something that is no list`,
        { hint: "Give what stands there another tag, then copy again" },
      );
    const changed = change(entries);
    if (!changed) return;
    const bytes = encodeImageIndex({ mediaType: OCI_INDEX, manifests: changed });
    const reply = await client.transport.request({
      ...client.manifest("PUT", tag, "push"),
      headers: { "content-type": OCI_INDEX },
      body: bytesBody(bytes),
      upload: true,
    });
    if (reply.status < 200 || reply.status >= 300)
      throw await client.refusal(
        `Cannot write list of referrers "${client.location}:${tag}"`,
        reply,
      );
  }
}
