/**
 * What a document is, told from its bytes: the one home of every rule on manifests and
 * indexes. A document is known here with all that it lists, or it is refused here, so
 * that no command can copy, keep or vouch for content whose children it does not know.
 *
 * Sources: OCI image-spec 1.1 and its release candidates (artifact manifest); ORAS
 * artifact manifest; distribution-spec; BuildKit util/imageutil/config.go
 * (DetectManifestBlobMediaType) for what is a cache.
 */
import * as v from "valibot";
import { cacheIn } from "./cache-manifest.ts";
import type { CacheManifest } from "./cache-manifest.ts";
import { DescriptorSchema } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { goFields, isJsonObject, parseJson } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import { readArtifactManifest } from "./image-artifact.ts";
import { readImageIndex } from "./image-index.ts";
import type { ImageIndex } from "./image-index.ts";
import { readImageManifest } from "./image-manifest.ts";
import type { ImageManifest } from "./image-manifest.ts";
import { readPlainManifest } from "./image-plain.ts";
import {
  DOCKER_CONFIG,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isArtifactType,
  isDocumentType,
  isIndexType,
  isManifestType,
  isSchema1Type,
  OCI_ARTIFACT,
  OCI_INDEX,
  OCI_MANIFEST,
  toOciLayerType,
} from "./media-types.ts";

/** A document: what it is and everything that it lists. */
export interface Document {
  /**
   * The media type by which registries take it: its own, else the one that it was announced
   * with, else the one that its children speak of.
   */
  readonly type: string;
  /** It lists manifests; otherwise it has a config and layers, or blobs. */
  readonly isIndex: boolean;
  /** All that it lists, in its order, repeated ones too: manifests, or config and layers. */
  readonly children: readonly Descriptor[];
  readonly config: Descriptor | undefined;
  /** The layers of a manifest, the blobs of an artifact manifest; none for an index. */
  readonly layers: readonly Descriptor[];
  /** The children that are blobs whatever their types say: config and layers. */
  readonly blobs: readonly Descriptor[];
  /** The manifest that the document refers to; it is no child. */
  readonly subject: Descriptor | undefined;
  readonly artifactType: string | undefined;
  /** Set for the top document of a cache. */
  readonly cache: CacheManifest | undefined;
  /** The document as a value, set for an index. */
  readonly index?: ImageIndex;
  /** The document as a value, set for a manifest with config and layers. */
  readonly manifest?: ImageManifest;
}

/** The media type of content of which nothing more is known. */
export const UNKNOWN_TYPE = "application/octet-stream";

/** Media types that say nothing of what the content is. */
const NO_TYPES = new Set(["", UNKNOWN_TYPE]);

/** Tells whether a media type says nothing of what the content is. */
export function saysNothing(mediaType: string): boolean {
  return NO_TYPES.has(mediaType);
}

const FIELDS = ["mediaType", "config", "manifests", "layers", "blobs", "fsLayers", "subject"];
const LISTS = ["config", "manifests", "layers", "blobs", "fsLayers"];

/**
 * Reads a document.
 *
 * @param claimed The media type that it is announced with; empty when nobody says one.
 * @param what What the bytes are, for the message: `manifest "sha256:..."`.
 * @throws {CacheportError} DOCUMENT_INVALID; DOCUMENT_UNKNOWN for one that lists, or may
 *   list, content in a way that is not known
 */
export function parseDocument(bytes: Uint8Array, claimed: string, what: string): Document {
  const plain = readPlainManifest(bytes);
  // It lists nothing but config and layers, so there is nothing else to look for in it.
  return plain && isManifestType(plain.mediaType)
    ? manifestDocument(plain, plain.mediaType, plain.mediaType)
    : readDocument(parseObject(bytes, what), claimed, what);
}

