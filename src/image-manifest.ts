/**
 * An image manifest (OCI or Docker schema 2) as a value.
 *
 * Source: OCI image-spec, manifest.md; field order of specs-go/v1/manifest.go.
 */
import * as v from "valibot";
import { DescriptorSchema, orderDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkSchema, goStruct, optional, stringMap } from "./documents.ts";
import { encodeGoJson, parseJson, sortedMap } from "./go-json.ts";

/** A document with a config and layers: an image, a cache, any artifact. */
export interface ImageManifest {
  mediaType: string;
  artifactType?: string | undefined;
  /** Absent only in a damaged document. */
  config?: Descriptor | undefined;
  layers: Descriptor[];
  subject?: Descriptor | undefined;
  annotations?: Record<string, string> | undefined;
}

const ImageManifestSchema = goStruct({
  mediaType: v.nullish(v.string(), ""),
  artifactType: optional(v.string()),
  config: optional(DescriptorSchema),
  layers: v.nullish(v.array(DescriptorSchema), []),
  subject: optional(DescriptorSchema),
  annotations: optional(stringMap),
});

/** @throws {CacheportError} DOCUMENT_INVALID */
export function parseImageManifest(bytes: Uint8Array, what: string): ImageManifest {
  return readImageManifest(parseJson(bytes, what), what);
}

/**
 * Reads a manifest that was parsed.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function readImageManifest(value: unknown, what: string): ImageManifest {
  return checkSchema(ImageManifestSchema, value, what);
}

/** Encodes a manifest with the bytes that Go's compact encoder would write for it. */
export function encodeImageManifest(manifest: ImageManifest & { config: Descriptor }): Uint8Array {
  return encodeGoJson({
    schemaVersion: 2,
    mediaType: manifest.mediaType || undefined,
    artifactType: manifest.artifactType || undefined,
    config: orderDescriptor(manifest.config),
    layers: manifest.layers.map(orderDescriptor),
    subject: manifest.subject && orderDescriptor(manifest.subject),
    annotations: sortedMap(manifest.annotations),
  });
}
