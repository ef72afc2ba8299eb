/**
 * Uploads of blobs: a mount where the registry has the blob in another repository,
 * else one PUT, else one PATCH, else pieces. Only the PUT with `digest=` ends an
 * upload, whatever the answers before it say.
 *
 * Sources: OCI distribution-spec, "Pushing blobs"; aws/containers-roadmap issue 2831
 * (ECR answers 201 to a PATCH); moby/buildkit issue 1130 (Artifactory refuses the
 * whole blob in one PUT and takes it by PATCH).
 */
import type { Descriptor } from "./descriptor.ts";
import { digestAlgorithm, digestMismatch, isDigest } from "./digest.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import type { RegistryCall, RequestBody } from "./registry-connection.ts";
import { parseFaults } from "./registry-errors.ts";
import { TransportFailure, unreachable } from "./registry-failures.ts";
import type { BlobFeed } from "./registry-body.ts";
import { contentLength } from "./registry-presence.ts";
import { MAX_TRIES, bytesBody, isTemporaryStatus, retryAfter } from "./registry-transport.ts";
import type { RegistryTransport, Reply } from "./registry-transport.ts";

/** What an upload needs to know. */
export interface UploadOptions {
  /** The repository. */
  readonly path: string;
  /** Another repository of the registry that may have the blob. */
  readonly mountFrom?: string | undefined;
  /** Makes the blob's bytes available; called only when they are needed. */
  openFeed(): Promise<BlobFeed>;
  /** Enters the gate for a transfer. */
  enter(): Promise<() => void>;
  /** Bytes of a piece, when there have to be pieces. */
  readonly chunkSize: number;
  readonly signal?: AbortSignal | undefined;
  /** Is told the number of bytes that were sent since the last call. */
  readonly onBytes?: ((count: number) => void) | undefined;
  /** Is told that the repository took the beginning of an upload. */
  begun(): void;
  /** The error for an answer that is no success. */
  refuse(reply: Reply): Promise<CacheportError>;
}

/** Where the bytes of one upload go. */
interface Session {
  location: URL;
  /** Bytes that a piece must have at least; undefined when nothing was said. */
  leastChunk: number | undefined;
}

/** How the bytes are sent: one PUT, one PATCH as Docker does it, or PATCH by PATCH. */
type Way = "whole" | "patch" | "pieces";

/** How a try ended: with another way to go, or `again` after something that may pass. */
type Outcome = "done" | Way | { again: TransportFailure | Reply };

/** Answers to one PUT after which smaller requests have a chance. */
const TOO_LARGE = [413, 416];
/** Answers to one PUT after which a PATCH has a chance. */
const WANTS_PATCH = [404, 405, 411, 415, 501];

/**
 * Uploads a blob.
 *
 * @returns How it came there.
 * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, BLOB_MISSING,
 * REGISTRY_DENIED, REGISTRY_REJECTED, REGISTRY_FAILED, NO_SPACE
 */
export async function uploadBlob(
  transport: RegistryTransport,
  descriptor: Descriptor,
  options: UploadOptions,
): Promise<"copied" | "mounted"> {
  return await new Upload(transport, descriptor, options).run();
}

class Upload {
  readonly #transport: RegistryTransport;
  readonly #descriptor: Descriptor;
  readonly #options: UploadOptions;
  #failures = 0;
  /** Bytes that have been told as sent. */
  #told = 0;
  /** The registry has told another number of bytes than it was sent. */
  #disagrees = false;
  /** What was sent by the own count was wrong, so the registry's count is taken. */
  #believes = false;
  /** The registry has lost an upload that was sent whole. */
  #lost = false;

  constructor(transport: RegistryTransport, descriptor: Descriptor, options: UploadOptions) {
    this.#transport = transport;
    this.#descriptor = descriptor;
    this.#options = options;
  }

  async run(): Promise<"copied" | "mounted"> {
    let session = await this.#begin(this.#options.mountFrom);
    if (!session) return "mounted";
    const feed = await this.#options.openFeed();
    try {
      let way: Way = session.leastChunk === undefined ? "whole" : "pieces";
      for (;;) {
        const outcome = await this.#transfer(session, feed, way);
        if (outcome === "done") return "copied";
        if (typeof outcome === "string") way = outcome;
        else await this.#waitOrFail(outcome.again);
        // A failed upload cannot be told from a half-done one, so it starts anew.
        session = (await this.#begin(undefined)) as Session;
      }
    } catch (error) {
      await this.#cancel(session as Session);
      throw error;
    } finally {
      await feed.close();
    }
  }

  /** Starts an upload; undefined when the registry mounted the blob. */
  async #begin(mountFrom: string | undefined): Promise<Session | undefined> {
    const { path, signal } = this.#options;
    const query =
      mountFrom === undefined
        ? ""
        : `?mount=${encodeURIComponent(this.#descriptor.digest)}&from=${encodeURIComponent(mountFrom)}`;
    const scopes = [`repository:${path}:pull,push`];
    if (mountFrom !== undefined) scopes.push(`repository:${mountFrom}:pull`);
    const reply = await this.#transport
      .request({
        method: "POST",
        url: `/v2/${path}/blobs/uploads/${query}`,
        body: bytesBody(new Uint8Array()),
        scopes,
        signal,
      })
      .catch((error: unknown) => {
        // A token for both repositories may be refused where one is not.
        if (mountFrom !== undefined && isCacheportError(error, "REGISTRY_DENIED")) return undefined;
        throw error;
      });
    if (reply?.status === 201 && mountFrom !== undefined) return undefined;
    if (reply && isSuccess(reply) && reply.headers.has("location")) {
      this.#options.begun();
      return await this.#session(reply);
    }
    if (mountFrom !== undefined) return await this.#begin(undefined);
    throw await this.#options.refuse(reply as Reply);
  }

