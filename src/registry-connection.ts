/**
 * One exchange with a registry: where it is, TLS, the proxy, credentials and
 * redirects. Trying again is the transport's business.
 */
import { X509Certificate } from "node:crypto";
import { rootCertificates } from "node:tls";
import { CacheportError, systemError } from "./errors.ts";
import type { Authorizer } from "./registry-auth.ts";
import { hasPort, isLoopbackHost, registryEndpoints } from "./registry-endpoint.ts";
import type { Endpoint, EndpointOptions } from "./registry-endpoint.ts";
import { TransportFailure, explainFailure } from "./registry-failures.ts";
import { proxyOf, traced } from "./registry-trace.ts";
import type { Trace } from "./registry-trace.ts";
import { Warnings } from "./registry-warnings.ts";
import { StallWatch } from "./registry-limits.ts";
import { MAX_REDIRECTS, followLocation, tooManyRedirects } from "./registry-redirect.ts";
import type { RedirectRules } from "./registry-redirect.ts";

/** How a registry is reached. */
export interface ConnectionOptions extends EndpointOptions {
  env: Readonly<Record<string, string | undefined>>;
  signal?: AbortSignal | undefined;
  allowPrivateUpload?: boolean | undefined;
  /** Is told what the user should know and what is no failure. */
  note?: ((text: string) => void) | undefined;
  /** Takes the log of requests. */
  trace?: Trace;
  /** Milliseconds in which a port must show whether it speaks TLS. */
  probeTimeout: number;
}

/** A body that can be opened anew for each try. */
export interface RequestBody {
  /** Bytes. */
  readonly size: number;
  /**
   * @param watch Is told when bytes are handed over, and when more are asked for.
   * @param nearby True when they go to this very machine, unencrypted.
   */
  open(watch: StallWatch, nearby: boolean): Promise<OpenBody>;
}

/** A body on its way. */
export interface OpenBody {
  /** A stream tells the watch of its progress; of the rest only the end is seen. */
  readonly init: Uint8Array<ArrayBuffer> | Blob | ReadableStream<Uint8Array>;
  /** Why it could not be read to its end; undefined when it could. */
  failure?(): unknown;
  close?(): Promise<void>;
}

/** A request. */
export interface RegistryCall {
  readonly method: string;
  /** A path from the registry's root, or an address that the registry gave. */
  readonly url: string | URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RequestBody | undefined;
  /** What a token must permit. */
  readonly scopes: readonly string[];
  /** True when the request carries content to be stored. */
  readonly upload?: boolean;
  /** True when it goes where it is sent and nowhere else, without a login. */
  readonly plain?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** True when the answer is a hint: a registry that fails at it is not asked again. */
  readonly hint?: boolean;
  /** Places of the host's gate that the request takes, 1 unless told otherwise. */
  readonly weight?: number;
}

/** An answer whose body is still to be read. */
export interface OpenReply {
  readonly response: Response;
  /** The address that answered, after redirects. */
  readonly url: URL;
  /** Ends the exchange. */
  readonly abort: AbortController;
}

/** A registry may move a blob to its place before it answers: bytes per millisecond. */
const COMMIT_RATE = 1024;
/** Bytes of an unread body that are worth reading to keep the connection. */
const SMALL_REST = 65_536;
const REST_TIMEOUT = 1000;

/** Exchanges requests and answers with one registry. */
export class RegistryConnection {
  readonly domain: string;
  readonly #options: ConnectionOptions;
  readonly #auth: Authorizer;
  readonly #session = new Bun.FetchSession();
  #endpoint: Promise<Endpoint> | undefined;
  #certificates: Promise<string[]> | undefined;
  /** The challenge that `/v2/` gives, null for none. */
  #asked: Promise<string | null> | undefined;
  readonly #warnings: Warnings;

  /** @param domain The host with an optional port, as references have it. */
  constructor(domain: string, auth: Authorizer, options: ConnectionOptions) {
    this.domain = domain;
    this.#auth = auth;
    this.#options = options;
    this.#warnings = new Warnings(domain, options.note, (text) => auth.redact(text));
  }

  /** Closes idle connections. */
  close(): void {
    this.#session.close();
  }

