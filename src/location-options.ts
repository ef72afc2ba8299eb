/**
 * Locations in the words of BuildKit's options: `type=local,src=...`,
 * `type=registry,ref=...`, `type=oci,dest=...`; object stores are in location-object.ts.
 *
 * Source: BuildKit client/solve.go (local), cache/remotecache/registry,
 * exporter/oci (tar=, name=); the quoted errors are theirs.
 */
import { parseAttributes, parseGoBool, readAttributes } from "./location-attributes.ts";
import type { Attributes, LocationAttributes } from "./location-attributes.ts";
import { fromObjectOptions } from "./location-object.ts";
import { OBJECT_KINDS } from "./object-place.ts";
import { checkDigest, notFound, quote, unusable } from "./location-context.ts";
import type { Context, LayoutName, Location, Place } from "./location-context.ts";
import { registryReference } from "./location-host.ts";
import { formatReference, normalizeReference } from "./reference.ts";

const TYPES = ["local", "registry", "oci", "docker", ...OBJECT_KINDS] as const;

/**
 * Reads an option text.
 *
 * @throws {CacheportError} USAGE, REFERENCE_INVALID, NOT_SUPPORTED, LOCATION_NOT_FOUND
 */
export function fromOptions(context: Context): Location {
  const { text } = context;
  const attributes = parseAttributes(text);
  const type = attributes.get("type") ?? "";
  if (type === "") throw unusable(context, `type required for ${quote(text)}`);
  // Before anything else: their attributes hold secrets that no message may show.
  if (!isSupported(type))
    throw unusable(
      { ...context, text: `type=${type}` },
      "this type is not supported",
      "The types are local, registry, oci, docker, s3, azblob and gha",
      "NOT_SUPPORTED",
    );
  if (type === "s3" || type === "azblob" || type === "gha")
    return fromObjectOptions(context, type, attributes);
  const place = { text, attributes: readAttributes(attributes, text) };
  switch (type) {
    case "local": {
      const path = pathAttribute(context, attributes, type);
      return fromPathOption(context, path, "directory", {
        ...place,
        ...localName(context, attributes),
      });
    }
    case "oci":
    case "docker":
      return fromImageOptions(context, attributes, type, place);
    case "registry": {
      const ref = attributes.get("ref");
      if (!ref)
        throw unusable(
          context,
          `registry cache ${context.role === "source" ? "importer" : "exporter"} requires ref`,
          "Write type=registry,ref=HOST/REPOSITORY:TAG",
        );
      return { kind: "registry", ...place, reference: registryReference(context, ref) };
    }
  }
}

/** Tells whether a type is one of those that are read here. */
function isSupported(type: string): type is (typeof TYPES)[number] {
  return (TYPES as readonly string[]).includes(type);
}

/** Reads `type=oci` and `type=docker`: a tar, unless `tar=false` makes it a directory. */
function fromImageOptions(
  context: Context,
  attributes: Attributes,
  type: "oci" | "docker",
  place: Place & { attributes: LocationAttributes },
): Location {
  const path = pathAttribute(context, attributes, type);
  const tar = tarAttribute(context, attributes);
  const isDockerArchive = type === "docker" && tar !== false && context.role === "target";
  const names = attributes.get("name")?.split(",") ?? [];
  if (names.length > 1)
    throw unusable(
      context,
      "several names at once are not supported",
      "Give one, and the others with cacheport tag",
      "NOT_SUPPORTED",
    );
  const digest = attributes.get("digest");
  const named: LayoutName = {
    ...(names[0] && { name: formatReference(normalizeReference(names[0])) }),
    ...(digest !== undefined && { digest: checkDigest(context, digest) }),
  };
  const rest = {
    ...place,
    ...named,
    attributes: {
      ...place.attributes,
      ...(isDockerArchive && { dockerArchive: true }),
    },
  };
  if (path === "-") {
    if (tar === false)
      throw unusable(
        context,
        `dest cannot be stdout for ${type} exporter`,
        `Write type=${type},dest=- for a tar`,
      );
    return { kind: "stream", ...rest };
  }
  const isDirectory =
    tar === false ||
    (tar === undefined && context.role === "source" && context.probe(path) === "directory");
  return fromPathOption(context, path, isDirectory ? "directory" : "archive", rest);
}

/** BuildKit: `tar=` means true, and so does no `tar` at all for what is written. */
function tarAttribute(context: Context, attributes: Attributes): boolean | undefined {
  const value = attributes.get("tar");
  if (value === undefined) return undefined;
  const tar = value === "" ? true : parseGoBool(value);
  if (tar === undefined)
    throw unusable(context, "non-bool value specified for tar", "Write tar=true or tar=false");
  return tar;
}

/** The path of an option text, under the key that fits the role. */
function pathAttribute(context: Context, attributes: Attributes, type: string): string {
  const [key, other] = context.role === "source" ? ["src", "dest"] : ["dest", "src"];
  const path = attributes.get(key);
  if (attributes.has(other))
    throw unusable(
      context,
      `${other}= is for a ${context.role === "source" ? "target" : "source"} and this is a ${context.role}`,
      `Write type=${type},${key}=${path ?? attributes.get(other)}`,
    );
  if (path) return path;
  throw unusable(
    context,
    type === "local"
      ? `local cache ${context.role === "source" ? "importer requires src" : "exporter requires dest"}`
      : `type=${type} requires ${key}`,
    `Write type=${type},${key}=PATH`,
  );
}

/** The name in `type=local`: any text is a tag there, BuildKit does not restrict it. */
function localName(context: Context, attributes: Attributes): LayoutName {
  const name = attributes.get("tag");
  const digest = attributes.get("digest");
  if (name === "" && digest === undefined)
    throw unusable(
      context,
      'local cache importer requires either explicit digest, "latest" tag or custom tag on index.json',
      "Leave out tag= for latest",
    );
  return {
    ...(name && { name }),
    ...(digest !== undefined && { digest: checkDigest(context, digest) }),
  };
}

/** Checks a path from an option text against what is there. */
function fromPathOption(
  context: Context,
  path: string,
  kind: "directory" | "archive",
  rest: Place & LayoutName,
): Location {
  const found = context.probe(path);
  if (found === undefined && context.role === "source") throw notFound(context, path, kind);
  if (found !== undefined && (found === "file") !== (kind === "archive"))
    throw unusable(
      context,
      `"${path}" is a ${found}`,
      kind === "archive" ? "Write tar=false for a directory" : "Write type=oci for a tar file",
    );
  return { kind, ...rest, path: context.resolve(path) };
}
