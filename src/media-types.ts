/**
 * Media types and annotation keys of the field, and the maps between the OCI and
 * the Docker forms.
 *
 * Sources: OCI image-spec, media-types.md; BuildKit util/compression/compression.go
 * (toDockerLayerType, toOCILayerType); cache/remotecache/v1/types/spec.go.
 */

export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
export const OCI_EMPTY = "application/vnd.oci.empty.v1+json";
export const DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
export const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";

/** Older manifests: of the release candidates of OCI 1.1, of ORAS, and Docker's schema 1. */
export const OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json";
const ORAS_ARTIFACT = "application/vnd.cncf.oras.artifact.manifest.v1+json";
const DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1";
const SCHEMA1_TYPES = [`${DOCKER_SCHEMA1}+prettyjws`, `${DOCKER_SCHEMA1}+json`];

export const DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";

/** The media type of a BuildKit cache config. It has no `+json` suffix. */
export const CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";

export const OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
export const OCI_LAYER_GZIP = `${OCI_LAYER}+gzip`;
export const OCI_LAYER_ZSTD = `${OCI_LAYER}+zstd`;
const OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar";
export const DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar";
export const DOCKER_LAYER_GZIP = `${DOCKER_LAYER}.gzip`;
export const DOCKER_LAYER_ZSTD = `${DOCKER_LAYER}.zstd`;
const DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/** Annotation keys. */
export const ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name";
export const ANNOTATION_IMAGE_NAME = "io.containerd.image.name";
export const ANNOTATION_MANIFEST_SUBJECT = "io.containerd.manifest.subject";
export const ANNOTATION_UNCOMPRESSED = "containerd.io/uncompressed";
export const ANNOTATION_CREATED_AT = "buildkit/createdat";
/** By these an entry of an index says that it attests another one, and which. */
export const ANNOTATION_REFERENCE_TYPE = "vnd.docker.reference.type";
export const ANNOTATION_REFERENCE_DIGEST = "vnd.docker.reference.digest";

const TO_DOCKER = new Map([
  [OCI_LAYER, DOCKER_LAYER],
  [OCI_LAYER_GZIP, DOCKER_LAYER_GZIP],
  [OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD],
  [OCI_FOREIGN, DOCKER_FOREIGN],
  [`${OCI_FOREIGN}+gzip`, `${DOCKER_FOREIGN}.gzip`],
  // Non-distributable zstd has no Docker counterpart and stays as it is.
]);
const TO_OCI = new Map([...TO_DOCKER].map(([oci, docker]) => [docker, oci]));

/** The Docker form of a layer's media type; an unknown type is returned unchanged. */
export function toDockerLayerType(mediaType: string): string {
  return TO_DOCKER.get(mediaType) ?? mediaType;
}

/** The OCI form of a layer's media type; an unknown type is returned unchanged. */
export function toOciLayerType(mediaType: string): string {
  return TO_OCI.get(mediaType) ?? mediaType;
}

/** Tells whether a media type is one of the known layer types, in either form. */
export function isLayerType(mediaType: string): boolean {
  return layerCompression(mediaType) !== undefined;
}

/**
 * Tells whether a media type means a layer of a file system, also one in a compression that
 * is not known (`...tar+lz4`, `...tar+gzip+encrypted`).
 */
export function isLayerFamily(mediaType: string): boolean {
  return [OCI_LAYER, OCI_FOREIGN, DOCKER_LAYER, DOCKER_FOREIGN].some((base) =>
    mediaType.startsWith(base),
  );
}

/** Tells whether a media type is a non-distributable (foreign) layer. */
export function isForeignLayerType(mediaType: string): boolean {
  return mediaType.startsWith(OCI_FOREIGN) || mediaType.startsWith(DOCKER_FOREIGN);
}

/** How a layer is compressed. */
export type Compression = "uncompressed" | "gzip" | "zstd";

/** The compression that a layer's media type promises; undefined for what is no layer. */
export function layerCompression(mediaType: string): Compression | undefined {
  const oci = toOciLayerType(mediaType);
  const base = oci.startsWith(OCI_FOREIGN) ? OCI_FOREIGN : OCI_LAYER;
  if (oci === base) return "uncompressed";
  if (oci === `${base}+gzip`) return "gzip";
  if (oci === `${base}+zstd`) return "zstd";
  return undefined;
}

/**
 * The media type of a layer in another compression: OCI stays OCI, Docker stays
 * Docker and foreign stays foreign, with the one exception that Docker has no type
 * for a foreign zstd layer; it gets the OCI one, as in BuildKit. What is no layer is returned unchanged.
 */
export function layerTypeIn(mediaType: string, compression: Compression): string {
  if (!isLayerType(mediaType)) return mediaType;
  const oci = toOciLayerType(mediaType);
  const base = oci.startsWith(OCI_FOREIGN) ? OCI_FOREIGN : OCI_LAYER;
  const type = compression === "uncompressed" ? base : `${base}+${compression}`;
  return mediaType === oci ? type : toDockerLayerType(type);
}

/** Tells whether a document of this type lists manifests (an OCI index or a Docker list). */
export function isIndexType(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
}

/** Tells whether a document of this type has a config and layers. */
export function isManifestType(mediaType: string): boolean {
  return mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
}

/** Tells whether a document of this type lists blobs and has no config (an artifact manifest). */
export function isArtifactType(mediaType: string): boolean {
  return mediaType === OCI_ARTIFACT || mediaType === ORAS_ARTIFACT;
}

/** Tells whether a document of this type is a manifest of Docker schema 1, signed or not. */
export function isSchema1Type(mediaType: string): boolean {
  return SCHEMA1_TYPES.includes(mediaType);
}

/** All types of documents, for whoever asks a registry: it hides what is not asked for. */
export const DOCUMENT_TYPES: readonly string[] = [
  OCI_MANIFEST,
  OCI_INDEX,
  DOCKER_MANIFEST,
  DOCKER_LIST,
  OCI_ARTIFACT,
  ORAS_ARTIFACT,
  ...SCHEMA1_TYPES,
];

/**
 * Tells whether content of this type is a document that lists other content: what
 * a registry keeps under `/manifests/`. It is the child's own type that decides,
 * never the parent's: the children of an index-shaped cache are blobs.
 */
export function isDocumentType(mediaType: string): boolean {
  return DOCUMENT_TYPES.includes(mediaType);
}

const LEAF_TYPES = new Set([CACHE_CONFIG, DOCKER_CONFIG, OCI_CONFIG, OCI_EMPTY]);

/** Tells whether content of this type surely lists nothing: layers and configs. */
export function isLeafType(mediaType: string): boolean {
  return isLayerType(mediaType) || LEAF_TYPES.has(mediaType);
}