/**
 * Finds out what content is that may be a document or a blob: a root, or an entry of an
 * index, whose media type is not known.
 *
 * @param claimed The media type that it is announced with.
 * @param what What the bytes are, for the message.
 * @returns The document; undefined for a blob, which lists nothing.
 * @throws {CacheportError} DOCUMENT_INVALID; DOCUMENT_UNKNOWN for JSON that mentions other
 *   content in a way that is not known
 */
export function identify(bytes: Uint8Array, claimed: string, what: string): Document | undefined {
  if (!startsLikeObject(bytes)) return undefined;
  let value: unknown;
  try {
    value = parseJson(bytes, what);
  } catch {
    return undefined;
  }
  if (!isJsonObject(value)) return undefined;
  const fields = goFields(value, [...FIELDS, "schemaVersion"]);
  const own = ownType(fields, what);
  if (isDocumentType(own)) return readDocument(value, claimed, what);
  const lists = LISTS.filter((key) => key in fields);
  if (lists.length > 0 && own !== "") throw unknownType(own, what);
  // An image config has a config as well, and no content in it.
  if (lists.some((key) => "schemaVersion" in fields || listsContent(fields[key])))
    return readDocument(value, claimed, what);
  if (strayDigest(value, new Set(), !saysNothing(claimed) || own !== "") === undefined)
    return undefined;
  throw unknownType(own || claimed, what);
}

/**
 * The entries of an index that can be used, of one that as a whole cannot: for who looks
 * for one of them, and does not vouch for the others.
 *
 * @returns None for what is no index.
 */
export function usableEntries(bytes: Uint8Array, what: string): Descriptor[] {
  const { manifests } = goFields(parseObject(bytes, what), FIELDS);
  if (!Array.isArray(manifests)) return [];
  return manifests.flatMap((entry) => {
    const parsed = v.safeParse(DescriptorSchema, entry);
    return parsed.success ? [parsed.output] : [];
  });
}

/**
 * The media type of content that nothing describes: of a document, else
 * {@link UNKNOWN_TYPE}.
 */
export function detectBlobType(bytes: Uint8Array): string {
  return sniffType(bytes) ?? UNKNOWN_TYPE;
}

/** The media type of a document that can be read; undefined for any other bytes. */
export function sniffType(bytes: Uint8Array): string | undefined {
  try {
    return identify(bytes, "", "blob")?.type;
  } catch (error) {
    if (isCacheportError(error)) return undefined;
    throw error;
  }
}

/**
 * Finds the media type of a manifest or an index as BuildKit does when it looks for a
 * cache: a field that is null counts as present, a document without `mediaType` is the
 * Docker form, and one with neither `config` nor `layers` is a list, `{}` too.
 *
 * @throws {CacheportError} DOCUMENT_INVALID, with BuildKit's words
 */
export function detectDocumentType(bytes: Uint8Array, what: string): string {
  const value = parseObject(bytes, what);
  return buildkitType(goFields(value, FIELDS), what);
}

/**
 * Reads a cache's top document.
 *
 * @returns The cache; undefined when the document is sound and no cache of its own.
 * @throws {CacheportError} DOCUMENT_INVALID, DOCUMENT_UNKNOWN
 */
export function parseCacheManifest(bytes: Uint8Array, what: string): CacheManifest | undefined {
  return parseDocument(bytes, "", what).cache;
}

/** Tells whether bytes may be a JSON object: its brace comes first, but for white space. */
export function startsLikeObject(bytes: Uint8Array): boolean {
  for (const byte of bytes) {
    if (byte === 0x7b) return true;
    if (byte !== 0x20 && (byte < 0x09 || byte > 0x0d)) return false;
  }
  return false;
}

function parseObject(bytes: Uint8Array, what: string): JsonObject {
  const value = parseJson(bytes, what);
  if (isJsonObject(value)) return value;
  throw new CacheportError("DOCUMENT_INVALID", `Cannot read ${what}: it is not a JSON object`);
}

