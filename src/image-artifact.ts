/**
 * An artifact manifest as a value: blobs and a subject, without a config. It stood in the
 * release candidates of OCI image-spec 1.1 and, under its own type, in ORAS before; some
 * registries still hold such documents (signatures, scan results, SBOMs).
 *
 * Sources: OCI image-spec 1.1.0-rc2, artifact.md; oras-project/artifacts-spec.
 */
import * as v from "valibot";
import { DescriptorSchema } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkSchema, goStruct, optional, stringMap } from "./documents.ts";

/** A document that lists blobs, mostly in reference to a subject. */
export interface ArtifactManifest {
  mediaType: string;
  artifactType?: string | undefined;
  blobs: Descriptor[];
  subject?: Descriptor | undefined;
  annotations?: Record<string, string> | undefined;
}

const ArtifactManifestSchema = goStruct({
  mediaType: v.nullish(v.string(), ""),
  artifactType: optional(v.string()),
  blobs: v.nullish(v.array(DescriptorSchema), []),
  subject: optional(DescriptorSchema),
  annotations: optional(stringMap),
});

/**
 * Reads an artifact manifest that was parsed.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function readArtifactManifest(value: unknown, what: string): ArtifactManifest {
  return checkSchema(ArtifactManifestSchema, value, what);
}
