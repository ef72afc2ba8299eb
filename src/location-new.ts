/**
 * What a new target may be called. Content goes only to places that were meant: what
 * looks like a registry, like a file of another kind or like a folder with other things
 * in it is refused, and the error shows how to write each meaning.
 */
import { lstatSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { unusable } from "./location-context.ts";
import type { Context } from "./location-context.ts";
import { looksLikeHost } from "./location-host.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location-context.ts";
import { dirname, resolve } from "./paths.ts";

const ARCHIVE = /\.(?:tar|tar\.gz|tgz|tar\.zst|tar\.zstd|tzst)$/i;

/** Archives and compressions that are not written here. */
const OTHER_ARCHIVE =
  /\.(?:7z|br|bz2|cpio|gz|iso|jar|lz|lz4|lzma|rar|sif|squashfs|tbz2?|tlz|txz|war|xz|zip|zst|zstd)$/i;

/** Kinds of file that everybody knows by their ending. */
const OTHER_FILE =
  /\.(?:bak|bat|c|cfg|cjs|conf|cpp|crt|css|csv|db|dockerfile|doc|docx|env|exe|gif|go|h|hcl|html?|ini|java|jpe?g|js|json5?|jsonl|jsx|key|lock|log|lua|md|mjs|ndjson|pdf|pem|php|pl|png|ps1|py|rb|rs|rst|sh|sql|sqlite|svg|tf|toml|ts|tsv|tsx|txt|webp|xml|ya?ml)$/i;

/** What a layout consists of, what its writers leave, and what stands in a fresh volume or checkout. */
const LAYOUT_ENTRIES = new Set([
  ".cacheport",
  ".DS_Store",
  ".gitignore",
  ".gitkeep",
  "blobs",
  "index.json",
  "index.json.lock",
  "ingest",
  "lost+found",
  "manifest.json",
  "oci-layout",
]);

/** Tells whether a path ends as the archives do that are written here. */
export function hasArchiveEnding(path: string): boolean {
  return ARCHIVE.test(path);
}

/**
 * Refuses a text that names a registry and no repository in it.
 *
 * @param path What is before the first colon.
 * @throws {CacheportError} USAGE
 */
export function refuseHost(context: Context, path: string): void {
  const { text, role } = context;
  const rest = text.slice(path.length);
  // Some endings are those of a country, too.
  if (!looksLikeHost(path, rest) || OTHER_FILE.test(path)) return;
  throw unusable(
    context,
    role === "source"
      ? "it looks like a registry, and the repository is missing"
      : "it looks like a registry without a repository, and would make a folder of that name",
    role === "source"
      ? `Write docker://${text}/REPOSITORY:TAG for the registry or ./${text} for the path`
      : `Write docker://${text}/REPOSITORY:TAG for the registry or oci:${text} for a folder`,
  );
}

/**
 * Refuses a new target whose ending says that it is another kind of file.
 *
 * @param kind `archive` where the user has said so.
 * @throws {CacheportError} USAGE
 */
export function refuseFileEnding(context: Context, path: string, kind?: "archive"): void {
  if (ARCHIVE.test(path)) return;
  const archive = OTHER_ARCHIVE.exec(path)?.[0];
  const ending = archive ?? (kind ? undefined : OTHER_FILE.exec(path)?.[0]);
  if (ending === undefined) return;
  throw unusable(
    context,
    archive
      ? `archives ending with ${ending} are not written: an archive is .tar, .tar.gz or .tar.zst`
      : `a file ending with ${ending} is no archive and no layout folder`,
    `Write ${path.slice(0, -ending.length).replace(/\.tar$/i, "")}.tar for an archive or oci:${path} for a folder of that name`,
  );
}

/**
 * Looks at the folder of a target: a layout is not written through a link that leads
 * nowhere, and not into a folder that holds other things unless the location says that
 * it is meant to be there.
 *
 * @throws {CacheportError} USAGE, LOCATION_NOT_FOUND
 */
export function checkTargetFolder(location: Location): void {
  if (location.kind !== "directory" && location.kind !== "archive") return;
  const { kind, path, text } = location;
  const link = deadLink(kind === "archive" ? dirname(path) : path);
  if (link)
    throw new CacheportError(
      "LOCATION_NOT_FOUND",
      `Cannot write to ${JSON.stringify(text)}: ${link}`,
      {
        hint: "Make the folder that it leads to, or remove the link",
      },
    );
  if (kind === "archive" || location.attributes) return;
  if (/^(?:oci:|oci-layout:\/\/|ocidir:\/\/)/.test(text)) return;
  let entries: string[];
  try {
    entries = readdirSync(path);
  } catch {
    // Nothing is there, or the writer will say what is wrong with it.
    return;
  }
  if (entries.some((entry) => ["oci-layout", "index.json", "blobs"].includes(entry))) return;
  const other = entries.find((entry) => !LAYOUT_ENTRIES.has(entry));
  if (other === undefined) return;
  throw new CacheportError(
    "USAGE",
    `Cannot write to ${JSON.stringify(text)}: the folder holds other things (${JSON.stringify(other)}) and is no layout`,
    { hint: `Write oci:${text} to put a layout there all the same, or name a new folder` },
  );
}

/** What is wrong with the first part of a path that is a link and leads nowhere, if one does. */
export function deadLink(path: string): string | undefined {
  for (let part = resolve(path); ; part = dirname(part)) {
    try {
      if (lstatSync(part).isSymbolicLink()) {
        const target = readlinkSync(part);
        if (!leadsSomewhere(part))
          return `${JSON.stringify(part)} is a symbolic link to ${JSON.stringify(target)}, which does not exist`;
      }
      return undefined;
    } catch {
      // Not there; a folder above it may be a link.
    }
    if (dirname(part) === part) return undefined;
  }
}

function leadsSomewhere(link: string): boolean {
  try {
    return statSync(link) !== undefined;
  } catch {
    return false;
  }
}
