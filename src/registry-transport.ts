/**
 * Requests to one registry, with the manners that a shared service is due: few at
 * once, tried again with growing pauses, ended by a deadline.
 */
import type { Gate } from "./concurrency.ts";
import type { Trace } from "./registry-trace.ts";
import { CacheportError, interrupted, isCacheportError } from "./errors.ts";
import { Authorizer } from "./registry-auth.ts";
import type { TokenReply, TokenRequest } from "./registry-auth.ts";
import { RegistryConnection } from "./registry-connection.ts";
import type { OpenReply, RegistryCall, RequestBody } from "./registry-connection.ts";
import { findCredential } from "./registry-credentials.ts";
import type { CredentialLookup } from "./registry-credentials.ts";
import { hostAddresses } from "./registry-endpoint.ts";
import { TransportFailure, explainFailure, unreachable } from "./registry-failures.ts";
import { backOff, hostGate, parseRetryAfter, pause } from "./registry-limits.ts";
import { followLocation } from "./registry-redirect.ts";

/** How a registry is asked. */
export interface TransportOptions {
  env: Readonly<Record<string, string | undefined>>;
  home?: string | undefined;
  /** Requests to one host at once, at least 1. */
  jobs: number;
  signal?: AbortSignal | undefined;
  username?: string | undefined;
  password?: string | undefined;
  /** Certificates in PEM form that count beside the usual ones. */
  caFile?: string | undefined;
  /** As BuildKit's registry.insecure: any certificate, and plain HTTP where there is no HTTPS. */
  insecure?: boolean | undefined;
  plainHttp?: boolean | undefined;
  /** Permits uploads to private addresses of other hosts. */
  allowPrivateUpload?: boolean | undefined;
  /** Milliseconds that a request may go on without progress, all its tries together; 120 s. */
  deadlineMs?: number | undefined;
  /** Is told what the user should know and what is no failure. */
  note?: ((text: string) => void) | undefined;
  /** Takes the log of requests. */
  trace?: Trace;
  /** Milliseconds before the second try; 500. */
  retryDelayMs?: number | undefined;
}

/** An answer that was read to its end. */
export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array;
  /** The address that answered, after redirects. */
  readonly url: URL;
}

const DEADLINE = 120_000;
const RETRY_DELAY = 500;
const PROBE_TIMEOUT = 10_000;
/** Tries of one request. */
export const MAX_TRIES = 6;
/** A registry that fails in itself, or is not there, is not asked as often. */
export const MAX_TRIES_FAULT = 3;
/** Bytes of an answer that is no document. */
const MAX_REPLY = 1024 * 1024;

/** Sends requests to one registry. */
export class RegistryTransport {
  readonly domain: string;
  /** Milliseconds. */
  readonly deadline: number;
  /** Shared by all repositories of the registry. */
  readonly gate: Gate;
  readonly #options: TransportOptions;
  readonly #auth: Authorizer;
  readonly #connection: RegistryConnection;

