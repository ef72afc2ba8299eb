/**
 * Everything that can stand on the command line for a place: a layout folder, a
 * layout in a tar, standard input or output, a registry, each with the name that
 * is meant there. No file is touched: what exists is asked of a probe.
 *
 * What exists wins; only then a text is taken by its looks, from the right, and a
 * text that reads in two ways is refused with both readings.
 */
import { isOptionText } from "./location-attributes.ts";
import { CacheportError } from "./errors.ts";
import { notFound, quote, readDigest, unusable } from "./location-context.ts";
import type { Context, LayoutName, Location, LocationOptions } from "./location-context.ts";
import { registryReference } from "./location-host.ts";
import { hasArchiveEnding, refuseFileEnding, refuseHost } from "./location-new.ts";
import { fromS3Address } from "./location-object.ts";
import { fromOptions } from "./location-options.ts";
import { resolve } from "./paths.ts";
import { canonicalName, isDomain, isTag } from "./reference.ts";

export type { LocationAttributes } from "./location-attributes.ts";
export type { Location, LocationOptions, PathKind } from "./location-context.ts";

/** Well above the longest path that a system takes; bounds what the probe is asked. */
const MAX_TEXT_LENGTH = 16_384;

/** What stands before a text to say what it is. */
const SCHEMES = [
  ["oci-archive:", "archive"],
  ["docker-archive:", "archive"],
  ["oci-layout://", "directory"],
  ["ocidir://", "directory"],
  ["docker://", "registry"],
  ["oci:", "directory"],
] as const;

/** A tar on standard input or output. The result of a command must not go there, too. */
const STREAM = {
  source: /^-(?=[:@]|$)/,
  target: /^(?:-|\/dev\/stdout)(?=[:@]|$)/,
};

/** What is meant as a digest, though it may be a wrong one: a known algorithm or enough hex digits. */
const LIKE_DIGEST = /^sha[0-9]+:|^[A-Za-z][\w+.-]*:[0-9a-fA-F]{32,}$/;

/** A path by its looks: absolute, from here, from home or with a Windows drive. */
const LIKE_PATH = /^(?:\.{0,2}|~)[\\/]|^(?:\.{1,2}|~)(?:[:@]|$)|^[A-Za-z]:[\\/]/;

/**
 * Parses a location.
 *
 * @throws {CacheportError} USAGE, REFERENCE_INVALID, NOT_SUPPORTED, LOCATION_NOT_FOUND
 * @example
 * parseLocation("cache:main", { role: "target", probe: () => undefined });
 * // { kind: "directory", text: "cache:main", path: "cache", name: "main" }
 */
export function parseLocation(text: string, { role, probe, cwd }: LocationOptions): Location {
  const toPath = (path: string) => (cwd === undefined ? path : resolve(cwd, path));
  const context: Context = {
    text,
    role,
    resolve: toPath,
    probe: (path) => probe(toPath(path)),
  };
  if (text === "") throw unusable(context, "it is empty");
  if (text.length > MAX_TEXT_LENGTH)
    throw unusable(context, `it is longer than ${MAX_TEXT_LENGTH} characters`);
  if (text.includes("\0")) throw unusable(context, "it contains a NUL character");
  if (isOptionText(text)) return fromOptions(context);
  if (text.startsWith("s3://")) return fromS3Address(context);
  const stream = STREAM[role].exec(text)?.[0];
  if (stream !== undefined)
    return {
      kind: "stream",
      text,
      ...readName(context, text.slice(stream.length)),
    };
  const scheme = SCHEMES.find(([prefix]) => text.startsWith(prefix));
  if (scheme) return fromScheme(context, scheme[0], scheme[1]);
  return fromExisting(context, text) ?? fromLooks(context);
}

/** Reads a text whose kind is written before it. */
function fromScheme(
  context: Context,
  scheme: string,
  kind: "directory" | "archive" | "registry",
): Location {
  const { text } = context;
  const rest = text.slice(scheme.length);
  if (rest === "") throw unusable(context, `nothing follows ${scheme}`);
  if (kind === "registry") return { kind, text, reference: registryReference(context, rest) };
  if (scheme === "oci:" && rest.startsWith("//"))
    throw unusable(
      context,
      "oci:// means a layout to some tools and a registry to others",
      `Write oci-layout://${rest.slice(2)} or docker://${rest.slice(2)}`,
    );
  const existing = fromExisting(context, rest);
  const isDocker = scheme === "docker-archive:" && context.role === "target";
  // What is written is for docker load; what is read may be in either form.
  const more = isDocker && { attributes: { dockerArchive: true, notes: [] } };
  if (existing === undefined) return { ...fromMissing(context, rest, kind), ...more };
  if (existing.kind === kind) return { ...existing, ...more };
  throw unusable(
    context,
    kind === "archive"
      ? `${scheme} is for a file and "${existing.path}" is a directory`
      : `${scheme} is for a directory and "${existing.path}" is a file`,
    `Write ${kind === "archive" ? "oci:" : "oci-archive:"}${rest}`,
  );
}

