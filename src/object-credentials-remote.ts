/**
 * Credentials that a service gives: Amazon's token service, a container's and an
 * instance's own.
 *
 * Source: AWS STS API reference; Amazon ECS "IAM roles for tasks"; Amazon EC2 "Use the
 * Instance Metadata Service", version 2.
 */
import * as v from "valibot";
import { CacheportError, systemError } from "./errors.ts";
import type { ObjectSettings } from "./object-service.ts";
import { sha256, signRequest } from "./object-sigv4.ts";
import type { AwsKeys, TimedKeys } from "./object-sigv4.ts";
import { xmlText } from "./object-xml.ts";

/** Milliseconds for an answer of a service on the network, and of this machine's own. */
const TIMEOUT = 20_000;
const METADATA_TIMEOUT = 1500;
/** Tries of each. */
const TRIES = 3;
const MAX_REPLY = 256 * 1024;

/** An answer of a service that gives credentials. */
export interface GivenReply {
  readonly status: number;
  readonly text: string;
}

/**
 * Asks a service that gives credentials. What is sent and what comes back are secrets:
 * no redirect is followed, and no failure repeats them.
 *
 * @param what What is asked, for messages: `the metadata service`.
 * @returns Undefined when nobody answers and `optional` is set.
 * @throws {CacheportError} STORE_FAILED
 */
export async function askForCredentials(
  what: string,
  url: string,
  init: { method?: string; headers?: Record<string, string>; body?: string },
  options: { signal?: AbortSignal | undefined; near?: boolean; optional?: boolean },
): Promise<GivenReply | undefined> {
  const { near = false, optional = false } = options;
  let reason = "it does not answer";
  for (let attempt = 1; attempt <= (optional ? 1 : TRIES); attempt++) {
    options.signal?.throwIfAborted();
    try {
      const timeout = AbortSignal.timeout(near ? METADATA_TIMEOUT : TIMEOUT);
      const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
      const request = { ...init, redirect: "manual" as const, signal };
      const response = await fetch(url, near ? { ...request, proxy: false } : request);
      const text = (await response.text()).slice(0, MAX_REPLY);
      if (response.status < 500) return { status: response.status, text };
      reason = `it answers ${response.status}`;
    } catch {
      options.signal?.throwIfAborted();
    }
  }
  if (optional) return undefined;
  throw new CacheportError("STORE_FAILED", `Cannot get credentials from ${what}: ${reason}`, {
    hint: "Check that it can be reached from here, then try again",
  });
}

const KeysSchema = v.looseObject({
  AccessKeyId: v.pipe(v.string(), v.nonEmpty()),
  SecretAccessKey: v.pipe(v.string(), v.nonEmpty()),
  Token: v.nullish(v.string()),
  SessionToken: v.nullish(v.string()),
  Expiration: v.nullish(v.string()),
});

/** Reads credentials in JSON; undefined for anything else. */
export function parseKeys(text: string): TimedKeys | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(KeysSchema, value);
  if (!parsed.success) return undefined;
  const { AccessKeyId, SecretAccessKey, Token, SessionToken, Expiration } = parsed.output;
  return {
    accessKeyId: AccessKeyId,
    secretAccessKey: SecretAccessKey,
    sessionToken: Token || SessionToken || undefined,
    expires: parseEnd(Expiration),
  };
}

function parseEnd(text: string | null | undefined): number | undefined {
  const end = Date.parse(text ?? "");
  return Number.isNaN(end) ? undefined : end;
}

/** A role that a token from a file permits: GitHub's and Kubernetes' way. */
export interface WebIdentity {
  readonly tokenFile: string;
  readonly role: string;
  readonly session: string | undefined;
}

/** @throws {CacheportError} STORE_DENIED, STORE_FAILED */
export async function webIdentityKeys(
  { tokenFile, role, session }: WebIdentity,
  region: string,
  settings: ObjectSettings,
): Promise<TimedKeys> {
  const token = await readSecret(tokenFile);
  const form = { RoleArn: role, RoleSessionName: session || SESSION, WebIdentityToken: token };
  return await askSts("AssumeRoleWithWebIdentity", form, undefined, region, settings);
}

/** A role that other credentials permit. */
export interface AssumedRole {
  readonly role: string;
  readonly session: string | undefined;
  readonly externalId: string | undefined;
  readonly keys: AwsKeys;
}

/** @throws {CacheportError} STORE_DENIED, STORE_FAILED */
export async function assumeRoleKeys(
  { role, session, externalId, keys }: AssumedRole,
  region: string,
  settings: ObjectSettings,
): Promise<TimedKeys> {
  const form = {
    RoleArn: role,
    RoleSessionName: session || SESSION,
    ...(externalId && { ExternalId: externalId }),
  };
  return await askSts("AssumeRole", form, keys, region, settings);
}

const SESSION = "cacheport";

