/**
 * Requests to an object store: signed anew for each try, tried again with growing
 * pauses, ended when they stand still. Redirects are not followed here, so that no
 * other host sees a signature or a token.
 */
import { rootCertificates } from "node:tls";
import { traced } from "./registry-trace.ts";
import { CacheportError, interrupted, systemError } from "./errors.ts";
import type { ObjectInfo, ObjectSettings, OpenObject } from "./object-service.ts";
import { TransportFailure, explainFailure } from "./registry-failures.ts";
import { backOff, parseRetryAfter, pause } from "./registry-limits.ts";

/** A request. */
export interface ObjectRequest {
  readonly method: string;
  readonly url: URL;
  /** Beside those that the signature adds. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly body?: Uint8Array | undefined;
  /** The body's SHA-256 in hex, for services that sign it. */
  readonly payload?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Puts away what an interrupted command would leave: it goes on when the user interrupts. */
  readonly cleanup?: boolean | undefined;
}

/** An answer that was read to its end. */
export interface ObjectReply {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array;
}

/** An answer whose body is still to be read. */
export interface OpenObjectReply {
  readonly status: number;
  readonly headers: Headers;
  readonly stream: ReadableStream<Uint8Array>;
  readonly abort: AbortController;
}

/** What a service adds to the way in which it is asked. */
export interface HttpOptions extends ObjectSettings {
  /** What is asked, for messages: `S3 at "host"`. */
  readonly server: string;
  /** The headers of one try, signed with what is valid now. */
  sign(request: ObjectRequest): Promise<Readonly<Record<string, string>>>;
  /** Tells whether an answer may be another one later; beside the statuses that say so. */
  isTemporary?(reply: ObjectReply): boolean;
  /**
   * Is asked what to do about an answer that refuses, once for each request.
   *
   * @param sent The headers that were refused.
   * @returns True when the same request may fare better now.
   */
  renew?(reply: ObjectReply, sent: Readonly<Record<string, string>>): Promise<boolean>;
  /** Tries of one request; 6. */
  maxTries?: number | undefined;
  /** Milliseconds that all tries of a request may wait together; 120 s. */
  patience?: number | undefined;
}

const MAX_TRIES = 6;
const PATIENCE = 120_000;
const RETRY_DELAY = 500;
/** Milliseconds without an answer after which a try is given up. */
const WINDOW = 60_000;
/** Bytes per millisecond at which even a slow line takes a body. */
const SLOWEST = 16;
/** Milliseconds for what is put away at the end. */
const CLEANUP_TIMEOUT = 10_000;
/** Bytes of an answer that is no document. */
const MAX_REPLY = 8 * 1024 * 1024;

/** Sends requests to one object store. */
export class ObjectHttp {
  readonly #options: HttpOptions;
  readonly #session = new Bun.FetchSession();
  #certificates: Promise<string[]> | undefined;
  #skew = 0;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  /** The server's time as it was told last, in milliseconds since 1970. */
  now(): number {
    return Date.now() + this.#skew;
  }

  /** Closes idle connections. */
  close(): void {
    this.#session.close?.();
  }

