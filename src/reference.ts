/**
 * Image references: `[domain/]path[:tag][@digest]`, their grammar, Docker's rules
 * for what may be left out, and the short form that Docker shows.
 *
 * Source: distribution/reference, reference.go (the grammar in its package
 * comment), regexp.go, normalize.go, helpers.go.
 */
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";

/** The parts of a reference. */
export interface Reference {
  /** Host with an optional port; null where the text names none. */
  domain: string | null;
  /** The repository inside the domain: `library/alpine`. */
  path: string;
  tag: string | null;
  digest: Digest | null;
}

/** A reference whose registry is known. */
export type NormalizedReference = Reference & { domain: string };

const DEFAULT_DOMAIN = "docker.io";
const LEGACY_DEFAULT_DOMAIN = "index.docker.io";
const OFFICIAL_PREFIX = "library/";
const DEFAULT_TAG = "latest";

/** Characters of the path at most. */
const MAX_PATH_LENGTH = 255;
/** Longer than any reference can be in practice; keeps the work on hostile text small. */
const MAX_TEXT_LENGTH = 4096;

// The pieces of the grammar, under its own names. No piece can match one text in
// two ways, so a failed match costs no more than reading the text.

/** domain-component: letters and digits, hyphens inside. */
const DOMAIN_COMPONENT = "[a-zA-Z0-9]+(?:-+[a-zA-Z0-9]+)*";
/** domain-name: components joined by dots. An IPv4 address is one as well. */
const DOMAIN_NAME = `${DOMAIN_COMPONENT}(?:\\.${DOMAIN_COMPONENT})*`;
/** IPv6address: loosely, hex digits and colons in brackets; zones are not allowed. */
const IPV6_ADDRESS = "\\[[a-fA-F0-9:]+\\]";
/** domain: host [":" port-number]. */
const DOMAIN = `(?:${DOMAIN_NAME}|${IPV6_ADDRESS})(?::[0-9]+)?`;
/** separator: one dot, one or two underscores, or any number of hyphens. */
const SEPARATOR = "(?:\\.|__?|-+)";
/** path-component: alpha-numeric [separator alpha-numeric]*. */
const PATH_COMPONENT = `[a-z0-9]+(?:${SEPARATOR}[a-z0-9]+)*`;
/** path, also called remote-name: components joined by slashes. */
const PATH = `${PATH_COMPONENT}(?:/${PATH_COMPONENT})*`;
/** tag: 1 to 128 characters, the first one no dot and no hyphen. */
const TAG = "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}";
/** digest-algorithm: components joined by one of + . - _ */
const DIGEST_ALGORITHM = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*";
/** digest: algorithm ":" at least 32 hex digits. */
const DIGEST = `${DIGEST_ALGORITHM}:[0-9a-fA-F]{32,}`;

/** reference: [domain "/"] path [":" tag] ["@" digest], the parts captured. */
const REFERENCE = new RegExp(`^(?:(${DOMAIN})/)?(${PATH})(?::(${TAG}))?(?:@(${DIGEST}))?$`);
const ANCHORED_DOMAIN = new RegExp(`^${DOMAIN}$`);
const ANCHORED_COMPONENT = new RegExp(`^${PATH_COMPONENT}$`);
const ANCHORED_TAG = new RegExp(`^${TAG}$`);
const ANCHORED_DIGEST = new RegExp(`^${DIGEST}$`);
/** identifier: the ID of an image, which would otherwise be read as a name. */
const IDENTIFIER = /^[a-f0-9]{64}$/;

/**
 * Parses a reference as it is written; nothing is added. The first component is
 * the domain whenever it can be one: `foo/bar` has the domain `foo`. For what a
 * user types see {@link normalizeReference}.
 *
 * @throws {CacheportError} REFERENCE_INVALID
 * @example
 * parseReference("reg.example:5000/team/app:1.0").path; // "team/app"
 */
export function parseReference(text: string): Reference {
  return parseAs(text, text);
}

/**
 * Parses a reference by Docker's rules: no domain means docker.io, a single
 * component there means `library/`, `index.docker.io` is docker.io, and with
 * neither tag nor digest the tag is `latest`.
 *
 * @throws {CacheportError} REFERENCE_INVALID
 * @example
 * formatReference(normalizeReference("alpine")); // "docker.io/library/alpine:latest"
 */
export function normalizeReference(text: string): NormalizedReference {
  const reference = resolveDomain(text);
  return reference.tag === null && reference.digest === null
    ? { ...reference, tag: DEFAULT_TAG }
    : reference;
}

/**
 * Parses a reference by Docker's rules for the name alone: like
 * {@link normalizeReference}, but no tag is added.
 *
 * @throws {CacheportError} REFERENCE_INVALID
 */
export function resolveDomain(text: string): NormalizedReference {
  const [domain, rest] = splitDomain(text);
  const reference = parseAs(`${domain}/${rest}`, text);
  // `my_host.example/app` is a path to the grammar, and a host to Docker's rules.
  if (reference.domain !== domain) throw invalid(text, explainHost(domain));
  return { ...reference, domain };
}

/** The text of a reference; {@link parseReference} gives the same reference back. */
export function formatReference(reference: Reference): string {
  const { domain, path, tag, digest } = reference;
  return [
    domain === null ? "" : `${domain}/`,
    path,
    tag === null ? "" : `:${tag}`,
    digest === null ? "" : `@${digest}`,
  ].join("");
}

/**
 * The short text that Docker shows: without docker.io and its `library/`.
 *
 * @example
 * familiarReference(normalizeReference("docker.io/library/alpine")); // "alpine:latest"
 */
