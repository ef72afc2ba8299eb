/**
 * Descriptors: what a document says of content that it refers to.
 *
 * Source: OCI image-spec, descriptor.md; the field order is that of the Go structs
 * in specs-go/v1, which decides the bytes that BuildKit writes.
 */
import * as v from "valibot";
import { digestAlgorithm, digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { goStruct, optional, stringMap } from "./documents.ts";
import { isJsonObject, sortedMap } from "./go-json.ts";
import { isDocumentType } from "./media-types.ts";

/** The machine that content runs on. */
export interface Platform {
  architecture: string;
  os: string;
  "os.version"?: string | undefined;
  "os.features"?: string[] | undefined;
  variant?: string | undefined;
}

/** A reference to content: its type, its digest and its size in bytes. */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  /** Bytes. */
  size: number;
  urls?: string[] | undefined;
  annotations?: Record<string, string> | undefined;
  /** The content itself, base64. */
  data?: string | undefined;
  platform?: Platform | undefined;
  artifactType?: string | undefined;
  /**
   * It stands where only blobs stand, as a config or a layer: a registry keeps it under
   * `/blobs/` whatever its type says. Never written.
   */
  isBlob?: boolean | undefined;
}

/** The schema of each field of a platform; an image config has the same fields. */
export const PLATFORM_ENTRIES = {
  architecture: v.nullish(v.string(), ""),
  os: v.nullish(v.string(), ""),
  "os.version": optional(v.string()),
  "os.features": optional(v.array(v.string())),
  variant: optional(v.string()),
};

export const PlatformSchema = goStruct(PLATFORM_ENTRIES);

/** Parses a digest; the message says what was seen. */
export const DigestSchema = v.custom<Digest>(
  isDigest,
  (issue) => `Invalid digest: received ${issue.received}`,
);

/** Bytes, from 0 to 2^53-1. */
export const SizeSchema = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const AnyDescriptorSchema = goStruct({
  mediaType: v.nullish(v.string(), ""),
  digest: DigestSchema,
  size: SizeSchema,
  urls: optional(v.array(v.string())),
  annotations: optional(stringMap),
  data: optional(v.string()),
  platform: optional(PlatformSchema),
  artifactType: optional(v.string()),
});

const PLAIN_FIELDS = new Set(["mediaType", "digest", "size", "annotations"]);

/**
 * Tells whether a value is a descriptor with nothing but the fields that nearly all have,
 * as they are spelled. A document may list hundreds of thousands: each check and each copy
 * by the schema costs ten times this look, and the memory of another object.
 *
 * @returns False for any other descriptor too, which is for the schema to judge.
 */
export function isPlainDescriptor(value: unknown): value is Descriptor {
  if (!isJsonObject(value)) return false;
  for (const key in value) if (!PLAIN_FIELDS.has(key)) return false;
  const { mediaType, digest, size, annotations } = value;
  if (typeof mediaType !== "string" || !isDigest(digest)) return false;
  if (!Number.isSafeInteger(size) || (size as number) < 0) return false;
  if (annotations === undefined) return true;
  if (!isJsonObject(annotations)) return false;
  for (const key in annotations) if (typeof annotations[key] !== "string") return false;
  return true;
}

const PlainDescriptorSchema = v.custom<Descriptor>(() => true);

export const DescriptorSchema: v.GenericSchema<unknown, Descriptor> = v.lazy((value) =>
  isPlainDescriptor(value) ? PlainDescriptorSchema : AnyDescriptorSchema,
);

/** A descriptor's fields in Go's order, empty ones left out, ready for encodeGoJson. */
export function orderDescriptor(descriptor: Descriptor): object {
  const { urls, platform } = descriptor;
  return {
    mediaType: descriptor.mediaType,
    digest: descriptor.digest,
    size: descriptor.size,
    urls: urls && urls.length > 0 ? urls : undefined,
    annotations: sortedMap(descriptor.annotations),
    data: descriptor.data || undefined,
    platform: platform && {
      architecture: platform.architecture,
      os: platform.os,
      "os.version": platform["os.version"] || undefined,
      "os.features": platform["os.features"]?.length ? platform["os.features"] : undefined,
      variant: platform.variant || undefined,
    },
    artifactType: descriptor.artifactType || undefined,
  };
}

/** Tells whether content is kept as a document, under `/manifests/` of a registry. */
export function isDocument({ mediaType, isBlob = false }: Descriptor): boolean {
  return isDocumentType(mediaType) && !isBlob;
}

/**
 * The content that is embedded in a descriptor: a registry or a layout may lack the blob
 * then.
 *
 * Source: OCI image-spec, descriptor.md, "Embedded Content".
 *
 * @returns Undefined where none is embedded, or other content than the descriptor's.
 */
export function embeddedContent({ data, digest, size }: Descriptor): Uint8Array | undefined {
  if (!data) return undefined;
  const bytes = new Uint8Array(Buffer.from(data, "base64"));
  const isRight = bytes.length === size && digestOf(bytes, digestAlgorithm(digest)) === digest;
  return isRight ? bytes : undefined;
}

/** {@link embeddedContent} as a stream. */
export function embeddedStream(descriptor: Descriptor): ReadableStream<Uint8Array> | undefined {
  const bytes = embeddedContent(descriptor);
  return bytes && new Blob([bytes as Uint8Array<ArrayBuffer>]).stream();
}

/** The three fields that identify content, without what a document adds to them. */
export function bareDescriptor(descriptor: Descriptor): Descriptor {
  const { mediaType, digest, size } = descriptor;
  return { mediaType, digest, size };
}

/** Bytes of the distinct content among descriptors: each digest counts once. */
export function totalSize(descriptors: Iterable<Descriptor>): number {
  const sizes = new Map<Digest, number>();
  for (const { digest, size } of descriptors) sizes.set(digest, size);
  return sizes.values().reduce((sum, size) => sum + size, 0);
}