function readDocument(value: JsonObject, claimed: string, what: string): Document {
  const fields = goFields(value, FIELDS);
  const own = ownType(fields, what);
  const type = isDocumentType(own) ? own : isDocumentType(claimed) ? claimed : "";
  const isPlain = "config" in fields || "layers" in fields || "manifests" in fields;
  if (isSchema1Type(type) || (!isPlain && "fsLayers" in fields)) {
    throw new CacheportError(
      "DOCUMENT_UNKNOWN",
      `Cannot read ${what}: it is a manifest of Docker schema 1, which is no longer supported`,
      { hint: "Have the registry or Docker convert it: docker pull, then docker push" },
    );
  }
  const isArtifact = !isPlain && (isArtifactType(type) || listsContent(fields["blobs"]));
  const document = isArtifact
    ? readArtifact(value, type, what)
    : readKnown(value, fields, { own, claimed }, what);
  refuseStrays(value, document, own !== "" && own !== document.type, what);
  return document;
}

function readArtifact(value: JsonObject, type: string, what: string): Document {
  const { blobs, subject, artifactType } = readArtifactManifest(value, what);
  const layers = blobs.map(asBlob);
  return {
    type: isArtifactType(type) ? type : OCI_ARTIFACT,
    isIndex: false,
    children: layers,
    config: undefined,
    layers,
    blobs: layers,
    subject,
    artifactType,
    cache: undefined,
  };
}

function readKnown(
  value: JsonObject,
  fields: JsonObject,
  types: { own: string; claimed: string },
  what: string,
): Document {
  const detected = buildkitType(fields, what);
  if (isIndexType(detected)) {
    const index = readImageIndex(value, what);
    const { manifests, subject, artifactType } = index;
    return {
      type: nameIndex(types, manifests),
      isIndex: true,
      children: manifests,
      config: undefined,
      layers: [],
      blobs: [],
      subject,
      artifactType,
      cache: cacheIn(detected, index),
      index,
    };
  }
  const manifest = readImageManifest(value, what);
  return manifestDocument(manifest, nameManifest(types, manifest.config), detected);
}

/**
 * @param type The media type by which registries take it.
 * @param detected What BuildKit takes it for.
 */
function manifestDocument(manifest: ImageManifest, type: string, detected: string): Document {
  const config = manifest.config && asBlob(manifest.config);
  const layers = manifest.layers.map(asBlob);
  const blobs = config ? [config, ...layers] : layers;
  return {
    type,
    isIndex: false,
    children: blobs,
    config,
    layers,
    blobs,
    subject: manifest.subject,
    artifactType: manifest.artifactType,
    cache: cacheIn(detected, manifest),
    manifest,
  };
}

/** Marks what stands where only blobs stand. */
function asBlob(descriptor: Descriptor): Descriptor {
  return { ...descriptor, isBlob: true };
}

/** The document's own `mediaType`; empty when it has none. */
function ownType(fields: JsonObject, what: string): string {
  const own = fields["mediaType"] ?? "";
  if (typeof own === "string") return own;
  throw new CacheportError(
    "DOCUMENT_INVALID",
    `Cannot read ${what}: field mediaType: Invalid type: Expected string`,
  );
}

function buildkitType(fields: JsonObject, what: string): string {
  const own = ownType(fields, what);
  const isManifest = "config" in fields || "layers" in fields;
  if (isManifest && "manifests" in fields) {
    throw new CacheportError(
      "DOCUMENT_INVALID",
      `Cannot read ${what}: invalid ambiguous manifest and manifest list`,
      {
        hint: "It has a config or layers and manifests as well; no program can tell which it is",
      },
    );
  }
  if (isIndexType(own) || isManifestType(own)) {
    if (isManifestType(own) === isManifest) return own;
    throw new CacheportError(
      "DOCUMENT_INVALID",
      `Cannot read ${what}: mediaType in manifest does not match manifest contents`,
    );
  }
  return isManifest ? DOCKER_MANIFEST : DOCKER_LIST;
}

/**
 * The type of an index that may not say one. An older OCI document has none, and calling it
 * Docker's, as BuildKit does, makes registries refuse it.
 */
