/**
 * Authentication at a registry: nothing, basic, or bearer tokens from the server
 * that the registry's challenge names.
 *
 * Source: distribution, docs/spec/auth/token.md and oauth.md; BuildKit
 * util/resolver/authorizer.go (GET, then POST; tokens are renewed at 90 % of
 * their life, which is 60 s unless told otherwise).
 */
import * as v from "valibot";
import type { ErrorDetails } from "./errors.ts";
import { CacheportError } from "./errors.ts";
import { normalizeScopes, parseChallenges } from "./registry-challenge.ts";
import type { Challenge } from "./registry-challenge.ts";
import type { Credential, CredentialLookup } from "./registry-credentials.ts";
import { isLocalHost, isLoopbackHost, isPrivateHost } from "./registry-endpoint.ts";

/** A request to a token server. */
export interface TokenRequest {
  method: "GET" | "POST";
  url: URL;
  headers: Record<string, string>;
  body?: string;
}

/** A token server's answer. */
export interface TokenReply {
  status: number;
  body: Uint8Array;
}

/** What an {@link Authorizer} works with. */
export interface AuthorizerOptions {
  /** The registry, as the user writes it. */
  domain: string;
  /** The registry's scheme, host and port. */
  origin: () => Promise<string>;
  credentials: () => Promise<CredentialLookup>;
  /** Sends a request with retries; never adds credentials of its own. */
  send: (request: TokenRequest) => Promise<TokenReply>;
  /** The user lets a login go by plain HTTP to other machines. */
  plainHttp?: boolean | undefined;
  /** The addresses of a host name, none when they cannot be known. */
  addresses?: ((hostname: string) => Promise<readonly string[]>) | undefined;
  /** Milliseconds; for tests. */
  now?: () => number;
}

/** A field that is not what it should be counts for nothing: only the token matters. */
const text = v.fallback(v.optional(v.string()), undefined);
const TokenSchema = v.object({
  token: text,
  access_token: text,
  // Some servers write the seconds as a text.
  expires_in: v.fallback(v.pipe(v.unknown(), v.transform(Number), v.finite()), 0),
});

interface HeldToken {
  value: Promise<string>;
  /** Milliseconds since 1970 from which it is not used any more. */
  staleAt: number;
}

const CLIENT_ID = "cacheport";
/** Seconds. */
const DEFAULT_LIFE = 60;
const MAX_LIFE = 86_400;

