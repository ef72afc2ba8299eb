/**
 * One entry of an index.json as a value: with everything that stands there, known or not,
 * usable or not.
 *
 * Source: OCI image-spec, image-layout.md, "index.json file".
 */
import type { EntryName, NamedEntry } from "./content-store.ts";
import { DescriptorSchema, isPlainDescriptor, orderDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkSchema } from "./documents.ts";
import { isCacheportError } from "./errors.ts";
import { encodeGoJson, isJsonObject, joinObject, jsonTextOf, splitJson } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import {
  ANNOTATION_IMAGE_NAME,
  ANNOTATION_MANIFEST_SUBJECT,
  ANNOTATION_REF_NAME,
} from "./media-types.ts";

/** An entry together with its JSON, unknown fields included. */
export interface IndexEntry extends NamedEntry {
  readonly raw: JsonObject;
  /** The same as compact text, where a JavaScript value does not keep all of it. */
  readonly text?: string | undefined;
}

/**
 * Reads an entry; one that cannot be used comes with its problem.
 *
 * @param text The entry as compact text, where a JavaScript value does not keep all of it.
 */
export function readEntry(raw: JsonObject, text: string | undefined, what: string): IndexEntry {
  try {
    return toEntry(raw, what, text);
  } catch (error) {
    if (!isCacheportError(error)) throw error;
    return brokenEntry(raw, text, error.message);
  }
}

function toEntry(raw: JsonObject, what: string, text?: string): IndexEntry {
  const descriptor = isPlainDescriptor(raw) ? raw : checkSchema(DescriptorSchema, raw, what);
  const annotations = descriptor.annotations ?? {};
  const subject = annotations[ANNOTATION_MANIFEST_SUBJECT];
  return {
    raw,
    text,
    descriptor,
    refName: annotations[ANNOTATION_REF_NAME] || undefined,
    imageName: annotations[ANNOTATION_IMAGE_NAME] || undefined,
    subject: isDigest(subject) ? subject : undefined,
  };
}

/** An entry that breaks the rules for descriptors, with what can be read of it. */
function brokenEntry(raw: JsonObject, text: string | undefined, problem: string): IndexEntry {
  const annotations = isJsonObject(raw["annotations"]) ? raw["annotations"] : {};
  const { mediaType, digest, size } = raw;
  const name = (key: string): string | undefined =>
    typeof annotations[key] === "string" ? annotations[key] || undefined : undefined;
  return {
    raw,
    text,
    problem,
    descriptor: {
      mediaType: typeof mediaType === "string" ? mediaType : "",
      // To be shown only; every reader checks a digest before it uses it.
      digest: (typeof digest === "string" ? digest : "") as Digest,
      size: typeof size === "number" ? size : 0,
    },
    refName: name(ANNOTATION_REF_NAME),
    imageName: name(ANNOTATION_IMAGE_NAME),
  };
}

/** An entry as compact text. */
export function entryText({ text, raw }: IndexEntry): string {
  return text ?? jsonTextOf(encodeGoJson(raw));
}

/** A new entry. */
export function makeEntry(descriptor: Descriptor, name: EntryName): IndexEntry {
  const {
    [ANNOTATION_REF_NAME]: _refName,
    [ANNOTATION_IMAGE_NAME]: _imageName,
    ...annotations
  } = descriptor.annotations ?? {};
  if (name.refName !== undefined) annotations[ANNOTATION_REF_NAME] = name.refName;
  if (name.imageName !== undefined) annotations[ANNOTATION_IMAGE_NAME] = name.imageName;
  return toEntry(orderDescriptor({ ...descriptor, annotations }) as JsonObject, "entry");
}

/** Points an entry to other content; what described only the old content goes. */
export function changeEntry(entry: IndexEntry, descriptor: Descriptor): IndexEntry {
  const { mediaType, digest, size } = descriptor;
  const { data: _data, urls: _urls, artifactType: _artifactType, ...rest } = entry.raw;
  const raw = { ...rest, mediaType, digest, size };
  if (entry.text === undefined) return toEntry(raw, "entry");
  const members = new Map<string, string>();
  for (const { key = "", value } of splitJson(entry.text)) members.set(key, value);
  for (const key of ["data", "urls", "artifactType"]) members.delete(key);
  members.set("mediaType", JSON.stringify(mediaType));
  members.set("digest", JSON.stringify(digest)).set("size", String(size));
  return toEntry(raw, "entry", joinObject(members));
}
