/**
 * Whether a repository has some content. An answer to HEAD is a hint: registries
 * refuse it where they allow GET, fail at it, leave out the length or tell a wrong
 * one, and say that a blob is there whose file is gone. A byte that was read is proof.
 *
 * Sources: OCI distribution-spec, "Checking if content exists in the registry";
 * distribution issue 4569 (the in-memory cache of descriptors).
 */
import { isDocument } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { OpenReply, RegistryCall } from "./registry-connection.ts";
import type { RepositoryClient } from "./registry-client.ts";
import { TransportFailure, unreachable } from "./registry-failures.ts";
import type { Reply } from "./registry-transport.ts";

/** Tries of a proof. */
const TRIES = 3;
/** Bytes of an answer that are read rather than broken off, to keep the connection. */
const SMALL = 65_536;

/** What could be read; the size of the whole as far as the answer tells it. */
interface Proof {
  readonly size: number | undefined;
}

/** The bytes that a Content-Length header tells, or undefined. */
export function contentLength({ headers }: { readonly headers: Headers }): number | undefined {
  const text = headers.get("content-length") ?? "";
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/**
 * The size of stored content, or undefined when it is not there.
 *
 * @throws {CacheportError} REGISTRY_DENIED, REGISTRY_FAILED
 */
export async function storedSize(
  client: RepositoryClient,
  descriptor: Descriptor,
): Promise<number | undefined> {
  let refusal: Reply | undefined;
  for (const call of client.content("HEAD", descriptor)) {
    const hint = await client.transport.request({ ...call, hint: true });
    if (hint.status === 404) continue;
    if (hint.status === 200 && (contentLength(hint) ?? descriptor.size) === descriptor.size)
      return descriptor.size;
    const proof = await readByte(client, { ...call, method: "GET" });
    if ("size" in proof) return proof.size ?? descriptor.size;
    if (proof.status !== 404) refusal ??= proof;
  }
  if (!refusal) return undefined;
  throw await client.refusal(
    `Cannot look for blob "${descriptor.digest}" in "${client.location}"`,
    refusal,
  );
}

/**
 * The size of a blob of which the digest alone is known, from an answer with a byte of it.
 *
 * @returns Undefined when the registry does not say it, or its refusal.
 */
export async function blobSize(
  client: RepositoryClient,
  digest: Digest,
): Promise<number | undefined | Reply> {
  const proof = await readByte(client, client.blob("GET", digest));
  if ("status" in proof || proof.size !== undefined) return "status" in proof ? proof : proof.size;
  return contentLength(
    await client.transport.request({ ...client.blob("HEAD", digest), hint: true }),
  );
}

/**
 * Tells whether content need not be uploaded. In doubt it is: whatever a registry
 * answers to the question, the upload decides.
 *
 * @param proved True when a byte has to be read, whatever HEAD says.
 */
export async function isStored(
  client: RepositoryClient,
  descriptor: Descriptor,
  { proved, signal }: { proved: boolean; signal?: AbortSignal | undefined },
): Promise<boolean> {
  const { digest, size } = descriptor;
  const call = isDocument(descriptor)
    ? client.manifest("HEAD", digest, "push", signal)
    : client.blob("HEAD", digest, "push", signal);
  const hint = await client.transport.request({ ...call, hint: true });
  if (hint.status === 401)
    throw await client.refusal(`Cannot look for blob "${digest}" in "${client.location}"`, hint);
  const there = hint.status === 200;
  if (there && !proved && (contentLength(hint) ?? size) === size) return true;
  // What cannot be asked by HEAD can often be read.
  if (!there && hint.status !== 403 && hint.status !== 405) return false;
  const proof = await readByte(client, { ...call, method: "GET" });
  return "size" in proof && (proof.size ?? size) === size;
}

/**
 * Reads the first byte of content.
 *
 * @returns The size of the whole, as far as the answer tells it, or the refusal.
 */
async function readByte(client: RepositoryClient, call: RegistryCall): Promise<Proof | Reply> {
  const { transport } = client;
  const headers = { ...call.headers, range: "bytes=0-0" };
  const leave = await transport.gate.enter();
  try {
    for (let failures = 1; ; failures++) {
      const outcome = await transport
        .open({ ...call, headers }, transport.deadline / 2)
        .then(async (open): Promise<Proof | Reply> =>
          "response" in open ? await firstByte(open, transport.deadline / 2) : open,
        )
        .catch((error: unknown) => transport.temporary(error, call.signal));
      if (!(outcome instanceof TransportFailure)) {
        // An empty blob has no first byte.
        const empty = "status" in outcome && outcome.status === 416;
        return empty ? { size: 0 } : outcome;
      }
      const again =
        failures < TRIES &&
        (await transport.backOff(failures, transport.deadline, { signal: call.signal }));
      // A registry that is there and breaks off before the first byte has none.
      if (!again && outcome.kind === "reset") return { size: 0 };
      if (!again) throw unreachable(transport.domain, outcome);
    }
  } finally {
    leave();
  }
}

/** Reads the beginning of an answer and what it says of the whole. */
async function firstByte({ response, abort }: OpenReply, window: number): Promise<Proof> {
  const { status, headers, body } = response;
  const timer = setTimeout(
    () => abort.abort(new TransportFailure("stalled", "no byte came")),
    window,
  );
  try {
    const length = contentLength(response) ?? Number.POSITIVE_INFINITY;
    let count: number;
    if (length <= SMALL) count = (await response.arrayBuffer()).byteLength;
    else {
      count = (await body?.getReader().read())?.value?.length ?? 0;
      abort.abort();
    }
    if (count === 0) return { size: 0 };
    const range = /\/(\d{1,15})$/.exec(headers.get("content-range") ?? "");
    if (status === 206) return { size: range ? Number(range[1]) : undefined };
    return { size: contentLength(response) };
  } finally {
    clearTimeout(timer);
  }
}
