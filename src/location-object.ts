/**
 * Object stores on the command line: `type=s3,...`, `type=azblob,...` and `type=gha,...`
 * as BuildKit has them, and `s3://BUCKET/PREFIX?name=...` for people.
 */
import { IGNORED_KEYS } from "./location-attributes.ts";
import type { Attributes } from "./location-attributes.ts";
import { checkDigest, unusable } from "./location-context.ts";
import type { Context, Location } from "./location-context.ts";
import { isPlaceAttribute, nameAttribute, placeText, splitNames } from "./object-place.ts";
import type { ObjectKind } from "./object-place.ts";

/**
 * Reads the attributes of an object store. What is missing is looked for in the
 * environment when it is opened. Unknown attributes are accepted, as BuildKit does, and
 * noted.
 *
 * @throws {CacheportError} REFERENCE_INVALID for a digest that is none
 */
export function fromObjectOptions(
  context: Context,
  kind: ObjectKind,
  attributes: Attributes,
): Location {
  const place = { kind, attributes };
  const text = placeText(place);
  const name = attributes.get(nameAttribute(kind));
  const digest = attributes.get("digest");
  return {
    kind: "object",
    text,
    place,
    attributes: { notes: readNotes(context, kind, attributes) },
    // BuildKit: an empty name counts as none.
    ...(name && { name }),
    ...(digest !== undefined && { digest: checkDigest({ ...context, text }, digest) }),
  };
}

/**
 * Reads `s3://BUCKET/PREFIX?name=...`: what follows the bucket's slash is the prefix,
 * as it is; the other attributes stand in the query.
 *
 * @throws {CacheportError} USAGE
 */
export function fromS3Address(context: Context): Location {
  const [, bucket = "", prefix = "", query = ""] =
    /^s3:\/\/([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(context.text) ?? [];
  const attributes = new Map<string, string>([["type", "s3"]]);
  if (bucket !== "") attributes.set("bucket", bucket);
  if (prefix !== "") attributes.set("prefix", prefix);
  for (const [key, value] of new URLSearchParams(query)) {
    if (!["bucket", "prefix"].includes(key.toLowerCase())) {
      attributes.set(key.toLowerCase(), value);
      continue;
    }
    throw unusable(
      { ...context, text: `s3://${bucket}/${prefix}` },
      `${key.toLowerCase()} stands before the question mark`,
      "Write s3://BUCKET/PREFIX?name=NAME",
    );
  }
  return fromObjectOptions(context, "s3", attributes);
}

function readNotes({ role }: Context, kind: ObjectKind, attributes: Attributes): string[] {
  const notes: string[] = [];
  const known = ["type", "digest", nameAttribute(kind)];
  for (const key of attributes.keys()) {
    if (known.includes(key) || isPlaceAttribute(kind, key)) continue;
    const reason = IGNORED_KEYS.get(key) ?? `type=${kind} has no such attribute`;
    notes.push(`The attribute ${key}= has no effect: ${reason}`);
  }
  const name = attributes.get("name") ?? "";
  if (kind === "s3" && role === "source" && splitNames(kind, name).length > 1)
    notes.push("Of several names in type=s3 the first is read, as BuildKit does");
  return notes;
}
