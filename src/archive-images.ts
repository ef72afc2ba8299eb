/**
 * An archive of images without an index.json, as `docker save` wrote it before version 25
 * and skopeo (docker-archive:), podman, crane, kaniko, nix and bazel write it still: seen
 * as a layout. Its manifest.json names configs and layers by the paths of members.
 *
 * Sources: moby image/tarexport (save.go, load.go); containers/image docker/internal/tarfile;
 * go-containerregistry pkg/v1/tarball.
 */
import * as v from "valibot";
import type { TarContent } from "./archive-content.ts";
import { ARCHIVE_MAGIC_LENGTH } from "./archive-format.ts";
import { archiveInvalid } from "./archive-header.ts";
import { checkMemberPath } from "./archive-members.ts";
import type { TarMember } from "./archive-members.ts";
import { readChunks } from "./blob-check.ts";
import { detectCompression } from "./blob-compression.ts";
import { orderDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { createHasher, digestOf, parseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize, checkSchema, goStruct } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { encodeGoJson, parseJson } from "./go-json.ts";
import { parseImageConfig } from "./image-config.ts";
import { encodeImageManifest } from "./image-manifest.ts";
import { parseEntryName } from "./layout-index.ts";
import {
  ANNOTATION_IMAGE_NAME,
  ANNOTATION_REF_NAME,
  layerTypeIn,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
} from "./media-types.ts";
import { dirname, posix } from "./paths.ts";

/** Where the content of a blob is: in a member, or nowhere but here. */
export type BlobPlace = { readonly member: TarMember } | { readonly bytes: Uint8Array };

/** The images as a layout. */
export interface ArchiveImages {
  /** The bytes of an index.json that lists them. */
  readonly index: Uint8Array;
  readonly blobs: ReadonlyMap<Digest, BlobPlace>;
}

/** Links that are followed from one to the next. */
const MAX_LINKS = 8;

const ManifestSchema = v.array(
  goStruct({
    Config: v.string(),
    RepoTags: v.nullish(v.array(v.string()), []),
    Layers: v.nullish(v.array(v.string()), []),
  }),
);

/** One image of a manifest.json. */
export type DockerImage = v.InferOutput<typeof ManifestSchema>[number];

/**
 * Parses a manifest.json.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseDockerManifest(bytes: Uint8Array, location: string): DockerImage[] {
  const what = `manifest.json of "${location}"`;
  return checkSchema(ManifestSchema, parseJson(bytes, what), what);
}

/**
 * Reads an archive of images. Layers that are not compressed are known by the diffIDs of
 * their image, which whoever reads them checks; the others are hashed here, since nothing
 * but their bytes says what they are.
 *
 * @throws {CacheportError} DOCUMENT_INVALID, DOCUMENT_TOO_LARGE, ARCHIVE_INVALID for
 *   members that are missing, LAYOUT_INVALID when it holds no image, INTERRUPTED
 */
export async function readArchiveImages(
  content: TarContent,
  location: string,
  limits: DocumentLimits,
  signal: AbortSignal | undefined,
): Promise<ArchiveImages> {
  return new ImageReader(content, location, limits, signal).run();
}

class ImageReader {
  readonly #content: TarContent;
  readonly #location: string;
  readonly #limits: DocumentLimits;
  readonly #signal: AbortSignal | undefined;
  readonly #blobs = new Map<Digest, BlobPlace>();
  /** Layers by the place of their content: images share them. */
  readonly #layers = new Map<number, Promise<Descriptor>>();

  constructor(
    content: TarContent,
    location: string,
    limits: DocumentLimits,
    signal: AbortSignal | undefined,
  ) {
    this.#content = content;
    this.#location = location;
    this.#limits = limits;
    this.#signal = signal;
  }

  async run(): Promise<ArchiveImages> {
    const { manifest } = this.#limits;
    const images = parseDockerManifest(
      await this.#read("manifest.json", manifest, "manifest.json"),
      this.#location,
    );
    if (images.length === 0)
      throw new CacheportError(
        "LAYOUT_INVALID",
        `Cannot read images from "${this.#location}": its manifest.json lists none`,
      );
    const entries = new Map<string, Descriptor>();
    for (const image of images) {
      const descriptor = await this.#image(image);
      const names = image.RepoTags.length > 0 ? image.RepoTags : [undefined];
      for (const name of names) {
        const { refName, imageName } = name === undefined ? {} : parseEntryName(name);
        const annotations = {
          ...(imageName !== undefined && { [ANNOTATION_IMAGE_NAME]: imageName }),
          ...(refName !== undefined && { [ANNOTATION_REF_NAME]: refName }),
        };
        // Of two images with one name the last has it, as docker load does it.
        const entry = name === undefined ? descriptor : { ...descriptor, annotations };
        entries.set(imageName ?? refName ?? descriptor.digest, entry);
      }
    }
    const manifests = [...entries.values()].map(orderDescriptor);
    const index = encodeGoJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests });
    return { index, blobs: this.#blobs };
  }

  /** Makes the manifest of an image. */
  async #image({ Config, Layers }: DockerImage): Promise<Descriptor> {
    const what = `image config "${Config}"`;
    const configBytes = await this.#read(Config, this.#limits.config, what);
    const { diffIds } = parseImageConfig(configBytes, `${what} of "${this.#location}"`);
    if (diffIds.length !== Layers.length)
      throw new CacheportError(
        "DOCUMENT_INVALID",
        `Cannot read images from "${this.#location}": ${what} lists ${diffIds.length} diffIDs and manifest.json ${Layers.length} layers`,
      );
    const config = this.#note(OCI_CONFIG, configBytes);
    const layers: Descriptor[] = [];
    for (const [position, path] of Layers.entries()) {
      const member = this.#find(path, `layer "${path}"`);
      const key = member.offset;
      const layer = this.#layers.get(key) ?? this.#layer(member, diffIds[position] as string);
      this.#layers.set(key, layer);
      layers.push(await layer);
    }
    return this.#note(
      OCI_MANIFEST,
      encodeImageManifest({ mediaType: OCI_MANIFEST, config, layers }),
    );
  }

  async #layer(member: TarMember, diffId: string): Promise<Descriptor> {
    const { size } = member;
    const start = { ...member, size: Math.min(size, ARCHIVE_MAGIC_LENGTH) };
    const compression = detectCompression(await this.#content.read(start));
    const digest = compression === "uncompressed" ? parseDigest(diffId) : await this.#hash(member);
    this.#blobs.set(digest, { member });
    return { mediaType: layerTypeIn(OCI_LAYER, compression), digest, size };
  }

  async #hash(member: TarMember): Promise<Digest> {
    const hasher = createHasher();
    const signal = this.#signal;
    for await (const chunk of readChunks(this.#content.stream(member, signal), signal))
      hasher.update(chunk);
    return hasher.digest();
  }

  #note(mediaType: string, bytes: Uint8Array): Descriptor {
    const digest = digestOf(bytes);
    this.#blobs.set(digest, { bytes });
    return { mediaType, digest, size: bytes.length };
  }

  async #read(path: string, limit: number, what: string): Promise<Uint8Array> {
    const member = this.#find(path, what);
    checkDocumentSize(member.size, limit, `${what} of "${this.#location}"`);
    return this.#content.read(member);
  }

  /** The file that a path means; links within the archive are followed, as old layers were stored once. */
  #find(path: string, what: string): TarMember {
    let at = checkMemberPath(path, this.#location);
    for (let links = 0; links <= MAX_LINKS; links++) {
      const member = this.#content.members.get(at);
      if (member?.type === "file") return member;
      if (!member?.link) break;
      const { isHard, target } = member.link;
      const isFromRoot = isHard || target.startsWith("/");
      const joined = isFromRoot ? target : posix.join(dirname(at), target);
      at = checkMemberPath(joined, this.#location);
    }
    throw archiveInvalid(
      this.#location,
      `its manifest.json names ${what}, which is no file in it`,
      "Get the archive again from where it was made",
    );
  }
}