  /** Where the registry is; asks it, when there are several ways. */
  endpoint(): Promise<Endpoint> {
    this.#endpoint ??= this.#findEndpoint().catch((error: unknown) => {
      this.#endpoint = undefined;
      throw error;
    });
    return this.#endpoint;
  }

  /** The rules for addresses that the registry sends to. */
  async rules(upload: boolean): Promise<RedirectRules> {
    const { origin, verify } = await this.endpoint();
    const allowPrivateUpload = this.#options.allowPrivateUpload ?? false;
    const note = (text: string): void => this.#warnings.say(text);
    return { origin, domain: this.domain, upload, verify, allowPrivateUpload, note };
  }

  /**
   * Sends a request once: follows redirects and answers challenges. Credentials go
   * to the registry's own origin alone.
   *
   * @param window Milliseconds that it may stand still.
   */
  async exchange(call: RegistryCall, window: number): Promise<OpenReply> {
    const way = await this.endpoint();
    const rules = await this.rules(call.upload === true);
    let url = new URL(call.url, way.origin);
    let { method } = call;
    let trusted = url.origin === way.origin && !call.plain;
    let challenged = false;
    let redirects = 0;
    for (;;) {
      const login = trusted ? await this.#auth.header(call.scopes) : undefined;
      const open = await this.#send(call, method, url, way, login, window);
      const { status, headers } = open.response;
      if (trusted) this.#warnings.tell(headers.get("warning"));
      const refused = status === 401 || (login === undefined && (status === 403 || status === 404));
      if (refused && trusted && !challenged) {
        challenged = true;
        const challenge = status === 401 ? headers.get("www-authenticate") : null;
        const again =
          (await this.#auth.challenged(challenge, call.scopes, login)) ||
          (login === undefined && (await this.#askForChallenge(way, call.scopes, window)));
        if (again) {
          await discard(open);
          continue;
        }
      }
      const location = headers.get("location");
      const redirected = [301, 302, 303, 307, 308].includes(status);
      if (!redirected || location === null || call.plain) return open;
      await discard(open);
      if (redirects++ >= MAX_REDIRECTS) throw tooManyRedirects(rules);
      url = followLocation(location, url, rules);
      if (status === 303 && method !== "HEAD") method = "GET";
      trusted &&= url.origin === way.origin;
    }
  }

  /**
   * Asks `/v2/` how a login is to be sent, for registries that refuse without a
   * challenge or say that nothing is there; once, and only for a login that exists.
   *
   * @see sonatype/nexus-public issue 217
   */
  async #askForChallenge(
    way: Endpoint,
    scopes: readonly string[],
    window: number,
  ): Promise<boolean> {
    this.#asked ??= (async () => {
      if (!(await this.#auth.authenticated().catch(() => false))) return null;
      const url = new URL("/v2/", way.origin);
      const open = await this.#send(
        { method: "GET", url, scopes: [] },
        "GET",
        url,
        way,
        undefined,
        window,
      );
      await discard(open);
      const { status, headers } = open.response;
      return status === 401 ? headers.get("www-authenticate") : null;
    })();
    const challenge = await this.#asked;
    return challenge !== null && (await this.#auth.challenged(challenge, scopes, undefined));
  }

  async #send(
    call: RegistryCall,
    method: string,
    url: URL,
    way: Endpoint,
    login: string | undefined,
    window: number,
  ): Promise<OpenReply> {
    const abort = new AbortController();
    const stall = () => abort.abort(stalled(window));
    const body = method === call.method ? call.body : undefined;
    const headers: Record<string, string> = {
      "user-agent": "cacheport",
      "accept-encoding": "identity",
      ...call.headers,
    };
    if (login !== undefined) headers["authorization"] = login;
    if (body) headers["content-length"] = String(body.size);
    const commit = (body?.size ?? 0) / COMMIT_RATE;
    const watch = new StallWatch(window, stall, commit);
    const nearby = url.protocol === "http:" && isLoopbackHost(url.hostname);
    const open = await body?.open(watch, nearby);
    try {
      if (!(open?.init instanceof ReadableStream)) watch.waitForAnswer();
      const response = await this.#fetch(url, way, {
        method,
        headers,
        signal: this.#signal(abort, call.signal),
        body: open?.init ?? null,
      });
      return { response, url, abort };
    } catch (error) {
      throw open?.failure?.() ?? error;
    } finally {
      watch.stop();
      await open?.close?.();
    }
  }

  async #fetch(url: URL, way: Endpoint, init: BunFetchRequestInit): Promise<Response> {
    const { caFile } = this.#options;
    const ca = caFile === undefined ? undefined : await this.#readCa(caFile);
    const options: BunFetchRequestInit & { decompress: boolean } = {
      ...init,
      redirect: "manual",
      decompress: false,
      session: this.#session,
      tls: {
        ...(ca && { ca }),
        ...(!way.verify && { rejectUnauthorized: false }),
      },
      // A proxy would look for this machine's ports on its own machine.
      ...(isLoopbackHost(url.hostname) && { proxy: false }),
    };
    const { trace, env } = this.#options;
    try {
      return await traced(trace, init.method ?? "GET", url, () => fetch(url, options));
    } catch (error) {
      const proxy = isLoopbackHost(url.hostname) ? undefined : proxyOf(url, env);
      if (!proxy || !["refused", "dns"].includes(explainFailure(error).kind)) throw error;
      throw new TransportFailure(
        "proxy",
        `the proxy ${proxy.address} (${proxy.variable}) does not answer`,
      );
    }
  }

  /** The usual certificates and those of the user's file. */
  #readCa(caFile: string): Promise<string[]> {
    const files = [caFile, this.#options.env["SSL_CERT_FILE"]];
    this.#certificates ??= Promise.all(
      files.filter((path) => !!path).map((path) => readCertificates(path ?? "")),
    ).then((texts) => [...rootCertificates, ...texts]);
    return this.#certificates;
  }

  /** @throws {TransportFailure} when no way leads there */
  async #findEndpoint(): Promise<Endpoint> {
    const ways = registryEndpoints(this.domain, this.#options);
    const failures: TransportFailure[] = [];
    for (const way of ways) {
      const failure = ways.length > 1 ? await this.#probe(way) : undefined;
      if (!failure) return way;
      failures.push(failure);
      if (!this.#mayFallBack(failure)) break;
    }
    // A certificate that is not trusted says more than a port without HTTP.
    throw failures.find(({ kind }) => kind === "certificate") ?? failures[0];
  }

  /** Asks whether a port speaks a protocol; any answer in it will do. */
  async #probe(way: Endpoint): Promise<TransportFailure | undefined> {
    const abort = new AbortController();
    const timer = setTimeout(
      () => abort.abort(stalled(this.#options.probeTimeout)),
      this.#options.probeTimeout,
    );
    try {
      const response = await this.#fetch(new URL("/v2/", way.origin), way, {
        signal: this.#signal(abort, undefined),
      });
      // Servers that speak TLS say so to a plain request, most of them with 400.
      const text = response.status === 400 ? await response.text() : "";
      await discard({ response, abort, url: new URL(way.origin) });
      return way.origin.startsWith("http:") && /\bHTTPS\b/.test(text)
        ? new TransportFailure("tls", "it wants to be asked by HTTPS")
        : undefined;
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      if (error instanceof CacheportError) throw error;
      const failure = explainFailure(error);
      // A server that waits for a request waits for ever: asking again would not help.
      return failure.kind === "stalled" && way.origin.startsWith("https:")
        ? new TransportFailure("silent", "it does not answer to TLS; it may speak plain HTTP")
        : failure;
    } finally {
      clearTimeout(timer);
    }
  }

  /** BuildKit's rule: without a port, a silent HTTPS port leads to HTTP as well. */
  #mayFallBack({ kind }: TransportFailure): boolean {
    if (kind === "refused" || kind === "stalled" || kind === "silent")
      return this.#options.insecure === true && !hasPort(this.domain);
    return kind !== "dns" && kind !== "certificate";
  }

  #signal(abort: AbortController, signal: AbortSignal | undefined) {
    const outer = [signal, this.#options.signal].filter((one) => !!one);
    return AbortSignal.any([abort.signal, ...outer]);
  }
}