async function askSts(
  action: string,
  form: Readonly<Record<string, string>>,
  keys: AwsKeys | undefined,
  region: string,
  { env, signal }: ObjectSettings,
): Promise<TimedKeys> {
  const domain = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  const url = new URL(
    env["AWS_ENDPOINT_URL_STS"] || env["AWS_ENDPOINT_URL"] || `https://sts.${region}.${domain}/`,
  );
  const body = new URLSearchParams({ Action: action, Version: "2011-06-15", ...form }).toString();
  const plain = { "content-type": "application/x-www-form-urlencoded; charset=utf-8" };
  const payload = sha256(body);
  const scope = { region, service: "sts", date: new Date() };
  const headers = keys
    ? signRequest({ method: "POST", url, headers: plain, payload }, keys, scope)
    : plain;
  const request = { method: "POST", headers, body };
  const reply = await askForCredentials(`STS at "${url.host}"`, url.href, request, { signal });
  const given = xmlText(reply?.text ?? "", "Credentials") === undefined ? "" : (reply?.text ?? "");
  const accessKeyId = xmlText(given, "AccessKeyId");
  const secretAccessKey = xmlText(given, "SecretAccessKey");
  if (reply?.status === 200 && accessKeyId && secretAccessKey) {
    const sessionToken = xmlText(given, "SessionToken");
    const expires = parseEnd(xmlText(given, "Expiration"));
    return { accessKeyId, secretAccessKey, sessionToken, expires };
  }
  const said = ["Code", "Message"].map((tag) => xmlText(reply?.text ?? "", tag) ?? "");
  throw new CacheportError(
    "STORE_DENIED",
    `Cannot take on the role "${form["RoleArn"]}": ${
      said
        .filter((text) => text !== "")
        .join(": ")
        .slice(0, 300) || `STS answers ${reply?.status}`
    }`,
    { hint: "Check the role's trust policy, and that the token was made for this account" },
  );
}

/** Where containers of Amazon find their credentials, beside this machine's own addresses. */
const CONTAINER_HOSTS =
  /^(?:169\.254\.170\.(?:2|23)|\[fd00:ec2::23\]|127\.\d+\.\d+\.\d+|localhost|\[::1\])$/;

/**
 * The credentials of a task or a pod.
 *
 * @returns Undefined when the environment tells of none.
 * @throws {CacheportError} STORE_DENIED, STORE_FAILED
 */
export async function containerKeys({
  env,
  signal,
}: ObjectSettings): Promise<TimedKeys | undefined> {
  const relative = env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
  const full = env["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
  const url = URL.parse(relative ? `http://169.254.170.2${relative}` : (full ?? ""));
  if (!relative && !full) return undefined;
  if (!url || (url.protocol !== "https:" && !CONTAINER_HOSTS.test(url.hostname)))
    throw new CacheportError(
      "STORE_DENIED",
      "Cannot ask for a container's credentials: AWS_CONTAINER_CREDENTIALS_FULL_URI leads to another machine without TLS",
    );
  const file = env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];
  const token = file ? await readSecret(file) : env["AWS_CONTAINER_AUTHORIZATION_TOKEN"];
  const headers: Record<string, string> = token ? { authorization: token } : {};
  const what = "the container's credential service";
  const near = CONTAINER_HOSTS.test(url.hostname);
  const reply = await askForCredentials(what, url.href, { headers }, { signal, near });
  const keys = parseKeys(reply?.text ?? "");
  if (reply?.status === 200 && keys) return keys;
  throw new CacheportError(
    "STORE_DENIED",
    `Cannot get credentials from ${what}: it answers ${reply?.status}${keys ? "" : " without any"}`,
  );
}

/**
 * The credentials of a machine's role, by version 2 of the metadata service alone:
 * version 1 gives them to whoever can make this machine send a request.
 *
 * @returns Undefined when there is no such service, or no role.
 */
export async function instanceKeys({
  env,
  signal,
}: ObjectSettings): Promise<TimedKeys | undefined> {
  if (env["AWS_EC2_METADATA_DISABLED"]?.toLowerCase() === "true") return undefined;
  const base = (env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] || "http://169.254.169.254").replace(
    /\/$/,
    "",
  );
  const what = "the metadata service";
  const ask = (path: string, init: Parameters<typeof askForCredentials>[2]) =>
    askForCredentials(what, `${base}/latest/${path}`, init, { signal, near: true, optional: true });
  const lifetime = { "x-aws-ec2-metadata-token-ttl-seconds": "21600" };
  const token = await ask("api/token", { method: "PUT", headers: lifetime });
  if (token?.status !== 200 || token.text === "") return undefined;
  const headers = { "x-aws-ec2-metadata-token": token.text };
  const folder = "meta-data/iam/security-credentials/";
  const roles = await ask(folder, { headers });
  const role = roles?.status === 200 ? roles.text.split("\n")[0]?.trim() : undefined;
  if (!role) return undefined;
  const reply = await ask(folder + encodeURIComponent(role), { headers });
  return reply?.status === 200 ? parseKeys(reply.text) : undefined;
}

/** Reads a token from a file. @throws {CacheportError} IO_FAILED, PERMISSION_DENIED */
export async function readSecret(path: string): Promise<string> {
  try {
    return (await Bun.file(path).text()).trim();
  } catch (error) {
    throw systemError(`Cannot read token "${path}"`, error);
  }
}
