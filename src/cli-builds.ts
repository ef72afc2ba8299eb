/** `--build BUILD`: opens whatever a user has of a build. */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import type { OptionSpec } from "./cli-command.ts";
import { checkDocumentSize } from "./documents.ts";
import { CacheportError, isCacheportError, systemError } from "./errors.ts";
import type { Build } from "./explain-build.ts";
import { openSource } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";

/** The option that names records by the steps of builds. */
export const BUILD_OPTION = {
  name: "build",
  value: "BUILD",
  repeat: true,
  description:
    "Name records by the steps of a build: a metadata file, a provenance, a .dockerbuild file or an image",
} as const satisfies OptionSpec;

/**
 * Reads the builds that a text names: a file with JSON, a bundle, or an image in any
 * location.
 *
 * @throws {CacheportError} LOCATION_NOT_FOUND, NOT_SUPPORTED, DOCUMENT_INVALID, ...
 */
export async function openBuilds(text: string, settings: StoreSettings): Promise<Build[]> {
  const head = fileHead(text);
  if (head && isJsonText(head)) return readJsonFile(text, settings);
  if (head) {
    const { isCompressed, readBundle } = await import("./explain-bundle.ts");
    const isBundle = text.endsWith(".dockerbuild");
    if (isBundle || isCompressed(head))
      try {
        const builds = await readBundle(() => Bun.file(text).stream(), text, settings);
        if (builds.length > 0) return builds;
        if (isBundle) throw noRecord(text);
      } catch (error) {
        // An image in a compressed archive may well be larger; it is opened as a location.
        if (isBundle || !isCacheportError(error, "DOCUMENT_TOO_LARGE")) throw error;
      }
  }
  const { readStoredBuilds } = await import("./explain-attestation.ts");
  const { store, query } = await openSource(text, settings);
  try {
    const { descriptor } = await store.resolve(query);
    return await readStoredBuilds(store, descriptor, text, settings);
  } finally {
    await store.close();
  }
}

/** The builds of all texts, in their order. */
export async function openAllBuilds(
  texts: readonly string[],
  settings: StoreSettings,
): Promise<Build[]> {
  const builds: Build[] = [];
  for (const text of texts) builds.push(...(await openBuilds(text, settings)));
  return builds;
}

/** The first bytes of a regular file; undefined for anything else. */
function fileHead(path: string): Uint8Array | undefined {
  try {
    if (!statSync(path, { throwIfNoEntry: false })?.isFile()) return undefined;
    const head = Buffer.alloc(64);
    const file = openSync(path, "r");
    try {
      return head.subarray(0, readSync(file, head));
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw systemError(`Cannot read build "${path}"`, error);
  }
}

function isJsonText(head: Uint8Array): boolean {
  return /^\ufeff?\s*\{/.test(new TextDecoder().decode(head));
}

async function readJsonFile(path: string, { limits }: StoreSettings): Promise<Build[]> {
  const { readProvenance } = await import("./explain-provenance.ts");
  const what = `build "${path}"`;
  let bytes: Uint8Array;
  try {
    const file = Bun.file(path);
    checkDocumentSize(file.size, limits.config, what);
    bytes = await file.bytes();
  } catch (error) {
    throw systemError(`Cannot read ${what}`, error);
  }
  return readProvenance(stripMark(bytes), path, what);
}

/** Drops the byte order mark that some editors write. */
function stripMark(bytes: Uint8Array): Uint8Array {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

function noRecord(text: string): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot use build "${text}": it holds no record of a build`,
    { hint: "Write one with docker buildx history export --finalize -o FILE.dockerbuild" },
  );
}