/** Gives requests to one registry the header that it asks for. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #tokens = new Map<string, HeldToken>();
  readonly #secrets = new Set<string>();
  #challenge: Challenge | undefined;
  #lookup: Promise<CredentialLookup> | undefined;

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /**
   * The value of the Authorization header for a request, as far as a challenge of
   * this registry is known.
   *
   * @param scopes What the request does: `repository:team/app:pull`.
   * @throws {CacheportError} REGISTRY_DENIED when the token server refuses
   */
  async header(scopes: readonly string[]): Promise<string | undefined> {
    const challenge = this.#challenge;
    if (!challenge) return undefined;
    const credential = await this.#safeCredential();
    if (challenge.scheme === "basic") {
      return credential?.username === undefined ? undefined : this.#basic(credential);
    }
    if (credential?.registryToken) return `Bearer ${credential.registryToken}`;
    return `Bearer ${await this.#token(challenge, scopes, credential)}`;
  }

  /**
   * Takes up the challenge of a 401.
   *
   * @param sent The Authorization header of the request that was refused.
   * @returns True when another try has a chance.
   */
  async challenged(
    header: string | null,
    scopes: readonly string[],
    sent: string | undefined,
  ): Promise<boolean> {
    const offered = parseChallenges(header);
    const challenge =
      offered.find(({ scheme, parameters }) => scheme === "bearer" && parameters.get("realm")) ??
      offered.find(({ scheme }) => scheme === "basic");
    if (!challenge) return false;
    this.#challenge = challenge;
    const credential = await this.#safeCredential();
    if (challenge.scheme === "basic")
      return credential?.username !== undefined && this.#basic(credential) !== sent;
    if (credential?.registryToken) return sent === undefined;
    // The token that was refused has expired or was withdrawn. A token that
    // another request has got since then is kept.
    const key = tokenKey(challenge, scopes);
    const held = await this.#tokens.get(key)?.value.catch(() => undefined);
    if (sent === `Bearer ${held}`) this.#tokens.delete(key);
    return true;
  }

  /** The login, unless it would be readable on its way to the registry. */
  async #safeCredential(): Promise<Credential | undefined> {
    const { credential } = await this.#credential();
    if (credential && !this.#isProtected(new URL(await this.#options.origin())))
      throw this.#denied("it is reached by plain HTTP, and the login could be read on its way", {
        hint: { do: "allow-plain-http" },
      });
    return credential;
  }

  /** Tells whether a login may be sent to an address. */
  #isProtected({ protocol, hostname }: URL): boolean {
    return protocol === "https:" || isLoopbackHost(hostname) || this.#options.plainHttp === true;
  }

  /** Why credentials that were configured could not be had, or undefined. */
  async problem(): Promise<string | undefined> {
    const { credential, problem } = await this.#credential();
    return credential ? undefined : problem;
  }

  /** True when requests carry, or would carry, credentials of the user. */
  async authenticated(): Promise<boolean> {
    return (await this.#credential()).credential !== undefined;
  }

  /** Takes every secret that is known here out of a text from a server. */
  redact(text: string): string {
    let clean = text;
    for (const secret of this.#secrets) clean = clean.replaceAll(secret, "[secret]");
    return clean;
  }

  async #credential(): Promise<CredentialLookup> {
    this.#lookup ??= this.#options.credentials();
    const lookup = await this.#lookup;
    const { username, password, identityToken, registryToken } = lookup.credential ?? {};
    for (const secret of [password, identityToken, registryToken]) this.#conceal(secret);
    if (username !== undefined) this.#conceal(basicToken(username, password));
    return lookup;
  }

  #conceal(secret: string | undefined): void {
    if (secret && secret.length >= 3) this.#secrets.add(secret);
  }

  #basic({ username = "", password }: Credential): string {
    return `Basic ${basicToken(username, password)}`;
  }

  async #token(
    challenge: Challenge,
    scopes: readonly string[],
    credential: Credential | undefined,
  ): Promise<string> {
    const key = tokenKey(challenge, scopes);
    const known = this.#tokens.get(key);
    if (known && this.#now() < known.staleAt) return known.value;
    // Requests that come meanwhile wait for the same token.
    const token: HeldToken = {
      staleAt: Number.POSITIVE_INFINITY,
      value: this.#fetchToken(challenge, scopes, credential).then((fresh) => {
        token.staleAt = fresh.staleAt;
        return fresh.value;
      }),
    };
    this.#tokens.set(key, token);
    try {
      return await token.value;
    } catch (error) {
      if (this.#tokens.get(key) === token) this.#tokens.delete(key);
      throw error;
    }
  }

  async #fetchToken(
    challenge: Challenge,
    scopes: readonly string[],
    credential: Credential | undefined,
  ): Promise<{ value: string; staleAt: number }> {
    const realm = await this.#realm(challenge, credential);
    const service = challenge.parameters.get("service") ?? "";
    const wanted = normalizeScopes([
      ...scopes,
      ...(scopes.length === 0 ? (challenge.parameters.get("scope") ?? "").split(" ") : []),
    ]);
    let reply: TokenReply | undefined;
    if (!credential?.identityToken) {
      const url = new URL(realm);
      if (service) url.searchParams.set("service", service);
      for (const scope of wanted) url.searchParams.append("scope", scope);
      const headers: Record<string, string> = {};
      if (credential?.username !== undefined) {
        url.searchParams.set("account", credential.username);
        headers["authorization"] = this.#basic(credential);
      }
      reply = await this.#options.send({ method: "GET", url, headers });
    }
    const mayPost = credential?.identityToken ?? credential?.password;
    if (mayPost && (!reply || [401, 404, 405].includes(reply.status))) {
      const form = new URLSearchParams({ service, client_id: CLIENT_ID });
      if (wanted.length > 0) form.set("scope", wanted.join(" "));
      if (credential?.identityToken) {
        form.set("grant_type", "refresh_token");
        form.set("refresh_token", credential.identityToken);
      } else {
        form.set("grant_type", "password");
        form.set("username", credential?.username ?? "");
        form.set("password", credential?.password ?? "");
      }
      const posted = await this.#options.send({
        method: "POST",
        url: realm,
        headers: { "content-type": "application/x-www-form-urlencoded" },
        body: form.toString(),
      });
      // A server without POST says 404 or 405, which would hide what GET said.
      if (!reply || posted.status === 200) reply = posted;
    }
    return this.#readToken(reply as TokenReply, realm);
  }

  /** The token server's address; a password is not sent there unprotected. */
  async #realm(challenge: Challenge, credential: Credential | undefined): Promise<URL> {
    const origin = await this.#options.origin();
    const realm = URL.parse(challenge.parameters.get("realm") ?? "", origin);
    if (!realm || !/^https?:$/.test(realm.protocol)) {
      throw this.#denied("the address of its token server is no HTTP URL");
    }
    if (credential && realm.protocol === "http:" && origin.startsWith("https:")) {
      throw this.#denied("it is asked by HTTPS and wants the password sent by plain HTTP");
    }
    if (credential && !this.#isProtected(realm)) {
      throw this.#denied(`it wants the password sent to ${realm.host} by plain HTTP`, {
        hint: { do: "allow-plain-http" },
      });
    }
    if (await this.#leadsInside(realm, new URL(origin))) {
      throw this.#denied(
        `its token server is said to be ${realm.host}, which is this machine or its own network`,
        { hint: "A registry on a public address has no business there; ask who runs it" },
      );
    }
    realm.username = "";
    realm.password = "";
    return realm;
  }

  /**
   * Tells whether a registry elsewhere names a token server that only this machine
   * can mean, by its address or by a name that stands for such an address.
   */
  async #leadsInside(realm: URL, origin: URL): Promise<boolean> {
    if (isPrivateHost(origin.hostname) || realm.hostname === origin.hostname) return false;
    const addresses = this.#options.addresses ?? (async () => []);
    if (!isLocalHost(realm.hostname)) {
      const found = await addresses(realm.hostname);
      if (!found.some((address) => isLocalHost(address))) return false;
    }
    // A name may stand for a registry that is near all the same.
    const own = await addresses(origin.hostname);
    return own.length === 0 || !own.every((address) => isPrivateHost(address));
  }

  #readToken(reply: TokenReply, realm: URL): { value: string; staleAt: number } {
    if (reply.status !== 200) {
      const refused = reply.status === 401 || reply.status === 403;
      if (refused || reply.status === 400) {
        throw this.#denied(
          `its token server ${realm.host} refused the login with status ${reply.status}`,
        );
      }
      throw new CacheportError(
        "REGISTRY_FAILED",
        `Cannot log in to registry "${this.#options.domain}": its token server ${realm.host} answered with status ${reply.status}`,
      );
    }
    let parsed: v.InferOutput<typeof TokenSchema> | undefined;
    try {
      parsed = v.parse(TokenSchema, JSON.parse(new TextDecoder().decode(reply.body)));
    } catch {
      // What is no token document has no token.
    }
    const value = parsed?.token || parsed?.access_token;
    if (!value || !/^[\x21-\x7e]+$/.test(value)) {
      throw new CacheportError(
        "REGISTRY_FAILED",
        `Cannot log in to registry "${this.#options.domain}": its token server ${realm.host} gave no valid token`,
      );
    }
    this.#conceal(value);
    // Longer than a day is not believed.
    const life = Math.min(Math.max(parsed?.expires_in ?? 0, DEFAULT_LIFE), MAX_LIFE);
    // The server's clock may differ from this one, so the life counts from now.
    return { value, staleAt: this.#now() + life * 900 };
  }

  #denied(
    reason: string,
    { hint }: Pick<ErrorDetails, "hint"> = {
      hint: "Check the user name and the password, or log in again with docker login",
    },
  ): CacheportError {
    return new CacheportError(
      "REGISTRY_DENIED",
      `Cannot log in to registry "${this.#options.domain}": ${reason}`,
      { hint },
    );
  }

  #now(): number {
    return this.#options.now?.() ?? Date.now();
  }
}

function basicToken(username: string, password = ""): string {
  return Buffer.from(`${username}:${password}`).toString("base64");
}

function tokenKey(challenge: Challenge, scopes: readonly string[]): string {
  const { parameters } = challenge;
  return [parameters.get("realm"), parameters.get("service"), ...normalizeScopes(scopes)].join(" ");
}