  async #session(reply: Reply): Promise<Session> {
    const least = Number(reply.headers.get("oci-chunk-min-length") ?? "");
    return {
      location: await this.#transport.location(reply, true),
      leastChunk: Number.isSafeInteger(least) && least > 0 ? least : undefined,
    };
  }

  async #transfer(session: Session, feed: BlobFeed, way: Way): Promise<Outcome> {
    const leave = await this.#options.enter();
    try {
      if (way !== "whole") return await this.#sendPieces(session, feed, way);
      const body = feed.body(0, this.#descriptor.size, this.#tell);
      const reply = await this.#put(session, body);
      if (!(reply instanceof TransportFailure)) {
        if (TOO_LARGE.includes(reply.status)) return "pieces";
        if (WANTS_PATCH.includes(reply.status) && (this.#lost || !saysLost(reply))) return "patch";
        this.#lost ||= saysLost(reply);
      }
      return await this.#judge(reply, feed);
    } finally {
      leave();
    }
  }

  async #put(session: Session, body: RequestBody): Promise<Reply | TransportFailure> {
    const url = new URL(session.location);
    // The rest of the query may be signed, so it is not touched.
    url.search += `${url.search ? "&" : "?"}digest=${encodeURIComponent(this.#descriptor.digest)}`;
    return await this.#send("PUT", url, body);
  }

  async #send(
    method: string,
    url: URL,
    body?: RequestBody,
    headers: Record<string, string> = {},
  ): Promise<Reply | TransportFailure> {
    const call: RegistryCall = {
      method,
      url,
      headers: body ? { "content-type": "application/octet-stream", ...headers } : headers,
      body,
      scopes: [`repository:${this.#options.path}:pull,push`],
      upload: true,
      signal: this.#options.signal,
    };
    return await this.#transport.attempt(call, this.#transport.deadline);
  }

  /** Tells of progress; what is sent a second time is not told again. */
  readonly #tell = (position: number): void => {
    if (position > this.#told) this.#options.onBytes?.(position - this.#told);
    this.#told = Math.max(this.#told, position);
  };

  /** Says what the answer to a closing PUT means, or the refusal of what went before it. */
  async #judge(reply: Reply | TransportFailure, feed: BlobFeed): Promise<Outcome> {
    if (reply instanceof TransportFailure) return { again: reply };
    const { status, body } = reply;
    if (isSuccess(reply)) return await this.#confirm(reply);
    const codes = faultCodes(body);
    const lost = codes.some((code) => /^(?:BLOB_UPLOAD_|DIGEST_INVALID$|SIZE_INVALID$)/.test(code));
    if (codes.includes("DIGEST_INVALID")) await feed.verify();
    this.#believes ||= lost && this.#disagrees;
    // A proxy that cut an idle connection answers 400, without a registry's words.
    const proxy = status === 400 && codes.length === 0;
    if (isTemporaryStatus(status) || lost || proxy) return { again: reply };
    throw await this.#options.refuse(reply);
  }

  /**
   * Ends an upload that the registry says it has. It may know the bytes by another
   * algorithm; then, and where its answer is not the one for a stored blob, it is asked.
   */
  async #confirm(reply: Reply): Promise<Outcome> {
    const { digest } = this.#descriptor;
    const stored = reply.headers.get("docker-content-digest");
    const other = isDigest(stored) && stored !== digest;
    if (other && digestAlgorithm(stored) === digestAlgorithm(digest))
      throw digestMismatch(digest, stored);
    if (other || (reply.status !== 201 && reply.status !== 204)) {
      const found = await this.#transport.attempt(
        {
          method: "HEAD",
          url: `/v2/${this.#options.path}/blobs/${digest}`,
          scopes: [`repository:${this.#options.path}:pull,push`],
          signal: this.#options.signal,
        },
        this.#transport.deadline,
      );
      const length = found instanceof TransportFailure ? undefined : contentLength(found);
      const absent =
        !(found instanceof TransportFailure) &&
        (found.status === 404 || (found.status === 200 && length !== this.#descriptor.size));
      if (absent && !other) return { again: reply };
      if (absent) throw otherName(this.#transport.domain, digest, stored);
    }
    this.#tell(this.#descriptor.size);
    return "done";
  }

  /**
   * Sends the blob by PATCH and closes the upload. The own count of what was sent
   * decides where the next piece starts: registries tell too little, count from the
   * piece's start, or are off by one.
   */
  async #sendPieces(session: Session, feed: BlobFeed, way: Way): Promise<Outcome> {
    const { size } = this.#descriptor;
    const least = Math.max(this.#options.chunkSize, session.leastChunk ?? 0);
    const chunk = way === "patch" ? size : least;
    let offset = 0;
    while (offset < size) {
      const length = Math.min(chunk, size - offset);
      const whole = way === "patch" && offset === 0;
      const reply = await this.#send(
        "PATCH",
        session.location,
        feed.body(offset, length, this.#tell),
        whole ? {} : { "content-range": `${offset}-${offset + length - 1}` },
      );
      if (!(reply instanceof TransportFailure) && isSuccess(reply)) {
        if (reply.headers.has("location"))
          session.location = await this.#transport.location(reply, true);
        const reached = this.#reached(reply, offset + length);
        if (reached > offset) this.#failures = 0;
        else await this.#waitOrFail(reply);
        offset = Math.min(reached, size);
        continue;
      }
      if (whole && !(reply instanceof TransportFailure) && TOO_LARGE.includes(reply.status))
        return "pieces";
      const passes =
        reply instanceof TransportFailure ||
        reply.status === 416 ||
        isTemporaryStatus(reply.status);
      if (!passes) return await this.#judge(reply, feed);
      // The own count was refused; in any other case nobody can tell what a registry
      // that counts in its own way has.
      const refused = !(reply instanceof TransportFailure) && reply.status === 416;
      this.#believes ||= this.#disagrees && refused;
      if (this.#disagrees && !this.#believes) return { again: reply };
      await this.#waitOrFail(reply);
      const status = await this.#send("GET", session.location);
      if (status instanceof TransportFailure || !isSuccess(status)) return { again: status };
      if (status.headers.has("location"))
        session.location = await this.#transport.location(status, true);
      offset = Math.min(rangeEnd(status) ?? 0, size);
    }
    return await this.#judge(await this.#put(session, bytesBody(new Uint8Array())), feed);
  }

  /** Bytes that the registry has after a piece that ended there. */
  #reached(reply: Reply, end: number): number {
    const told = rangeEnd(reply);
    if (told === undefined || told === end || end === 1) return end;
    this.#disagrees = true;
    return this.#believes ? told : end;
  }

  async #waitOrFail(failure: TransportFailure | Reply): Promise<void> {
    this.#failures += 1;
    const { deadline, domain } = this.#transport;
    const failed = failure instanceof TransportFailure;
    // What stood still has used up the deadline.
    const over = this.#failures >= MAX_TRIES || (failed && failure.kind === "stalled");
    const again =
      !over &&
      (await this.#transport.backOff(this.#failures, deadline, {
        least: failed ? 0 : retryAfter(failure),
        signal: this.#options.signal,
      }));
    if (again) return;
    throw failed ? unreachable(domain, failure) : await this.#options.refuse(failure);
  }

  /** Tells the registry that the rest will not come; whether it listens does not matter. */
  async #cancel(session: Session): Promise<void> {
    try {
      await this.#transport.attempt(
        {
          method: "DELETE",
          url: session.location,
          scopes: [`repository:${this.#options.path}:pull,push`],
        },
        1000,
      );
    } catch {
      // The failure that led here is the one to tell.
    }
  }
}

function isSuccess({ status }: Reply): boolean {
  return status >= 200 && status < 300;
}

function faultCodes(body: Uint8Array): string[] {
  return parseFaults(body).map(({ code }) => code.toUpperCase());
}

/** Tells whether a registry says that it does not know the upload any more. */
function saysLost({ body }: Reply): boolean {
  return faultCodes(body).includes("BLOB_UPLOAD_UNKNOWN");
}

function otherName(domain: string, digest: string, stored: string | null): CacheportError {
  return new CacheportError(
    "REGISTRY_REJECTED",
    `Cannot write blob "${digest}" to registry "${domain}": it keeps the bytes as ${stored} and does not find them by the digest that documents name`,
    { hint: "This registry does not support the digest's algorithm" },
  );
}

/** The number of bytes that a registry says it has, from `Range: 0-N`. */
function rangeEnd({ headers }: Reply): number | undefined {
  const match = /^(?:bytes=)?0-(\d{1,15})$/.exec(headers.get("range") ?? "");
  if (!match) return undefined;
  const last = Number(match[1]);
  // Registries write 0-0 for nothing as well as for a single byte.
  return last === 0 ? 0 : last + 1;
}