/**
 * Finds the longest part of a text that exists and takes the rest as the name; the
 * whole text has no rest.
 *
 * @returns Undefined when no part exists.
 */
function fromExisting(
  context: Context,
  written: string,
): Extract<Location, { path: string }> | undefined {
  for (const [path, rest] of splits(written)) {
    const found = context.probe(path);
    if (found === undefined || !canBeName(path, rest)) continue;
    return {
      kind: found === "file" ? "archive" : "directory",
      text: context.text,
      path: context.resolve(path),
      ...readName(context, rest),
    };
  }
  return undefined;
}

/** Every way to part a text into a path and `:NAME` or `@DIGEST`, the longest path first. */
function* splits(text: string): Generator<[path: string, rest: string]> {
  yield [text, ""];
  for (let index = text.length - 1; index > 0; index--)
    if (text[index] === "@" || (text[index] === ":" && !isDriveColon(text, index)))
      yield [text.slice(0, index), text.slice(index)];
}

/** Tells whether a colon is that of a Windows drive: `C:\x`, `C:/x`. */
function isDriveColon(text: string, index: number): boolean {
  return index === 1 && /^[A-Za-z]:[\\/]/.test(text);
}

/**
 * Tells whether what follows an existing path is meant as a name. A slash belongs to the
 * path, unless it is that of an image name; a port is no name.
 */
function canBeName(path: string, rest: string): boolean {
  if (!rest.includes("/")) return true;
  if (isDomain(path) && /^:\d+\//.test(rest)) return false;
  return namesRegistry(rest.slice(1)) || isName(partDigest(rest.slice(1))[0]);
}

/** Tells whether a text can be the name of an entry. */
function isName(text: string): boolean {
  return isTag(text) || canonicalName(text) !== undefined;
}

/** Parts `@DIGEST` from the end of a text, where what follows the last @ is meant as one. */
function partDigest(text: string): [before: string, digest: string | undefined] {
  const at = text.lastIndexOf("@");
  return at !== -1 && LIKE_DIGEST.test(text.slice(at + 1))
    ? [text.slice(0, at), text.slice(at + 1)]
    : [text, undefined];
}

/**
 * Reads what follows a path: nothing, `:NAME`, `@DIGEST` or both.
 *
 * @throws {CacheportError} REFERENCE_INVALID
 */
function readName(context: Context, rest: string): LayoutName {
  const [before, digest] = rest.startsWith("@") ? ["", rest.slice(1)] : partDigest(rest);
  const name = before === "" ? undefined : before.slice(1);
  if (name === "") throw emptyName(context);
  if (name !== undefined && !isName(name))
    throw unusable(
      context,
      `${quote(name)} is neither a tag nor an image name`,
      "A name is a tag (main) or an image name (team/app:1.0); content by its digest is PATH@sha256:...",
      "REFERENCE_INVALID",
    );
  return {
    ...(name !== undefined && { name }),
    ...(digest !== undefined && readDigest(context, digest)),
  };
}

/** Tells whether a name starts with a registry, which a path of the same text would not. */
function namesRegistry(name: string): boolean {
  const first = name.slice(0, Math.max(0, name.indexOf("/")));
  return isDomain(first) && (first === "localhost" || /[.:]/.test(first));
}

/** Decides by its looks what a text means of which nothing exists. */
function fromLooks(context: Context): Location {
  const { text, role } = context;
  refuseForeign(context);
  if (text.endsWith(":")) throw emptyName(context);
  if (LIKE_PATH.test(text)) return fromMissing(context, text);
  const fresh = newPath(context, text);
  // Looks at the digest, too.
  const [old] = partFromRight(context, text);
  const path = role === "source" ? old : fresh;
  const isArchive = hasArchiveEnding(path);
  const isImage = canonicalName(text) !== undefined;
  if (namesRegistry(text)) {
    const isInFolder = context.probe(text.slice(0, text.indexOf("/"))) === "directory";
    if (!isArchive && !isInFolder)
      return { kind: "registry", text, reference: registryReference(context, text) };
    if (isImage) throw readsTwice(context, path);
  }
  refuseHost(context, fresh);
  if (role === "source" && isImage && !isArchive) throw readsTwice(context, path);
  return fromMissing(context, text);
}

/** Refuses what other tools write and cacheport would take for a path. */
function refuseForeign(context: Context): void {
  const { text } = context;
  const url = /^(https?):\/\/(.*)$/s.exec(text);
  if (url)
    throw unusable(
      context,
      "a registry is written without a scheme",
      `Write ${url[2]}, or type=registry,ref=${url[2]},registry.insecure=true for a registry without TLS`,
    );
  const folder = /^dir:(.+)$/s.exec(text)?.[1];
  if (folder !== undefined && (!isName(folder) || context.probe(folder) === "directory"))
    throw unusable(
      context,
      "dir: is a folder in the way of skopeo, which is no layout and keeps no names",
      `Copy it with skopeo first: skopeo copy ${text} oci:FOLDER:TAG; for a layout leave out dir:`,
      "NOT_SUPPORTED",
    );
  const scheme =
    /^(?:[A-Za-z][A-Za-z0-9+.-]*:\/\/|(?:oci-layout|ocidir|docker):\/|(?:containers-storage|docker-daemon):)/.exec(
      text,
    )?.[0];
  if (scheme !== undefined)
    throw unusable(
      context,
      `locations with ${scheme} are not supported`,
      "Write PATH:TAG, oci-layout://PATH:TAG, oci-archive:FILE:TAG or docker://HOST/REPOSITORY:TAG",
      "NOT_SUPPORTED",
    );
}

/** Takes a text as a path that does not exist: right for a target, an error for a source. */
function fromMissing(context: Context, written: string, kind?: "directory" | "archive"): Location {
  if (context.role === "source") {
    const [path] = partFromRight(context, written);
    if (path === "") throw unusable(context, "the path is missing");
    throw notFound(context, path, kind, hintAtExisting(context, written));
  }
  const path = newPath(context, written);
  if (path === "") throw unusable(context, "the path is missing");
  const named = readNewName(context, path, written.slice(path.length));
  if (kind !== "directory") refuseFileEnding(context, path, kind);
  return {
    kind: kind ?? (hasArchiveEnding(path) ? "archive" : "directory"),
    text: context.text,
    path: context.resolve(path),
    ...named,
  };
}

/**
 * The path of a new target: what stands before its first colon, as skopeo reads it. A
 * folder that exists is part of the path, whatever colons its name has.
 */
function newPath(context: Context, written: string): string {
  const [before] = partDigest(written);
  // The address of a host in brackets, and a drive.
  const head = /^\[[^\]]*\]|^[A-Za-z]:(?=[\\/])/.exec(before)?.[0].length ?? 0;
  const colon = before.indexOf(":", Math.max(head, existingFolder(context, before)));
  return colon === -1 ? before : before.slice(0, colon);
}

