/**
 * The `oci-layout` file that marks a folder or an archive as a layout.
 *
 * Source: OCI image-spec, image-layout.md, "oci-layout file".
 */
import * as v from "valibot";
import { checkSchema } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { parseJson } from "./go-json.ts";

const VERSION = "1.0.0";

/** The bytes of the file, as BuildKit writes them. */
export const LAYOUT_MARKER: Uint8Array = new TextEncoder().encode(
  `{"imageLayoutVersion":"${VERSION}"}`,
);

const MarkerSchema = v.object({ imageLayoutVersion: v.string() });

/**
 * Checks the content of an `oci-layout` file.
 *
 * @param location The layout as the user wrote it, for messages.
 * @throws {CacheportError} LAYOUT_INVALID for another version, DOCUMENT_INVALID
 */
export function checkLayoutMarker(bytes: Uint8Array, location: string): void {
  const what = `oci-layout of "${location}"`;
  const { imageLayoutVersion } = checkSchema(MarkerSchema, parseJson(bytes, what), what);
  if (imageLayoutVersion === VERSION) return;
  throw new CacheportError(
    "LAYOUT_INVALID",
    `Cannot read layout "${location}": its version is ${JSON.stringify(imageLayoutVersion.slice(0, 50))} and only ${VERSION} is known`,
  );
}
