/**
 * Requests to one bucket: its address, its region, signatures, and what a refusal means.
 *
 * Source: Amazon S3 API reference.
 */
import { CacheportError } from "./errors.ts";
import { AwsCredentials } from "./object-credentials.ts";
import { readFault, refusal } from "./object-errors.ts";
import type { RefusalWords } from "./object-errors.ts";
import { ObjectHttp } from "./object-http.ts";
import type { ObjectReply, ObjectRequest, OpenObjectReply } from "./object-http.ts";
import type { S3Options } from "./object-options.ts";
import type { ObjectInfo, ObjectSettings } from "./object-service.ts";
import { escapeKey, escapeUri, sha256, signRequest, UNSIGNED_PAYLOAD } from "./object-sigv4.ts";
import { xmlElements, xmlText } from "./object-xml.ts";

/** Moves of a bucket to another region that one request follows. */
const MAX_MOVES = 3;

/** What is asked of a key: the query, and headers to be signed. */
export interface Ask {
  readonly method: string;
  /** Undefined for the bucket itself. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** The hex SHA-256 of the body, where it is known already. */
  readonly payload?: string;
  readonly signal?: AbortSignal | undefined;
  readonly cleanup?: boolean;
}

/** One object of a list. */
export interface ListedObject {
  readonly key: string;
  readonly info: ObjectInfo;
}

/** Asks one bucket. */
export class S3Client {
  readonly #options: S3Options;
  readonly #credentials: AwsCredentials;
  readonly #http: ObjectHttp;
  #region: string;

