/**
 * The option text of `--cache-to`, `--cache-from` and `--output`: one line of CSV
 * whose fields are `key=value`, and the attributes that caches and images take.
 *
 * Source: tonistiigi/go-csvvalue (the grammar); BuildKit cmd/buildctl/build/
 * exportcache.go (keys), cache/remotecache/{local,registry} and
 * util/compression/attrs.go (values and error words).
 */
import type { CacheShape } from "./cache-manifest.ts";
import { CacheportError } from "./errors.ts";

/** How new layers are to be compressed, in BuildKit's words. */
export type CompressionType = "uncompressed" | "gzip" | "estargz" | "zstd";

/** What an option text says beyond the place and the name. */
export interface LocationAttributes {
  /** `image-manifest`: write the cache as an image manifest. */
  imageManifest?: boolean | undefined;
  /** `oci-mediatypes`: OCI media types rather than Docker's. */
  ociMediaTypes?: boolean | undefined;
  compression?: CompressionType | undefined;
  /** From 0, the fastest, to 9 for gzip and estargz and to 22 for zstd. */
  compressionLevel?: number | undefined;
  /** Recompress layers that exist in another compression, too. */
  forceCompression?: boolean | undefined;
  /** `registry.insecure`: TLS without verification, then plain HTTP. */
  insecure?: boolean | undefined;
  /** A tar that `docker load` reads: `type=docker`. */
  dockerArchive?: boolean | undefined;
  /** Sentences on attributes that were accepted and have no effect here. */
  notes: string[];
}

/** The shape of cache that attributes ask for; BuildKit's own default where they do not. */
export function shapeOfAttributes({
  imageManifest,
  ociMediaTypes,
}: Pick<LocationAttributes, "imageManifest" | "ociMediaTypes"> = {}): CacheShape {
  if (ociMediaTypes === false) return "docker-list";
  return imageManifest === false ? "oci-index" : "image-manifest";
}

/** The attributes of an option text by their lower-case keys. */
export type Attributes = ReadonlyMap<string, string>;

/**
 * Tells whether a text is meant as an option text: it starts with a key and one
 * of its fields is `type=`.
 */
export function isOptionText(text: string): boolean {
  return /^"?[a-z][a-z.-]*=/i.test(text) && /(?:^|,)"?type=/i.test(text);
}

/**
 * Splits one line of CSV into its fields. A field that starts with a quote runs
 * to the closing quote, `""` inside it is a quote; spaces are kept; one line
 * break at the end is allowed.
 *
 * @throws {CacheportError} USAGE
 * @example
 * parseCsvLine('type=local,"src=a,b"'); // ["type=local", "src=a,b"]
 */
export function parseCsvLine(line: string): string[] {
  const text = line.replace(/\r?\n$/, "");
  if (text === "") throw unreadable(line, "it is empty");
  const fields: string[] = [];
  let position = 0;
  for (;;) {
    const [field, end] =
      text[position] === '"' ? readQuoted(text, position) : readPlain(text, position);
    fields.push(field);
    if (end === text.length) return fields;
    position = end + 1;
  }
}

/** Reads a field without quotes; gives it and the position of its comma or end. */
function readPlain(text: string, start: number): [string, number] {
  const comma = text.indexOf(",", start);
  const end = comma === -1 ? text.length : comma;
  const field = text.slice(start, end);
  const quote = field.indexOf('"');
  if (quote !== -1)
    throw unreadable(text, `bare " in non-quoted field at column ${start + quote + 1}`);
  return [field, end];
}

/** Reads a field in quotes; gives it and the position of its comma or end. */
function readQuoted(text: string, start: number): [string, number] {
  const parts: string[] = [];
  let position = start + 1;
  for (;;) {
    const quote = text.indexOf('"', position);
    const after = quote + 1;
    if (quote === -1) throw unreadable(text, `missing " after the field at column ${start + 1}`);
    parts.push(text.slice(position, quote));
    if (after === text.length || text[after] === ",") return [parts.join('"'), after];
    if (text[after] !== '"')
      throw unreadable(text, `extraneous " in quoted field at column ${after}`);
    position = after + 1;
  }
}

/**
 * Parses an option text. Keys are made lower case, values stay as they are; the
 * first `=` of a field parts them and the last of two equal keys counts.
 *
 * @throws {CacheportError} USAGE
 * @example
 * parseAttributes("type=local,src=cache").get("src"); // "cache"
 */
export function parseAttributes(text: string): Attributes {
  const attributes = new Map<string, string>();
  for (const field of parseCsvLine(text)) {
    const equals = field.indexOf("=");
    if (equals === -1)
      throw unreadable(
        text,
        `invalid value ${field}`,
        'Each part between commas is key=value; put a value with a comma in quotes: "src=a,b"',
      );
    attributes.set(field.slice(0, equals).toLowerCase(), field.slice(equals + 1));
  }
  return attributes;
}

const GO_TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const GO_FALSE = new Set(["0", "f", "F", "FALSE", "false", "False"]);