function nameIndex(
  { own, claimed }: { own: string; claimed: string },
  manifests: readonly Descriptor[],
): string {
  const said = [own, claimed].find(isIndexType);
  if (said !== undefined) return said;
  const first = manifests.find(({ mediaType }) => mediaType !== "")?.mediaType ?? "";
  const isDocker =
    first === DOCKER_MANIFEST || first === DOCKER_LIST || toOciLayerType(first) !== first;
  return isDocker ? DOCKER_LIST : OCI_INDEX;
}

/** The type of a manifest that may not say one; see {@link nameIndex}. */
function nameManifest(
  { own, claimed }: { own: string; claimed: string },
  config: Descriptor | undefined,
): string {
  const said = [own, claimed].find(isManifestType);
  if (said !== undefined) return said;
  return config?.mediaType === DOCKER_CONFIG ? DOCKER_MANIFEST : OCI_MANIFEST;
}

/** Refuses a document that mentions content beside its children and its subject. */
function refuseStrays(
  value: JsonObject,
  { children, subject }: Document,
  isStrange: boolean,
  what: string,
): void {
  const known = new Set<string>(children.map(({ digest }) => digest));
  if (subject) known.add(subject.digest);
  const stray = strayDigest(value, known, isStrange);
  if (stray === undefined) return;
  throw new CacheportError(
    "DOCUMENT_UNKNOWN",
    `Cannot read ${what}: it lists ${JSON.stringify(stray.slice(0, 200))} in a place that is not known`,
    { hint: "Content that is listed there would stay behind; a newer cacheport may know it" },
  );
}

function unknownType(type: string, what: string): CacheportError {
  return new CacheportError(
    "DOCUMENT_UNKNOWN",
    `Cannot read ${what}: it is of the type ${JSON.stringify(type.slice(0, 200))}, and what such a document lists is not known`,
    { hint: "Content that it lists would stay behind; a newer cacheport may know the type" },
  );
}

/** A digest by its form, in any algorithm. */
const DIGEST_FORM = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-zA-Z=_-]{32,}$/;

/** Tells whether a field is a descriptor, or a list with one in it. */
function listsContent(field: unknown): boolean {
  const items = Array.isArray(field) ? field : [field];
  return items.some((item) => isJsonObject(item) && describedDigest(item) !== undefined);
}

/** The digest that an object describes, if it has the form of a descriptor. */
function describedDigest(object: JsonObject): string | undefined {
  const { digest, size, mediaType, blobSum } = goFields(object, [
    "digest",
    "size",
    "mediaType",
    "blobSum",
  ]);
  if (isDigestForm(blobSum)) return blobSum;
  const isDescribed = typeof size === "number" || typeof mediaType === "string";
  return isDescribed && isDigestForm(digest) ? digest : undefined;
}

function isDigestForm(value: unknown): value is string {
  return typeof value === "string" && DIGEST_FORM.test(value);
}

/**
 * Finds a digest that a document mentions and that is not among the known ones.
 *
 * @param anyText Takes any text of the form of a digest, not only that of a descriptor;
 *   annotations alone say nothing of what a document lists.
 */
function strayDigest(
  document: JsonObject,
  known: ReadonlySet<string>,
  anyText: boolean,
): string | undefined {
  // By hand, since a document may be nested deeper than the stack.
  const rest: unknown[] = [document];
  while (rest.length > 0) {
    const item = rest.pop();
    if (Array.isArray(item)) {
      for (const each of item) rest.push(each);
    } else if (isJsonObject(item)) {
      const digest = describedDigest(item);
      if (digest !== undefined && !known.has(digest)) return digest;
      for (const [key, field] of Object.entries(item))
        if (key !== "annotations" || !isStringMap(field)) rest.push(field);
    } else if (anyText && isDigestForm(item) && !known.has(item)) {
      return item;
    }
  }
  return undefined;
}

function isStringMap(value: unknown): boolean {
  return isJsonObject(value) && Object.values(value).every((text) => typeof text === "string");
}
