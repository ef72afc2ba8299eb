/**
 * What kind of document some bytes are, told from their structure as BuildKit
 * tells it: never from a registry's Content-Type or from what a descriptor says.
 *
 * Source: BuildKit util/imageutil/config.go (DetectManifestBlobMediaType).
 */
import { CacheportError } from "./errors.ts";
import { goFields, isJsonObject, parseJson } from "./go-json.ts";
import { DOCKER_LIST, DOCKER_MANIFEST, isIndexType, isManifestType } from "./media-types.ts";

/**
 * Finds the media type of a manifest or an index.
 *
 * A field that is null counts as present, and a document without `mediaType` is
 * the Docker form, both as in BuildKit. A document with neither `config` nor
 * `layers` counts as a list, `{}` too.
 *
 * @param what What the bytes are, for the message.
 * @returns The media type of an OCI or Docker index or manifest.
 * @throws {CacheportError} DOCUMENT_INVALID, with BuildKit's words
 */
export function detectDocumentType(bytes: Uint8Array, what: string): string {
  const value = parseJson(bytes, what);
  if (!isJsonObject(value)) {
    throw new CacheportError("DOCUMENT_INVALID", `Cannot read ${what}: it is not a JSON object`);
  }
  const fields = goFields(value, ["mediaType", "config", "manifests", "layers"]);
  const mediaType = fields["mediaType"];
  if (mediaType !== undefined && mediaType !== null && typeof mediaType !== "string") {
    throw new CacheportError(
      "DOCUMENT_INVALID",
      `Cannot read ${what}: field mediaType: Invalid type: Expected string`,
    );
  }
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
  if (typeof mediaType === "string" && (isIndexType(mediaType) || isManifestType(mediaType))) {
    if (isManifestType(mediaType) !== isManifest) {
      throw new CacheportError(
        "DOCUMENT_INVALID",
        `Cannot read ${what}: mediaType in manifest does not match manifest contents`,
      );
    }
    return mediaType;
  }
  return isManifest ? DOCKER_MANIFEST : DOCKER_LIST;
}