export function familiarReference(reference: Reference): string {
  if (reference.domain !== DEFAULT_DOMAIN) return formatReference(reference);
  const official = /^library\/([^/]+)$/.exec(reference.path)?.[1];
  return formatReference({
    ...reference,
    domain: null,
    path: official ?? reference.path,
  });
}

/**
 * The normalised full text of an image name, for comparing names that were
 * written in different ways; undefined for a text that is no reference. A bare
 * tag such as `v1` reads as an image name too: ask {@link isTag} first.
 */
export function canonicalName(text: string): string | undefined {
  try {
    return formatReference(normalizeReference(text));
  } catch (error) {
    if (error instanceof CacheportError) return undefined;
    throw error;
  }
}

/** Tells whether the whole text is a domain: a host with an optional port. */
export function isDomain(text: string): boolean {
  return ANCHORED_DOMAIN.test(text);
}

/** Tells whether the whole text is a tag. */
export function isTag(text: string): boolean {
  return ANCHORED_TAG.test(text);
}

/** The tag of a name: of an image name its tag, of a tag itself; undefined for any other text. */
export function tagOfName(name: string): string | undefined {
  if (isTag(name)) return name;
  try {
    return normalizeReference(name).tag ?? undefined;
  } catch (error) {
    if (error instanceof CacheportError) return undefined;
    throw error;
  }
}

/** Parses a text; messages show it as the user wrote it. */
function parseAs(text: string, written: string): Reference {
  if (text.length > MAX_TEXT_LENGTH)
    throw invalid(written, `it is longer than ${MAX_TEXT_LENGTH} characters`);
  const match = REFERENCE.exec(text);
  if (match === null || IDENTIFIER.test(written)) throw explain(text, written);
  const [, domain = null, path = "", tag = null, digest = null] = match;
  if (path.length > MAX_PATH_LENGTH)
    throw invalid(
      written,
      `the repository name has ${path.length} characters and may have ${MAX_PATH_LENGTH}`,
    );
  if (digest !== null && !isDigest(digest)) throw badDigest(written, digest);
  return { domain, path, tag, digest };
}

/** Splits a name into the domain that Docker would ask and the rest. */
function splitDomain(text: string): [domain: string, rest: string] {
  const slash = text.indexOf("/");
  if (slash === -1) return [DEFAULT_DOMAIN, OFFICIAL_PREFIX + text];
  const first = text.slice(0, slash);
  const [domain, rest] = isRegistryHost(first)
    ? [first === LEGACY_DEFAULT_DOMAIN ? DEFAULT_DOMAIN : first, text.slice(slash + 1)]
    : [DEFAULT_DOMAIN, text];
  return domain === DEFAULT_DOMAIN && !rest.includes("/")
    ? [domain, OFFICIAL_PREFIX + rest]
    : [domain, rest];
}

/**
 * Tells whether the first component of a name is a host and no part of the path:
 * `localhost`, or with a dot, a colon or an upper-case letter, which no path has.
 */
function isRegistryHost(component: string): boolean {
  return component === "localhost" || /[.:A-Z]/.test(component);
}

function invalid(written: string, reason: string, hint?: string): CacheportError {
  return new CacheportError(
    "REFERENCE_INVALID",
    `Cannot parse reference ${quote(written)}: ${reason}`,
    { hint },
  );
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}...` : text);
}

function badDigest(written: string, digest: string): CacheportError {
  const algorithm = digest.slice(0, digest.indexOf(":"));
  const known = algorithm === "sha256" || algorithm === "sha512";
  return invalid(
    written,
    ANCHORED_DIGEST.test(digest) && !known
      ? `the digest algorithm ${quote(algorithm)} is not supported`
      : "the digest after @ must be sha256: with 64 or sha512: with 128 lower-case hex digits",
  );
}

/** Finds out which rule a text breaks that does not match the grammar. */
function explain(text: string, written: string): CacheportError {
  if (written === "") return invalid(written, "it is empty");
  if (IDENTIFIER.test(written))
    return invalid(
      written,
      "64 hex digits are the ID of an image and no name",
      `For content by its digest write NAME@sha256:${written}`,
    );
  const scheme = /^[a-zA-Z][a-zA-Z0-9+.-]*:\/\//.exec(written)?.[0];
  if (scheme !== undefined)
    return invalid(written, "a reference has no scheme", `Leave out ${scheme}`);
  if (/\s/.test(written)) return invalid(written, "it contains white space");
  const [, name = "", tag, digest] = /^(.*?)(?::([^/:@\]]*))?(?:@(.*))?$/s.exec(text) ?? [];
  if (digest !== undefined && !ANCHORED_DIGEST.test(digest)) return badDigest(written, digest);
  if (tag !== undefined && !isTag(tag))
    return invalid(
      written,
      `the tag ${quote(tag)} is not 1 to 128 letters, digits, dots, underscores and hyphens, the first no dot or hyphen`,
    );
  if (REFERENCE.test(text.toLowerCase()))
    return invalid(written, "the repository name must be lower case");
  return invalid(written, explainName(name));
}

function explainHost(host: string): string {
  return `${quote(host)} is no host name with an optional port`;
}

/** The first part of a name that the grammar refuses, and why. */
function explainName(name: string): string {
  const components = name.split("/");
  const first = components[0] ?? "";
  if (components.length > 1 && (isDomain(first) || isRegistryHost(first))) {
    if (!isDomain(first)) return explainHost(first);
    components.shift();
  }
  const bad = components.find((part) => !ANCHORED_COMPONENT.test(part));
  return bad === undefined || bad === ""
    ? "a part of the repository name is empty"
    : `${quote(bad)} in the repository name is not lower-case letters and digits with single dots, one or two underscores or hyphens between them`;
}
