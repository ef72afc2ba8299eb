/**
 * Which addresses a registry may send a client to. A registry is trusted with its
 * own content and no further: not with credentials for other hosts, and not with
 * requests into the network that this machine stands in.
 *
 * Sources: RFC 9110, section 15.4; go-containerregistry pkg/v1/remote/write.go
 * (upload locations on private addresses).
 */
import { CacheportError } from "./errors.ts";
import type { Remedy } from "./errors.ts";
import { isPrivateHost } from "./registry-endpoint.ts";

/** Redirects that are followed for one request. */
export const MAX_REDIRECTS = 20;

/** What decides whether an address is followed. */
export interface RedirectRules {
  /** The registry's scheme, host and port. */
  readonly origin: string;
  /** The registry, as the user writes it. */
  readonly domain: string;
  /** True when the request carries content to be stored. */
  readonly upload: boolean;
  /** Permits uploads to private addresses of other hosts. */
  readonly allowPrivateUpload: boolean;
  /** False when the user gave up on the server's certificate. */
  readonly verify: boolean;
  /** Is told of an address that was mended. */
  readonly note?: ((text: string) => void) | undefined;
}

/**
 * Resolves a Location header.
 *
 * An address on the registry's own host with `http:` where the registry is asked
 * by HTTPS is taken as HTTPS: registries behind a TLS proxy often write it so.
 *
 * One there without the port, in the registry's own part (`/v2/`), gets the port: a
 * registry behind a proxy that takes the port off does not know better.
 *
 * @param location The header's text.
 * @param base The address that answered.
 * @throws {CacheportError} REGISTRY_FAILED for what is no address that may be followed
 */
export function followLocation(location: string | null, base: URL, rules: RedirectRules): URL {
  const url = location === null ? null : URL.parse(location, base.href);
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw refused(rules, "it sent an address that is no HTTP URL");
  }
  // Name and password in an address would be sent as credentials.
  url.username = "";
  url.password = "";
  url.hash = "";
  const own = new URL(rules.origin);
  if (
    url.hostname === own.hostname &&
    url.port === "" &&
    own.port !== "" &&
    url.pathname.startsWith("/v2/")
  ) {
    rules.note?.(
      `Registry ${rules.domain} names ${url.host} without its port; ${own.host} is used`,
    );
    url.protocol = own.protocol;
    url.port = own.port;
  }
  if (url.protocol === "http:" && own.protocol === "https:") {
    if (url.hostname === own.hostname && (url.port || "443") === (own.port || "443"))
      url.protocol = "https:";
    else if (rules.verify)
      throw refused(rules, `it sent to ${url.host} by plain HTTP, though it is asked by HTTPS`, {
        do: "allow-insecure",
      });
  }
  if (
    rules.upload &&
    url.host !== own.host &&
    isPrivateHost(url.hostname) &&
    !rules.allowPrivateUpload
  ) {
    throw refused(
      rules,
      `it wants uploads to go to ${url.host}, a private address of another host`,
      { do: "allow-private-upload" },
    );
  }
  return url;
}

/** The error for a request that is sent around without end. */
export function tooManyRedirects(rules: RedirectRules): CacheportError {
  return refused(rules, `it redirected more than ${MAX_REDIRECTS} times`);
}

function refused(
  { domain }: RedirectRules,
  reason: string,
  hint?: string | Remedy,
): CacheportError {
  return new CacheportError(
    "REGISTRY_FAILED",
    `Cannot follow registry "${domain}": ${reason}`,
    hint === undefined ? {} : { hint },
  );
}