/**
 * Parses a boolean as Go's strconv.ParseBool does: undefined for what it refuses,
 * `yes` and `on` among that.
 */
export function parseGoBool(text: string): boolean | undefined {
  if (GO_TRUE.has(text)) return true;
  return GO_FALSE.has(text) ? false : undefined;
}

/** Attributes that say where something is or what it is called. */
const PLACE_KEYS = ["type", "src", "dest", "ref", "tag", "digest", "name", "tar"];
/** Attributes that {@link readAttributes} gives values for. */
const VALUE_KEYS = [
  "image-manifest",
  "oci-mediatypes",
  "compression",
  "compression-level",
  "force-compression",
  "registry.insecure",
];
/** Attributes of BuildKit that mean nothing without a build, and why. */
export const IGNORED_KEYS: ReadonlyMap<string, string> = new Map([
  ["mode", "a cache is taken with all that it holds"],
  ["ignore-error", "an error always ends the command"],
  ["reset", "`cacheport gc` removes what is no longer named"],
  ["unpack", "nothing is unpacked"],
  ["push", "the kind of location decides that"],
  ["store", "there is no image store"],
  ["buildinfo", "there is no build"],
  ["rewrite-timestamp", "layers keep their times"],
  ["prefer-nondist-layers", "layers keep their media types"],
  ["name-canonical", "names are written as they are given"],
  ["dangling-name-prefix", "names are written as they are given"],
]);

/**
 * Reads the attributes that are no place and no name.
 *
 * @param text The whole option text, for messages.
 * @throws {CacheportError} USAGE
 */
export function readAttributes(attributes: Attributes, text: string): LocationAttributes {
  const bool = (key: string) => {
    const value = attributes.get(key);
    const parsed = value === undefined ? undefined : parseGoBool(value);
    if (value !== undefined && parsed === undefined)
      throw unreadable(
        text,
        `failed to parse ${key}: ${JSON.stringify(value)} is no boolean`,
        "Write true or false",
      );
    return parsed;
  };
  const ociMediaTypes = bool("oci-mediatypes");
  // Without image types there is only one shape left (BuildKit v0.22 and later).
  const imageManifest = bool("image-manifest") ?? (ociMediaTypes === false ? false : undefined);
  if (imageManifest === true && ociMediaTypes === false)
    throw unreadable(
      text,
      "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
      "Leave out one of image-manifest=true and oci-mediatypes=false",
    );
  const compression = readCompression(attributes.get("compression"), text);
  return {
    imageManifest,
    ociMediaTypes,
    compression,
    compressionLevel: readLevel(attributes, compression, text),
    forceCompression: readForce(attributes.get("force-compression"), text),
    insecure: bool("registry.insecure"),
    notes: readNotes(attributes, text),
  };
}

function readCompression(value: string | undefined, text: string): CompressionType | undefined {
  switch (value) {
    case undefined:
    case "uncompressed":
    case "gzip":
    case "estargz":
    case "zstd":
      return value;
    default:
      throw unreadable(
        text,
        `unsupported compression type ${value}`,
        "Write one of uncompressed, gzip, estargz and zstd",
      );
  }
}

function readForce(value: string | undefined, text: string): boolean | undefined {
  if (value === undefined) return undefined;
  const force = value === "" ? true : parseGoBool(value);
  if (force === undefined)
    throw unreadable(
      text,
      `non-bool value ${value} specified for force-compression`,
      "Write true or false",
    );
  return force;
}

function readLevel(
  attributes: Attributes,
  compression: CompressionType | undefined,
  text: string,
): number | undefined {
  const value = attributes.get("compression-level");
  if (value === undefined) return undefined;
  if (!/^[+-]?[0-9]+$/.test(value))
    throw unreadable(text, `non-integer value ${value} specified for compression-level`);
  const level = Number(value);
  const highest = compression === "gzip" || compression === "estargz" ? 9 : 22;
  if (compression !== "uncompressed" && (level < 0 || level > highest))
    throw unreadable(text, `compression-level is from 0 to ${highest}, and not ${value}`);
  return level;
}

function readNotes(attributes: Attributes, text: string): string[] {
  const notes: string[] = [];
  for (const key of attributes.keys()) {
    if (PLACE_KEYS.includes(key) || VALUE_KEYS.includes(key)) continue;
    const reason =
      IGNORED_KEYS.get(key) ??
      (/^annotation[.-]/.test(key) || key.startsWith("attest:")
        ? "documents are written as BuildKit wrote them"
        : undefined);
    if (reason === undefined)
      throw unreadable(
        text,
        `there is no attribute ${JSON.stringify(key)}`,
        `The attributes are ${[...PLACE_KEYS, ...VALUE_KEYS, "mode"].join(", ")}`,
      );
    notes.push(`The attribute ${key}= has no effect: ${reason}`);
  }
  return notes;
}

function unreadable(text: string, reason: string, hint?: string): CacheportError {
  const shown = text.length > 200 ? `${text.slice(0, 200)}...` : text;
  return new CacheportError("USAGE", `Cannot read options ${JSON.stringify(shown)}: ${reason}`, {
    hint,
  });
}