  /**
   * Sends a request and reads the answer whole.
   *
   * @param limit Bytes of a success at most.
   * @throws {CacheportError} STORE_FAILED, DOCUMENT_TOO_LARGE, INTERRUPTED
   */
  async request(request: ObjectRequest, limit = MAX_REPLY): Promise<ObjectReply> {
    const reply = await this.#send(request);
    return "stream" in reply ? { ...reply, body: await this.#readAll(reply, limit) } : reply;
  }

  /**
   * Sends a request and leaves the body of a success unread.
   *
   * @throws {CacheportError} STORE_FAILED, INTERRUPTED
   */
  async open(request: ObjectRequest): Promise<OpenObjectReply | ObjectReply> {
    return await this.#send(request);
  }

  async #send(request: ObjectRequest): Promise<OpenObjectReply | ObjectReply> {
    const start = performance.now();
    const patience = this.#options.patience ?? PATIENCE;
    let renewed = false;
    let sent: Readonly<Record<string, string>> = {};
    const sign = async (): Promise<Readonly<Record<string, string>>> => {
      sent = await this.#options.sign(request);
      return sent;
    };
    for (let failures = 1; ; failures++) {
      const outcome = await this.#attempt(request, sign);
      const failed = outcome instanceof TransportFailure;
      if (!failed && outcome.status < 400) return outcome;
      if (!failed && !renewed && !("stream" in outcome) && isRefusal(outcome.status)) {
        renewed = true;
        if (await this.#options.renew?.(outcome, sent)) continue;
      }
      if (!failed && !this.#isTemporary(outcome)) return outcome;
      const least = failed
        ? 0
        : (parseRetryAfter(outcome.headers.get("retry-after"), Date.now()) ?? 0);
      const wait = Math.max(backOff(failures, this.#options.retryDelayMs ?? RETRY_DELAY), least);
      // Who is asked to come back later does so until patience ends.
      const isBusy = !failed && outcome.status === 429;
      const isLast =
        (!isBusy && failures >= (this.#options.maxTries ?? MAX_TRIES)) ||
        performance.now() - start + wait > patience;
      if (isLast && failed) throw this.#unreachable(outcome);
      if (isLast) return outcome as ObjectReply;
      await pause(wait, this.#signals(request)).catch(() => {
        throw interrupted();
      });
    }
  }

  #isTemporary(reply: OpenObjectReply | ObjectReply): boolean {
    if ([408, 429, 500, 502, 503, 504, 509].includes(reply.status)) return true;
    return !("stream" in reply) && this.#options.isTemporary?.(reply) === true;
  }

  /** One try. A success keeps its body unread, of a refusal it is read. */
  async #attempt(
    request: ObjectRequest,
    sign: () => Promise<Readonly<Record<string, string>>>,
  ): Promise<OpenObjectReply | ObjectReply | TransportFailure> {
    const { method, url, body } = request;
    const abort = new AbortController();
    const window = WINDOW + (body?.length ?? 0) / SLOWEST;
    const stall = (): void =>
      abort.abort(new TransportFailure("stalled", "it does not answer, or too slowly"));
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      const headers = await sign();
      timer = setTimeout(stall, window);
      const response = await this.#fetch(url, {
        method,
        headers: { "accept-encoding": "identity", ...headers },
        body: (body as Uint8Array<ArrayBuffer> | undefined) ?? null,
        signal: AbortSignal.any([abort.signal, this.#signals(request)]),
      });
      const { status } = response;
      this.#readTime(response.headers);
      const reply = { status, headers: response.headers };
      const stream = response.body ?? new Blob([]).stream();
      if (status < 300) return { ...reply, stream, abort };
      return { ...reply, body: await readSome(stream, abort) };
    } catch (error) {
      const isEnded = request.signal?.aborted || this.#options.signal?.aborted;
      if (isEnded && !request.cleanup) throw interrupted();
      if (error instanceof CacheportError) throw error;
      const failure = explainFailure(error);
      if (!failure.temporary) throw this.#unreachable(failure);
      return failure;
    } finally {
      clearTimeout(timer);
    }
  }

  async #fetch(url: URL, init: BunFetchRequestInit): Promise<Response> {
    const { caFile, env, insecure } = this.#options;
    const files = [caFile, env["AWS_CA_BUNDLE"], env["SSL_CERT_FILE"]].filter((path) => !!path);
    const ca = files.length > 0 ? await this.#readCa(files as string[]) : undefined;
    const options: BunFetchRequestInit & { decompress: boolean } = {
      ...init,
      redirect: "manual",
      decompress: false,
      session: this.#session,
      tls: { ...(ca && { ca }), ...(insecure && { rejectUnauthorized: false }) },
      // A proxy would look for this machine's own addresses on its machine.
      ...(isNearby(url.hostname) && { proxy: false }),
    };
    return await traced(this.#options.trace, init.method ?? "GET", url, () => fetch(url, options));
  }

  #readCa(paths: readonly string[]): Promise<string[]> {
    this.#certificates ??= Promise.all(
      paths.map(async (path) => {
        try {
          return await Bun.file(path).text();
        } catch (error) {
          throw systemError(`Cannot read certificates "${path}"`, error);
        }
      }),
    ).then((texts) => [...rootCertificates, ...texts]);
    return this.#certificates;
  }

  async #readAll({ stream, abort }: OpenObjectReply, limit: number): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const chunk of stream) {
        size += chunk.length;
        if (size > limit) break;
        chunks.push(chunk);
      }
    } catch (error) {
      if (this.#options.signal?.aborted) throw interrupted();
      throw this.#unreachable(explainFailure(error));
    }
    if (size <= limit) return Buffer.concat(chunks);
    abort.abort();
    throw new CacheportError(
      "DOCUMENT_TOO_LARGE",
      `Cannot read what ${this.#options.server} answers: it has more than ${limit} bytes`,
      { hint: { do: "raise-document-limit" } },
    );
  }

  #signals({ signal, cleanup }: ObjectRequest): AbortSignal {
    if (cleanup) return AbortSignal.timeout(CLEANUP_TIMEOUT);
    return AbortSignal.any([signal, this.#options.signal].filter((one) => !!one));
  }

  #readTime(headers: Headers): void {
    const date = Date.parse(headers.get("date") ?? "");
    if (!Number.isNaN(date))
      this.#skew = Math.abs(date - Date.now()) > 5000 ? date - Date.now() : 0;
  }

  #unreachable(failure: TransportFailure): CacheportError {
    return new CacheportError(
      "STORE_FAILED",
      `Cannot reach ${this.#options.server}: ${failure.message}`,
      {
        hint:
          failure.kind === "tls" || failure.kind === "certificate"
            ? { do: "trust-certificate", plainHttp: false }
            : "Check the address and the network, then try again",
      },
    );
  }
}

/** What the headers of an answer say of an object. */
export function objectInfo(headers: Headers): ObjectInfo {
  const modified = Date.parse(headers.get("last-modified") ?? "");
  return {
    size: Number(headers.get("content-length")),
    ...(!Number.isNaN(modified) && { modified }),
  };
}

/** What a successful GET opened. */
export function openedObject(reply: OpenObjectReply, from: number): OpenObject {
  const { status, headers, stream, abort } = reply;
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("content-range") ?? "");
  const length = headers.get("content-length");
  if (status === 206 && range)
    return { size: Number(range[2]), from: Number(range[1]), body: stream, abort };
  const size = length === null || status === 206 ? undefined : Number(length);
  return { size, from: status === 206 ? from : 0, body: stream, abort };
}

function isRefusal(status: number): boolean {
  return status === 400 || status === 401 || status === 403;
}

/** Loopback, and the link-local addresses at which a machine tells about itself. */
function isNearby(host: string): boolean {
  return /^(?:localhost|127\.|169\.254\.|\[::1\]|\[fe80:|\[fd00:ec2:)/i.test(host);
}

/** The start of an answer that is no success. */
async function readSome(
  stream: ReadableStream<Uint8Array>,
  abort: AbortController,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    size += chunk.length;
    if (size <= MAX_REPLY) continue;
    abort.abort();
    break;
  }
  return Buffer.concat(chunks);
}
