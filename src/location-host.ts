/** The registry in a location: what looks like a host, and which hosts cannot be. */
import { unusable } from "./location-context.ts";
import type { Context } from "./location-context.ts";
import { isDomain, resolveDomain } from "./reference.ts";
import type { NormalizedReference } from "./reference.ts";

/** Last labels of names that are hosts; country codes have two letters and need no list. */
const HOST_ENDINGS = new Set(
  `ai app aws azure biz build cloud com corp dev edu example gov home info int internal invalid
   lan local localdomain localhost mil name net onion org pro run site svc tech test tools
   work xyz zone`.split(/\s+/),
);

/** Two letters at the end of a name that say more of a folder than of a country. */
const NO_COUNTRIES = new Set(["bk", "db", "fs", "gz", "ok", "xz", "zz"]);

/** Characters of a host name, and of each label in it (RFC 1035, 2.3.4). */
const MAX_HOST = 253;
const MAX_LABEL = 63;

/**
 * Tells whether a text without a slash looks like a registry's address and not like the
 * name of a folder: `localhost:5055`, `127.0.0.1`, `registry.example`, `registry:5000`, but
 * not `my.cache`, `layout-1.0` or `cache:5000`.
 *
 * @param path The text without what could be a port or a tag.
 * @param rest That, with its colon: `:5055`.
 */
export function looksLikeHost(path: string, rest: string): boolean {
  if (path.startsWith("[")) return isDomain(path);
  if (!isDomain(path)) return false;
  const labels = path.toLowerCase().split(".");
  const last = labels.at(-1) ?? "";
  if (labels.length === 4 && labels.every((label) => /^\d{1,3}$/.test(label))) return true;
  if (labels.length === 1)
    return last === "localhost" || (/^:\d+$/.test(rest) && /^registry\d*$|-registry$/.test(last));
  return HOST_ENDINGS.has(last) || (/^[a-z]{2}$/.test(last) && !NO_COUNTRIES.has(last));
}

/**
 * Reads a reference whose registry is going to be asked.
 *
 * @throws {CacheportError} REFERENCE_INVALID, for hosts and ports that cannot be, too;
 *   USAGE for a registry without a repository
 */
export function registryReference(context: Context, text: string): NormalizedReference {
  const [, host = "", port = ""] = /^(\[[^\]]*\]|[^:/@[\]]*)((?::\d+)?)$/.exec(text) ?? [];
  if (host !== "" && looksLikeHost(host, port))
    throw unusable(
      context,
      `${host}${port} is a registry, and the repository is missing`,
      `Write ${host}${port}/REPOSITORY[:TAG]`,
    );
  const reference = resolveDomain(text);
  const fault = hostFault(reference.domain);
  if (fault !== undefined) throw unusable(context, fault, undefined, "REFERENCE_INVALID");
  return reference;
}

/** Why nothing can listen at an address that the grammar allows; undefined when it can. */
function hostFault(domain: string): string | undefined {
  const [, host = "", port] = /^(\[.*\]|[^:]*)(?::(\d+))?$/.exec(domain) ?? [];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535))
    return `there is no port ${port}: ports are 1 to 65535`;
  if (host.startsWith("[")) {
    const address = host.slice(1, -1);
    // The runtime knows the grammar; its module for sockets takes long to load.
    if (!URL.canParse(`http://[${address}]/`)) return `${host} is no IPv6 address`;
    return /^fe[89ab]/i.test(address)
      ? `${host} is a link-local address, which means nothing without a zone, and the address of a registry cannot have one`
      : undefined;
  }
  const labels = host.split(".");
  if (host.length > MAX_HOST || labels.some((label) => label.length > MAX_LABEL))
    return `the host name is longer than ${MAX_HOST} characters, or a part of it than ${MAX_LABEL}`;
  // A name whose last part is a number can only be an IPv4 address (WHATWG URL, 3.5).
  const isAddress = labels.length === 4 && labels.every((label) => Number(label) <= 255);
  return /^\d+$/.test(labels.at(-1) ?? "") && labels.length > 1 && !isAddress
    ? `${host} is no IPv4 address`
    : undefined;
}
