/** The media type of a blob that nothing describes, told from its bytes. */
import { detectDocumentType } from "./document.ts";
import { isCacheportError } from "./errors.ts";
import { isJsonObject, parseJson } from "./go-json.ts";

/** The media type of content of which nothing more is known. */
export const UNKNOWN_TYPE = "application/octet-stream";

/**
 * Tells the media type of a blob. Configs have fields of the same names as
 * manifests, but no schemaVersion.
 *
 * @returns The type of a manifest or an index, else {@link UNKNOWN_TYPE}.
 */
export function detectBlobType(bytes: Uint8Array): string {
  try {
    const value = parseJson(bytes, "blob");
    if (!isJsonObject(value) || !("schemaVersion" in value)) return UNKNOWN_TYPE;
    return detectDocumentType(bytes, "blob");
  } catch (error) {
    if (isCacheportError(error)) return UNKNOWN_TYPE;
    throw error;
  }
}