function stalled(window: number): TransportFailure {
  const seconds = Math.max(Math.round(window / 1000), 1);
  return new TransportFailure("stalled", `no progress for ${seconds} s`);
}

/** @throws {CacheportError} USAGE for a file without a certificate, and what reading it throws */
async function readCertificates(path: string): Promise<string> {
  let text: string;
  try {
    text = await Bun.file(path).text();
  } catch (error) {
    throw systemError(`Cannot read certificates "${path}"`, error);
  }
  const blocks = text.match(
    /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[^-]+-----END [A-Z0-9 ]+-----/g,
  );
  const wrong = !blocks
    ? "it holds no certificate in PEM form"
    : blocks.every(isCertificate)
      ? undefined
      : "a certificate in it is damaged";
  if (wrong === undefined) return text;
  throw new CacheportError("USAGE", `Cannot read certificates "${path}": ${wrong}`, {
    hint: "A PEM file has lines of -----BEGIN CERTIFICATE-----; openssl x509 -inform DER -in FILE converts the binary form",
  });
}

function isCertificate(block: string): boolean {
  try {
    return new X509Certificate(block).subject !== undefined;
  } catch {
    return false;
  }
}

/** Lets an answer go that nobody reads; a short one is read to keep the connection. */
export async function discard({ response, abort }: OpenReply): Promise<void> {
  if (!response.body) return;
  const length = Number(response.headers.get("content-length") ?? Number.NaN);
  if (!(length <= SMALL_REST)) return abort.abort();
  const timer = setTimeout(() => abort.abort(), REST_TIMEOUT);
  await response.arrayBuffer().catch(() => {});
  clearTimeout(timer);
}
