/**
 * An image index (or Docker manifest list) as a value.
 *
 * Source: OCI image-spec, image-index.md; field order of specs-go/v1/index.go.
 */
import * as v from "valibot";
import { DescriptorSchema, orderDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkSchema, goStruct, optional, stringMap } from "./documents.ts";
import { encodeGoJson, parseJson, sortedMap } from "./go-json.ts";

/** A document that lists manifests; in an index-shaped cache it lists blobs. */
export interface ImageIndex {
  mediaType: string;
  artifactType?: string | undefined;
  manifests: Descriptor[];
  subject?: Descriptor | undefined;
  annotations?: Record<string, string> | undefined;
}

const ImageIndexSchema = goStruct({
  mediaType: v.nullish(v.string(), ""),
  artifactType: optional(v.string()),
  manifests: v.nullish(v.array(DescriptorSchema), []),
  subject: optional(DescriptorSchema),
  annotations: optional(stringMap),
});

/** @throws {CacheportError} DOCUMENT_INVALID */
export function parseImageIndex(bytes: Uint8Array, what: string): ImageIndex {
  return readImageIndex(parseJson(bytes, what), what);
}

/**
 * Reads an index that was parsed.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function readImageIndex(value: unknown, what: string): ImageIndex {
  return checkSchema(ImageIndexSchema, value, what);
}

/** Encodes an index with the bytes that Go would write for it. */
export function encodeImageIndex(index: ImageIndex): Uint8Array {
  return encodeGoJson({
    schemaVersion: 2,
    mediaType: index.mediaType || undefined,
    artifactType: index.artifactType || undefined,
    manifests: index.manifests.map(orderDescriptor),
    subject: index.subject && orderDescriptor(index.subject),
    annotations: sortedMap(index.annotations),
  });
}
