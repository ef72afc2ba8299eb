/**
 * What a location is, and what the two ways of writing one share: as a path or a
 * reference (location.ts) and as an option text (location-options.ts).
 */
import type { LocationAttributes } from "./location-attributes.ts";
import { isDigest, isDigestStart } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { ErrorCode } from "./errors.ts";
import type { ObjectPlace } from "./object-place.ts";
import type { NormalizedReference } from "./reference.ts";

/** What a path leads to; undefined for nothing. */
export type PathKind = "directory" | "file" | undefined;

/** What is meant inside a layout: neither part when the user named none. */
export interface LayoutName {
  /** A tag or a full image name, as it was written. */
  name?: string | undefined;
  digest?: Digest | undefined;
  /** The start of a digest, which the store completes. */
  digestStart?: string | undefined;
}

/** What all locations have. */
export interface Place {
  /** The text that the user wrote. */
  text: string;
  /** Set when the text was an option text: `type=...`. */
  attributes?: LocationAttributes | undefined;
}

/** A place that content is read from or written to, and what is meant there. */
export type Location =
  | (Place & LayoutName & { kind: "directory"; path: string })
  | (Place & LayoutName & { kind: "archive"; path: string })
  /** A tar on standard input or output. */
  | (Place & LayoutName & { kind: "stream" })
  /** An object store. The text has no secrets. The name may be a list: see `splitNames`. */
  | (Place & LayoutName & { kind: "object"; place: ObjectPlace })
  /** Tag and digest are both null when the user gave neither. */
  | (Place & { kind: "registry"; reference: NormalizedReference });

/** How a location is read. */
export interface LocationOptions {
  /** A source must exist, a target need not. */
  role: "source" | "target";
  /** Says what a path leads to. */
  probe: (path: string) => PathKind;
  /** An absolute path; relative paths are resolved against it. Without it they stay relative. */
  cwd?: string | undefined;
}

/** What the readers of a location hand on; the probe takes paths as they are written. */
export interface Context {
  text: string;
  role: "source" | "target";
  resolve(path: string): string;
  probe(path: string): PathKind;
}

/** Checks a digest that the user wrote. @throws {CacheportError} REFERENCE_INVALID */
export function checkDigest(context: Context, text: string): Digest {
  if (isDigest(text)) return text;
  throw unusable(
    context,
    `${quote(text)} is no digest: that is sha256: with 64 or sha512: with 128 lower-case hex digits`,
    undefined,
    "REFERENCE_INVALID",
  );
}

/** Reads a digest that the user wrote, whole or its start. @throws {CacheportError} REFERENCE_INVALID */
export function readDigest(
  context: Context,
  text: string,
): Pick<LayoutName, "digest" | "digestStart"> {
  return isDigestStart(text) ? { digestStart: text } : { digest: checkDigest(context, text) };
}

/** The error for a source that does not exist. */
export function notFound(
  { text, role }: Context,
  path: string,
  kind?: "directory" | "archive",
  hint = "Check the path, or write docker://HOST/REPOSITORY:TAG for a registry",
): CacheportError {
  const what = { directory: "directory", archive: "file" };
  return new CacheportError(
    "LOCATION_NOT_FOUND",
    `Cannot find ${role} ${quote(text)}: there is no ${kind ? what[kind] : "directory or file"} ${quote(path)}`,
    { hint },
  );
}

/** The error for a text that means no location. */
export function unusable(
  { text }: Context,
  reason: string,
  hint?: string,
  code: ErrorCode = "USAGE",
): CacheportError {
  return new CacheportError(code, `Cannot use location ${quote(text)}: ${reason}`, { hint });
}

/** A text in quotes, for a message; a long one is cut. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}...` : text);
}