  constructor(options: S3Options, settings: ObjectSettings) {
    this.#options = options;
    this.#region = options.region;
    this.#credentials = new AwsCredentials(options.keys, options.region, settings);
    this.#http = new ObjectHttp({
      ...settings,
      server: `S3 at "${this.#base().host}"`,
      maxTries: options.maxTries,
      sign: (request) => this.#sign(request),
      isTemporary: (reply) => /^(?:SlowDown|RequestTimeout)$/.test(readFault(reply).code),
      renew: async (reply, sent) => {
        const { code } = readFault(reply);
        // The clock's offset was read from the answer.
        if (code === "RequestTimeTooSkewed") return true;
        // To HEAD no reason is given; that a token has run out is then told by 400.
        const isOver = /Expired|InvalidToken|TokenRefresh/.test(code);
        return isOver || (code === "" && reply.status === 400)
          ? await this.#credentials.renew(sent)
          : false;
      },
    });
  }

  /** The server's time, in milliseconds since 1970. */
  now(): number {
    return this.#http.now();
  }

  close(): void {
    this.#http.close();
  }

  /** What is signed for a part: over TLS its bytes are safe, and hashing them again costs. */
  payload(body: Uint8Array): string {
    const { protocol, hostname } = this.#base();
    const isSafe = protocol === "https:" || /^(?:127\.|localhost$|\[::1\])/.test(hostname);
    return isSafe ? UNSIGNED_PAYLOAD : sha256(body);
  }

  /** The objects under a prefix, page by page; undefined in the place of a page when listing is not permitted. */
  async *list(prefix: string): AsyncGenerator<ListedObject[] | undefined> {
    let token: string | undefined;
    do {
      const reply = await this.request({
        method: "GET",
        query: {
          "list-type": "2",
          "encoding-type": "url",
          prefix,
          ...(token !== undefined && { "continuation-token": token }),
        },
      });
      if (reply.status === 403 && readFault(reply).code === "AccessDenied") {
        yield undefined;
        return;
      }
      if (reply.status !== 200)
        throw this.refusal(reply, { action: `Cannot list "${this.#options.location}"` });
      const isEscaped = xmlText(reply.body, "EncodingType") === "url";
      yield xmlElements(reply.body, "Contents").map((entry) => {
        const key = xmlText(entry, "Key") ?? "";
        const modified = Date.parse(xmlText(entry, "LastModified") ?? "");
        return {
          key: isEscaped ? decodeURIComponent(key.replaceAll("+", " ")) : key,
          info: {
            size: Number(xmlText(entry, "Size")),
            ...(!Number.isNaN(modified) && { modified }),
          },
        };
      });
      token =
        xmlText(reply.body, "IsTruncated") === "true"
          ? xmlText(reply.body, "NextContinuationToken")
          : undefined;
    } while (token !== undefined);
  }

  /** Sends a request and reads the answer. */
  async request(ask: Ask, limit?: number): Promise<ObjectReply> {
    return await this.#follow((request) => this.#http.request(request, limit), ask);
  }

  /** Sends a request and leaves the body of a success unread. */
  async send(ask: Ask): Promise<OpenObjectReply | ObjectReply> {
    return await this.#follow((request) => this.#http.open(request), ask);
  }

  /** Sends a request to where the bucket is; S3 says so when it is in another region. */
  async #follow<T extends ObjectReply | OpenObjectReply>(
    send: (request: ObjectRequest) => Promise<T>,
    ask: Ask,
  ): Promise<T> {
    for (let moves = 0; ; moves++) {
      const { method, headers, body, signal, cleanup } = ask;
      const reply = await send({
        method,
        url: this.#url(ask),
        headers,
        body,
        payload: ask.payload,
        signal,
        cleanup,
      });
      const region = moves < MAX_MOVES ? this.#regionOf(reply) : undefined;
      if (region === undefined) return reply;
      this.#region = region;
    }
  }

  /** The region that an answer sends to; undefined when it does not. */
  #regionOf(reply: ObjectReply | OpenObjectReply): string | undefined {
    if (![301, 307, 400, 403].includes(reply.status) || "stream" in reply) return undefined;
    const region = reply.headers.get("x-amz-bucket-region") ?? xmlText(reply.body, "Region");
    const isOther = region !== this.#region && /^[a-z0-9-]{2,40}$/.test(region ?? "");
    return isOther ? (region ?? undefined) : undefined;
  }

  async #sign({ method, url, headers, payload }: ObjectRequest): Promise<Record<string, string>> {
    const keys = await this.#credentials.keys();
    const date = new Date(this.#http.now());
    const scope = { region: this.#region, service: "s3", date };
    return signRequest({ method, url, headers, payload: payload ?? UNSIGNED_PAYLOAD }, keys, scope);
  }

  /** The server's address, with the bucket's name where that is a host of its own. */
  #base(): URL {
    const { bucket, endpoint, pathStyle } = this.#options;
    const domain = this.#region?.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
    const url = new URL(endpoint ?? `https://s3.${this.#region ?? this.#options.region}.${domain}`);
    // A certificate for any bucket covers no name with a dot, and an address has no subdomain.
    const asPath =
      pathStyle ||
      bucket.includes(".") ||
      /^[\d.]+$|^\[/.test(url.hostname) ||
      bucket.includes("_");
    if (asPath) url.pathname = `${url.pathname.replace(/\/$/, "")}/${bucket}`;
    else url.hostname = `${bucket}.${url.hostname}`;
    return url;
  }

  #url({ key, query }: Ask): URL {
    const url = this.#base();
    if (key !== undefined) url.pathname = `${url.pathname.replace(/\/$/, "")}/${escapeKey(key)}`;
    // Not as a form, in which a space is a plus sign.
    url.search = Object.entries(query ?? {})
      .map(([name, value]) => `${escapeUri(name)}=${escapeUri(value)}`)
      .join("&");
    return url;
  }

  /** The error for an answer that is no success. */
  refusal(reply: ObjectReply, words: RefusalWords): CacheportError {
    const { code } = readFault(reply);
    const { bucket } = this.#options;
    if (code === "NoSuchBucket")
      return new CacheportError(
        "LOCATION_NOT_FOUND",
        `${words.action}: there is no bucket "${bucket}"`,
        { hint: "Create the bucket first, or check its name and the endpoint" },
      );
    if (reply.status === 403 && (code === "AccessDenied" || code === "" || code === "Forbidden"))
      return refusal(reply, {
        ...words,
        hint: "Check what the credentials permit: a cache needs s3:ListBucket, s3:GetObject, s3:PutObject and s3:AbortMultipartUpload, and without s3:ListBucket S3 answers 403 for what is not there",
      });
    if (reply.status === 301 || reply.status === 307)
      return new CacheportError("STORE_FAILED", `${words.action}: the bucket is somewhere else`, {
        hint: `Check region= and endpoint_url= of the bucket "${bucket}"`,
      });
    return refusal(reply, words);
  }
}
