/**
 * Reads an image manifest that is spelled the way BuildKit spells it, straight from its
 * bytes: a cache can have fifteen thousand layers. It takes nothing that the schema does
 * not take, and makes the same of it.
 */
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import type { ImageManifest } from "./image-manifest.ts";
import { fieldNames, PlainReader, readPlain } from "./plain-json.ts";

/**
 * Reads an image manifest.
 *
 * @returns Undefined for what is spelled in any other way, has other fields, lacks one of
 *   media type, config and layers, or is no manifest; the schema tells which.
 */
export function readPlainManifest(bytes: Uint8Array): ImageManifest | undefined {
  return readPlain(bytes, (plain) => new ManifestReader(plain).read());
}

const MANIFEST_FIELDS = fieldNames("schemaVersion", "mediaType", "config", "layers");
// A platform, embedded content and the like are left to the schema.
const DESCRIPTOR_FIELDS = fieldNames("mediaType", "digest", "size", "annotations");

class ManifestReader extends PlainReader {
  read(): ImageManifest {
    let mediaType: string | undefined;
    let config: Descriptor | undefined;
    let layers: Descriptor[] | undefined;
    let seen = 0;
    for (
      let field: number;
      (field = this.field(MANIFEST_FIELDS, seen)) !== -1;
      seen |= 1 << field
    ) {
      if (field === 0) this.number();
      else if (field === 1) mediaType = this.text();
      else if (field === 2) config = this.#descriptor();
      else layers = this.list(this.#descriptor);
    }
    this.end();
    if (mediaType === undefined || !config || !layers) this.refuse();
    return { mediaType, config, layers };
  }

  readonly #descriptor = (): Descriptor => {
    let mediaType = "";
    let digest: string | undefined;
    let size = -1;
    let annotations: Record<string, string> | undefined;
    let seen = 0;
    for (
      let field: number;
      (field = this.field(DESCRIPTOR_FIELDS, seen)) !== -1;
      seen |= 1 << field
    ) {
      if (field === 0) mediaType = this.again();
      else if (field === 1) digest = this.text();
      else if (field === 2) size = this.number();
      else annotations = this.texts();
    }
    if (!isDigest(digest) || size < 0) this.refuse();
    return annotations ? { mediaType, digest, size, annotations } : { mediaType, digest, size };
  };
}