  /**
   * @param domain The host with an optional port, as references have it.
   * @param path The repository, for credentials that are kept for one repository.
   */
  constructor(domain: string, path: string, options: TransportOptions) {
    this.domain = domain;
    this.deadline = options.deadlineMs ?? DEADLINE;
    this.gate = hostGate(domain, options.jobs);
    this.#options = options;
    this.#auth = new Authorizer({
      domain,
      origin: async () => (await this.#connection.endpoint()).origin,
      credentials: () => this.#credentials(path),
      send: (request) => this.#sendTokenRequest(request),
      plainHttp: options.plainHttp,
      addresses: hostAddresses,
    });
    this.#connection = new RegistryConnection(domain, this.#auth, {
      ...options,
      probeTimeout: Math.min(PROBE_TIMEOUT, this.deadline / 2),
    });
  }

  /** Takes every known secret out of a server's text. */
  redact(text: string): string {
    return this.#auth.redact(text);
  }

  /** Why credentials that were configured could not be had, or undefined. */
  credentialProblem(): Promise<string | undefined> {
    return this.#auth.problem();
  }

  /** True when requests carry, or would carry, credentials of the user. */
  authenticated(): Promise<boolean> {
    return this.#auth.authenticated();
  }

  /** Closes idle connections. */
  close(): void {
    this.#connection.close();
  }

  /**
   * Sends a request and reads the answer whole; tries again what may pass.
   *
   * @param limit Bytes of the body of a successful answer at most.
   * @throws {CacheportError} REGISTRY_FAILED, REGISTRY_DENIED, DOCUMENT_TOO_LARGE
   */
  async request(call: RegistryCall, limit = MAX_REPLY): Promise<Reply> {
    const leave = await this.gate.enter(call.weight);
    try {
      return await this.#withRetries(call, limit);
    } finally {
      leave();
    }
  }

  /**
   * Sends a request once and leaves the body of a success unread. An answer that is
   * no success is read.
   *
   * @param window Milliseconds that it may stand still.
   */
  async open(call: RegistryCall, window: number): Promise<OpenReply | Reply> {
    const open = await this.#connection.exchange(call, window);
    const { status } = open.response;
    if (status === 200 || status === 206) return open;
    return await readReply(open, window, MAX_REPLY);
  }

  /**
   * Resolves the Location of an answer.
   *
   * @throws {CacheportError} REGISTRY_FAILED for an address that may not be followed
   */
  async location(reply: Reply, upload: boolean): Promise<URL> {
    const rules = await this.#connection.rules(upload);
    return followLocation(reply.headers.get("location"), reply.url, rules);
  }

  /**
   * Decides what becomes of a failed try.
   *
   * @returns The failure, when a further try may help.
   * @throws {CacheportError} when the user ended it or the failure is final
   */
  temporary(error: unknown, signal: AbortSignal | undefined): TransportFailure {
    if (signal?.aborted || this.#options.signal?.aborted) throw interrupted();
    if (error instanceof CacheportError) throw error;
    const failure = explainFailure(error);
    if (!failure.temporary) throw unreachable(this.domain, failure);
    return failure;
  }

  /**
   * Waits before a further try.
   *
   * @param failures Tries that have failed.
   * @param least Milliseconds that the registry asked for.
   * @returns False, without a wait, when it would go past the milliseconds that are left.
   */
  async backOff(
    failures: number,
    left: number,
    { least = 0, signal }: { least?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<boolean> {
    const delay = this.#options.retryDelayMs ?? RETRY_DELAY;
    const wait = Math.max(backOff(failures, delay), least);
    if (wait >= left) return false;
    const signals = [signal, this.#options.signal].filter((one) => !!one);
    await pause(wait, AbortSignal.any(signals)).catch(() => {
      throw interrupted();
    });
    return true;
  }

  /**
   * Sends a request once, outside of the gate.
   *
   * @param window Milliseconds that it may stand still.
   * @param limit Bytes of the body of a success at most.
   * @returns The answer, or a failure that may pass.
   */
  async attempt(
    call: RegistryCall,
    window: number,
    limit = MAX_REPLY,
  ): Promise<Reply | TransportFailure> {
    try {
      const open = await this.#connection.exchange(call, window);
      return await readReply(open, window, limit);
    } catch (error) {
      return this.temporary(error, call.signal);
    }
  }

  async #withRetries(call: RegistryCall, limit: number): Promise<Reply> {
    const start = performance.now();
    const left = () => this.deadline - (performance.now() - start);
    for (let failures = 1; ; failures++) {
      // One hung connection must leave time for a second.
      const first = failures === 1 && !call.body;
      const window = first ? this.deadline / 2 : Math.max(left(), 1);
      const outcome = await this.attempt(call, window, limit);
      const failed = outcome instanceof TransportFailure;
      if (!failed && !isTemporaryStatus(outcome.status)) return outcome;
      if (!failed && call.hint && outcome.status !== 429) return outcome;
      const fault = failed ? outcome.kind === "refused" : outcome.status === 500;
      const again =
        failures < (fault ? MAX_TRIES_FAULT : MAX_TRIES) &&
        (await this.backOff(failures, left(), {
          least: failed ? 0 : retryAfter(outcome),
          signal: call.signal,
        }));
      if (again) continue;
      if (failed) throw unreachable(this.domain, outcome);
      return outcome;
    }
  }

  async #credentials(path: string): Promise<CredentialLookup> {
    const { username, password, env, home, note } = this.#options;
    if (username !== undefined) return { credential: { username, password: password ?? "" } };
    return await findCredential(this.domain, path, { env, home, note });
  }

  async #sendTokenRequest(request: TokenRequest): Promise<TokenReply> {
    const { method, url, headers, body } = request;
    const bytes = body && new TextEncoder().encode(body);
    const call: RegistryCall = {
      method,
      url,
      headers,
      body: bytes ? bytesBody(bytes) : undefined,
      scopes: [],
      // A redirect would carry the password to another place.
      plain: true,
    };
    return await this.#withRetries(call, MAX_REPLY).catch((error: unknown) => {
      if (!isCacheportError(error, "DOCUMENT_TOO_LARGE")) throw error;
      throw new CacheportError(
        "REGISTRY_FAILED",
        `Cannot log in to registry "${this.domain}": its token server ${url.host} sent more than any token has`,
        { cause: error },
      );
    });
  }
}

/** Tells whether an answer may be another one later. */
export function isTemporaryStatus(status: number): boolean {
  return [408, 429, 499, 500, 502, 503, 504, 522, 524].includes(status);
}

/** The milliseconds that an answer asks to wait, 0 for none. */
export function retryAfter({ headers }: Reply): number {
  return parseRetryAfter(headers.get("retry-after"), Date.now()) ?? 0;
}

/** A body of bytes in memory. */
export function bytesBody(bytes: Uint8Array): RequestBody {
  return {
    size: bytes.length,
    open: async () => ({ init: bytes as Uint8Array<ArrayBuffer> }),
  };
}

/**
 * Reads an answer whole.
 *
 * @param window Milliseconds that it may take.
 * @param limit Bytes of a success at most; of another answer only a part is read.
 */
async function readReply(
  { response, url, abort }: OpenReply,
  window: number,
  limit: number,
): Promise<Reply> {
  const { status, headers } = response;
  const cap = status < 300 ? limit : MAX_REPLY;
  const chunks: Uint8Array[] = [];
  let size = 0;
  const timer = setTimeout(
    () => abort.abort(new TransportFailure("stalled", "its answer came too slowly")),
    window,
  );
  try {
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      if (size > cap) break;
      chunks.push(chunk);
    }
  } finally {
    clearTimeout(timer);
  }
  if (size > cap) {
    abort.abort();
    if (status < 300) throw tooLarge(limit);
  }
  return { status, headers, url, body: Buffer.concat(chunks) };
}

function tooLarge(limit: number): CacheportError {
  return new CacheportError(
    "DOCUMENT_TOO_LARGE",
    `Cannot read the registry's answer: it has more than ${limit} bytes`,
    // Other answers have limits of their own.
    limit === MAX_REPLY ? {} : { hint: { do: "raise-document-limit" } },
  );
}
