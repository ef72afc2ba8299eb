/**
 * How requests to Azure Blob are authorised: by the account's key, by a shared access
 * signature in the address, or by a token that Microsoft Entra gives.
 *
 * Source: Azure Storage REST API, "Authorize with Shared Key"; Microsoft identity
 * platform, "OAuth 2.0 client credentials flow"; the order is that of
 * DefaultAzureCredential, which BuildKit uses.
 */
import { createHmac } from "node:crypto";
import * as v from "valibot";
import { CacheportError } from "./errors.ts";
import { askForCredentials, readSecret } from "./object-credentials-remote.ts";
import type { ObjectRequest } from "./object-http.ts";
import type { ObjectSettings } from "./object-service.ts";

/** The version of the service that requests are written for. */
const VERSION = "2021-12-02";
const RESOURCE = "https://storage.azure.com/";
/** Milliseconds before its end at which a token is fetched again. */
const MARGIN = 5 * 60_000;
/** Milliseconds for the program of the Azure CLI. */
const CLI_TIMEOUT = 20_000;

/** A token and its end in milliseconds since 1970. */
interface Token {
  readonly text: string;
  readonly expires: number;
}

/** What a store is authorised by. */
export interface AzureAccess {
  readonly accountName: string;
  /** Base64. */
  readonly key: string | undefined;
  /** True when each address carries a signature of its own. */
  readonly signed: boolean;
}

/** The credentials of one storage account. */
export class AzureCredentials {
  readonly #access: AzureAccess;
  readonly #settings: ObjectSettings;
  #token: Promise<Token> | undefined;

  constructor(access: AzureAccess, settings: ObjectSettings) {
    this.#access = access;
    this.#settings = settings;
  }

  /**
   * All headers of a request.
   *
   * @param now Milliseconds since 1970 by the server's clock.
   * @throws {CacheportError} STORE_DENIED when there are no credentials
   */
  async headers(request: ObjectRequest, now: number): Promise<Record<string, string>> {
    const { key, signed, accountName } = this.#access;
    const headers: Record<string, string> = {
      ...request.headers,
      "x-ms-version": VERSION,
      "x-ms-date": new Date(now).toUTCString(),
    };
    if (key !== undefined) {
      const signature = createHmac("sha256", Buffer.from(key, "base64"))
        .update(sharedKeyText(request, headers, accountName))
        .digest("base64");
      headers["authorization"] = `SharedKey ${accountName}:${signature}`;
    } else if (!signed) {
      headers["authorization"] = `Bearer ${(await this.#currentToken()).text}`;
    }
    return headers;
  }

  /**
   * Fetches the token again, after one was refused.
   *
   * @param sent The headers that were refused.
   * @returns True when there is another one.
   */
  async renew(sent: Readonly<Record<string, string>>): Promise<boolean> {
    const refused = sent["authorization"];
    if (!refused?.startsWith("Bearer ")) return false;
    if (`Bearer ${(await this.#currentToken()).text}` !== refused) return true;
    this.#token = undefined;
    return `Bearer ${(await this.#currentToken()).text}` !== refused;
  }