/** The length of the longest folder that a path starts with and that exists. */
function existingFolder(context: Context, path: string): number {
  for (let end = path.length - 1; end > 0; end--)
    if (/[\\/]/.test(path[end] as string) && context.probe(path.slice(0, end)) === "directory")
      return end;
  return 0;
}

/** Reads the name of a new target, which says more when it is none: the text could be a path. */
function readNewName(context: Context, path: string, rest: string): LayoutName {
  const [before] = rest.startsWith("@") ? [""] : partDigest(rest);
  const name = before.slice(1);
  if (before === "" || before.endsWith(":") || isName(name)) {
    if (before.endsWith(":")) throw emptyName(context);
    return readName(context, rest);
  }
  throw unusable(
    context,
    `${quote(name)} is neither a tag nor an image name`,
    `Write ${path}:TAG, or type=local,dest=${path}${rest} for a folder of that name`,
    "REFERENCE_INVALID",
  );
}

/** What to try for a source of which a part exists. */
function hintAtExisting(context: Context, written: string): string | undefined {
  const { text } = context;
  for (const [path, rest] of splits(written))
    if (rest.startsWith(":") && context.probe(path) === "directory")
      return `Write type=local,src=${path},tag=${rest.slice(1)} for that tag in ${path}`;
  return text.startsWith("oci:")
    ? `Check the path, or write ./${text} for a directory that is named oci`
    : undefined;
}

/** Parts a text of which nothing exists into its path and its tag and digest, from the right. */
function partFromRight(context: Context, written: string): [path: string, named: LayoutName] {
  const [before, digest] = partDigest(written);
  const colon = before.lastIndexOf(":");
  const tag = before.slice(colon + 1);
  const named = digest && readDigest(context, digest);
  if (colon === -1 || isDriveColon(before, colon) || tag.includes("/"))
    return [before, { ...named }];
  if (tag === "") throw emptyName(context);
  return isTag(tag) ? [before.slice(0, colon), { name: tag, ...named }] : [before, { ...named }];
}

/** The error for a text that could be a path and a name in a registry, and is no path that exists. */
function readsTwice({ text, role }: Context, path: string): CacheportError {
  return new CacheportError(
    role === "source" ? "LOCATION_NOT_FOUND" : "USAGE",
    `Cannot use location ${quote(text)}: it reads as the path ${quote(path)}, which does not exist, and as the image ${quote(canonicalName(text) ?? text)}`,
    {
      hint: `Write ./${text} for the path or docker://${text} for the registry`,
    },
  );
}

/** The error for `layout:`, as an unset variable leaves it. */
function emptyName(context: Context): CacheportError {
  return unusable(
    context,
    "the name after the last colon is empty",
    "Leave out the colon, or check the variable that the name comes from",
    "REFERENCE_INVALID",
  );
}
