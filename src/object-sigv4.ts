/**
 * Amazon's Signature Version 4: each request is signed over few headers, so that
 * proxies and other vendors' stores may add and change the rest.
 *
 * Source: AWS General Reference, "Create a signed AWS API request".
 */
import { createHmac } from "node:crypto";

/** What signs requests. */
export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

/** Credentials that may run out. */
export interface TimedKeys extends AwsKeys {
  /** Milliseconds since 1970; undefined for never. */
  readonly expires?: number | undefined;
}

/** A request that is to be signed. */
export interface SignableRequest {
  readonly method: string;
  /** Its path is signed as it stands. */
  readonly url: URL;
  /** Signed beside the host and the date: what the service must not take otherwise. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Hex of the body's SHA-256, or `UNSIGNED-PAYLOAD`. */
  readonly payload: string;
}

/** For whom a request is signed. */
export interface SigningScope {
  readonly region: string;
  /** `s3` or `sts`. */
  readonly service: string;
  readonly date: Date;
}

/** Stands for a body that is not signed. */
export const UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD";

/** The SHA-256 of nothing. */
export const EMPTY_PAYLOAD = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** The headers that are signed; what a request carries beside them may change on its way. */
const SIGNED = /^(?:host|content-md5|range|x-amz-.*)$/;

/**
 * Signs a request.
 *
 * @returns All headers to send: those that were given, the date, the token and the signature.
 * @example
 * signRequest(
 *   { method: "GET", url: new URL("https://b.s3.us-east-1.amazonaws.com/k"), payload: EMPTY_PAYLOAD },
 *   { accessKeyId: "AKID", secretAccessKey: "secret" },
 *   { region: "us-east-1", service: "s3", date: new Date() },
 * ); // { authorization: "AWS4-HMAC-SHA256 Credential=AKID/...", "x-amz-date": ... }
 */
export function signRequest(
  request: SignableRequest,
  keys: AwsKeys,
  { region, service, date }: SigningScope,
): Record<string, string> {
  const time = `${date.toISOString().replace(/[-:]|\.\d+/g, "")}`;
  const day = time.slice(0, 8);
  const headers: Record<string, string> = {
    ...request.headers,
    "x-amz-date": time,
    ...(service === "s3" && { "x-amz-content-sha256": request.payload }),
    ...(keys.sessionToken && { "x-amz-security-token": keys.sessionToken }),
  };
  const scope = `${day}/${region}/${service}/aws4_request`;
  const { text, names } = canonicalRequest(request, headers);
  const toSign = ["AWS4-HMAC-SHA256", time, scope, sha256(text)].join("\n");
  const signature = [day, region, service, "aws4_request", toSign]
    .reduce<Buffer | string>((key, part) => hmac(key, part), `AWS4${keys.secretAccessKey}`)
    .toString("hex");
  return {
    ...headers,
    authorization: `AWS4-HMAC-SHA256 Credential=${keys.accessKeyId}/${scope}, SignedHeaders=${names}, Signature=${signature}`,
  };
}

/** The text of a request that the signature is made of, and the names of the headers in it. */
export function canonicalRequest(
  { method, url, payload }: SignableRequest,
  headers: Readonly<Record<string, string>>,
): { text: string; names: string } {
  const signed = Object.entries({ ...headers, host: url.host })
    .map(([name, value]): [string, string] => [name.toLowerCase(), value])
    .filter(([name]) => SIGNED.test(name))
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  const names = signed.map(([name]) => name).join(";");
  const lines = signed.map(([name, value]) => `${name}:${value.trim().replace(/ +/g, " ")}\n`);
  const text = [method, url.pathname, canonicalQuery(url), lines.join(""), names, payload].join(
    "\n",
  );
  return { text, names };
}

/** A query in the order and the escapes that are signed. */
function canonicalQuery(url: URL): string {
  return [...url.searchParams]
    .map(([key, value]) => `${escapeUri(key)}=${escapeUri(value)}`)
    .toSorted()
    .join("&");
}

/** Escapes everything but letters, digits and `-._~`. */
export function escapeUri(text: string): string {
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** The path of a key: each part between slashes escaped. */
export function escapeKey(key: string): string {
  return key.split("/").map(escapeUri).join("/");
}

/** The SHA-256 of a text or of bytes in hex. */
export function sha256(content: string | Uint8Array): string {
  return Bun.CryptoHasher.hash("sha256", content, "hex");
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}