  async #currentToken(): Promise<Token> {
    const known = await this.#token?.catch(() => undefined);
    if (known && Date.now() < known.expires - MARGIN) return known;
    this.#token = this.#findToken();
    return await this.#token;
  }

  async #findToken(): Promise<Token> {
    const { env } = this.#settings;
    const found =
      (await this.#clientToken()) ?? (await this.#managedToken()) ?? (await this.#cliToken());
    if (found) return found;
    throw new CacheportError(
      "STORE_DENIED",
      `Cannot find credentials for the storage account "${this.#access.accountName}"${env["AZURE_TENANT_ID"] ? ": AZURE_TENANT_ID is set, AZURE_CLIENT_ID with a secret or a token file is not" : ""}`,
      {
        hint: "Give secret_access_key= (the account's key), a signed account_url, or log in with az login; AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are looked at too",
      },
    );
  }

  /** A registered application, by its secret or by a token of the cluster that it runs in. */
  async #clientToken(): Promise<Token | undefined> {
    const { env, signal } = this.#settings;
    const tenant = env["AZURE_TENANT_ID"];
    const client = env["AZURE_CLIENT_ID"];
    const secret = env["AZURE_CLIENT_SECRET"];
    const file = env["AZURE_FEDERATED_TOKEN_FILE"];
    if (!tenant || !client || (!secret && !file)) return undefined;
    const authority = (env["AZURE_AUTHORITY_HOST"] || "https://login.microsoftonline.com").replace(
      /\/$/,
      "",
    );
    const proof = secret
      ? { client_secret: secret }
      : {
          client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
          client_assertion: await readSecret(file as string),
        };
    const body = new URLSearchParams({
      grant_type: "client_credentials",
      client_id: client,
      scope: `${RESOURCE}.default`,
      ...proof,
    }).toString();
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const url = `${authority}/${encodeURIComponent(tenant)}/oauth2/v2.0/token`;
    const what = `Microsoft Entra at "${URL.parse(authority)?.host}"`;
    const reply = await askForCredentials(what, url, { method: "POST", headers, body }, { signal });
    const token = reply?.status === 200 ? parseToken(reply.text) : undefined;
    if (token) return token;
    const said = /"error":\s*"([\w-]{1,80})"/.exec(reply?.text ?? "")?.[1];
    throw new CacheportError(
      "STORE_DENIED",
      `Cannot get a token from ${what}: ${said ?? `it answers ${reply?.status}`}`,
      { hint: "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and the secret or the token file" },
    );
  }

  /** The identity of the machine or of the app service that this runs on. */
  async #managedToken(): Promise<Token | undefined> {
    const { env, signal } = this.#settings;
    const endpoint = env["IDENTITY_ENDPOINT"];
    const header = env["IDENTITY_HEADER"];
    const client = env["AZURE_CLIENT_ID"];
    const query = new URLSearchParams({
      resource: RESOURCE,
      "api-version": endpoint && header ? "2019-08-01" : "2018-02-01",
      ...(client && { client_id: client }),
    });
    const base =
      endpoint && header
        ? endpoint
        : `${(env["AZURE_POD_IDENTITY_AUTHORITY_HOST"] || "http://169.254.169.254").replace(/\/$/, "")}/metadata/identity/oauth2/token`;
    const headers: Record<string, string> =
      endpoint && header ? { "X-IDENTITY-HEADER": header } : { Metadata: "true" };
    const options = { signal, near: true, optional: true };
    const what = "the machine's identity service";
    const reply = await askForCredentials(
      what,
      `${base}?${query.toString()}`,
      { headers },
      options,
    );
    return reply?.status === 200 ? parseToken(reply.text) : undefined;
  }

  async #cliToken(): Promise<Token | undefined> {
    const { env, signal } = this.#settings;
    const az = Bun.which("az", env["PATH"] === undefined ? {} : { PATH: env["PATH"] });
    if (az === null) return undefined;
    const child = Bun.spawn(
      [az, "account", "get-access-token", "-o", "json", "--resource", RESOURCE],
      {
        env,
        stdin: "ignore",
        stdout: "pipe",
        stderr: "ignore",
        timeout: CLI_TIMEOUT,
        ...(signal && { signal }),
      },
    );
    const [text, code] = await Promise.all([new Response(child.stdout).text(), child.exited]);
    return code === 0 ? parseToken(text) : undefined;
  }
}

const seconds = v.nullish(v.union([v.number(), v.pipe(v.string(), v.transform(Number))]));
const TokenSchema = v.looseObject({
  access_token: v.optional(v.string()),
  accessToken: v.optional(v.string()),
  /** From now. */
  expires_in: seconds,
  /** Since 1970. */
  expires_on: seconds,
});

function parseToken(text: string): Token | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(TokenSchema, value);
  const token = parsed.success ? (parsed.output.access_token ?? parsed.output.accessToken) : "";
  if (!parsed.success || !token) return undefined;
  const { expires_in: left, expires_on: end } = parsed.output;
  const expires = end ? end * 1000 : Date.now() + (left || 600) * 1000;
  return { text: token, expires };
}

/** The text of a request that the account's key signs. */
export function sharedKeyText(
  { method, url, body }: Pick<ObjectRequest, "method" | "url" | "body">,
  headers: Readonly<Record<string, string>>,
  accountName: string,
): string {
  const get = (name: string): string => headers[name] ?? "";
  const own = Object.keys(headers)
    .filter((name) => name.startsWith("x-ms-"))
    .toSorted()
    .map((name) => `${name}:${get(name)}\n`);
  const query = [...url.searchParams]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `\n${key.toLowerCase()}:${value}`);
  return [
    method,
    "",
    "",
    body && body.length > 0 ? String(body.length) : "",
    "",
    get("content-type"),
    "",
    "",
    get("if-match"),
    get("if-none-match"),
    get("if-unmodified-since"),
    get("range"),
    `${own.join("")}/${accountName}${url.pathname}${query.join("")}`,
  ].join("\n");
}
