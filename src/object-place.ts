/**
 * Which object store is meant, in BuildKit's own words: the attributes as they were
 * written, before any default or environment is looked at.
 *
 * Source: BuildKit cache/remotecache/{s3,azblob,gha}.
 */

/** The object stores that BuildKit keeps caches in. */
export const OBJECT_KINDS = ["s3", "azblob", "gha"] as const;

/** A kind of object store. */
export type ObjectKind = (typeof OBJECT_KINDS)[number];

/** An object store as the user wrote it. */
export interface ObjectPlace {
  readonly kind: ObjectKind;
  /** Keys in lower case, values as they were written; secrets among them. */
  readonly attributes: ReadonlyMap<string, string>;
}

/** What a cache is called when nobody says otherwise. */
export const DEFAULT_NAME = "buildkit";

/** All attributes of each kind, those first that say where the store is. */
const PLACE_ATTRIBUTES: Record<ObjectKind, readonly string[]> = {
  s3: ["bucket", "region", "prefix", "manifests_prefix", "blobs_prefix", "endpoint_url"],
  azblob: [
    "account_url",
    "account_name",
    "container",
    "prefix",
    "manifests_prefix",
    "blobs_prefix",
  ],
  gha: ["url", "url_v2", "version", "repository"],
};
const OTHER_ATTRIBUTES: Record<ObjectKind, readonly string[]> = {
  s3: [
    "touch_refresh",
    "use_path_style",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "upload_parallelism",
    "disable_accept_encoding",
    "retry_mode",
    "retry_max_attempts",
  ],
  azblob: ["secret_access_key"],
  gha: ["token", "timeout", "ghtoken"],
};
const SECRETS = new Set([
  "access_key_id",
  "secret_access_key",
  "session_token",
  "token",
  "ghtoken",
]);

/** Tells whether a kind of store has an attribute of this name, names aside. */
export function isPlaceAttribute(kind: ObjectKind, key: string): boolean {
  return PLACE_ATTRIBUTES[kind].includes(key) || OTHER_ATTRIBUTES[kind].includes(key);
}

/** The attribute that names a cache in a kind of store. */
export function nameAttribute(kind: ObjectKind): "name" | "scope" {
  return kind === "gha" ? "scope" : "name";
}

/**
 * The names in what a name attribute says. In s3 and azblob it is a list.
 *
 * Source: BuildKit s3.go, azblob/utils.go: split at `;`, nothing trimmed.
 */
export function splitNames(kind: ObjectKind, text: string): string[] {
  return kind === "gha" ? [text] : text.split(";");
}

/**
 * The option text of a place for people to read: secrets are left out, and what names
 * something in it where that is not asked for.
 */
export function placeText(
  { kind, attributes }: ObjectPlace,
  { names = true }: { names?: boolean } = {},
): string {
  const fields = [`type=${kind}`];
  for (const [key, value] of attributes) {
    if (key === "type") continue;
    if (!names && (key === nameAttribute(kind) || key === "digest")) continue;
    fields.push(`${key}=${SECRETS.has(key) ? "***" : withoutSignature(value)}`);
  }
  return fields.map((field) => (/[",\n]/.test(field) ? quoteField(field) : field)).join(",");
}

/**
 * Takes the secrets of option texts out of a text for people, also of one that could not
 * be read as such.
 *
 * @example
 * maskSecrets("type=gha,token=abc,scope=x"); // "type=gha,token=***,scope=x"
 */
export function maskSecrets(text: string): string {
  return text.replace(/\b(\w*(?:access_key|access_key_id|token|sig))=[^,\s&]+/gi, "$1=***");
}

/** Tells whether two places hold the same blobs and the same names. */
export function isSamePlace(a: ObjectPlace, b: ObjectPlace): boolean {
  return (
    a.kind === b.kind &&
    PLACE_ATTRIBUTES[a.kind].every(
      (key) => (a.attributes.get(key) ?? "") === (b.attributes.get(key) ?? ""),
    )
  );
}

/** A signed address carries its own password. */
function withoutSignature(value: string): string {
  return value.replace(/([?&]sig=)[^&\s]+/i, "$1***");
}

function quoteField(field: string): string {
  return `"${field.replaceAll('"', '""')}"`;
}
