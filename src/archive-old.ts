/** An archive that is to be changed, as it is before that. */
import type { BigIntStats } from "node:fs";
import { stat } from "node:fs/promises";
import { archiveFileFormat } from "./archive-format.ts";
import { statIfThere } from "./archive-file.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { openArchive } from "./archive-open.ts";
import type { LayoutArchive } from "./archive-reader.ts";
import type { Compression } from "./media-types.ts";
import { dirname } from "./paths.ts";

/** An archive that is to be changed. */
export interface OldArchive {
  readonly content: LayoutArchive;
  readonly compression: Compression;
  /** The file that was opened. */
  readonly stats: BigIntStats;
}

/** How to open it. */
export interface OldArchiveOptions {
  /** Only an uncompressed one can be added to. */
  mode: "append" | "rewrite";
  /** The archive as the user wrote it, for messages. */
  location: string;
  limits?: DocumentLimits | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Opens an archive that is to be changed. A compressed one is unpacked into a
 * temporary folder beside it.
 *
 * @returns Undefined when there is none, or an empty file as mktemp(1) makes one.
 * @throws {CacheportError} NOT_SUPPORTED for adding to a compressed archive, and
 *   those of {@link LayoutArchive.open}
 */
export async function openOldArchive(
  path: string,
  { mode, location, limits, signal }: OldArchiveOptions,
): Promise<OldArchive | undefined> {
  const found = await statIfThere(path);
  if (!found || (found.isFile() && found.size === 0)) return undefined;
  const stats = await stat(path, { bigint: true });
  if (mode === "append") await refuseCompressed(path, location);
  const opened = await openArchive(path, { tempRoot: dirname(path), location, limits, signal });
  return checkRoot({ ...opened, stats });
}

async function refuseCompressed(path: string, location: string): Promise<void> {
  const compression = await archiveFileFormat(path, location);
  if (compression === "uncompressed") return;
  throw new CacheportError(
    "NOT_SUPPORTED",
    `Cannot add to archive "${location}": it is compressed with ${compression}`,
    { hint: { do: "unpack-archive", location } },
  );
}

/** Only what is at the root of an archive is changed: beside a folder other things may be. */
async function checkRoot(old: OldArchive): Promise<OldArchive> {
  const { location, root } = old.content;
  if (root.folder === "") return old;
  await old.content.close();
  throw new CacheportError(
    "NOT_SUPPORTED",
    `Cannot change archive "${location}": its layout is in a folder of it, "${root.folder}"`,
    { hint: { do: "copy-archive", location } },
  );
}

/**
 * Opens an archive anew, for other processes may have written to it meanwhile. Only
 * a compressed one, which is never written to in place, is kept where its file is
 * still the same.
 *
 * @throws {CacheportError} as {@link openOldArchive}
 */
export async function reopenOldArchive(
  old: OldArchive | undefined,
  path: string,
  options: OldArchiveOptions,
): Promise<OldArchive | undefined> {
  if (old && old.compression !== "uncompressed") {
    const now = await stat(path, { bigint: true }).catch(() => undefined);
    const { dev, ino, size, mtimeNs } = old.stats;
    const isSame = now?.ino === ino && now.dev === dev && now.size === size;
    if (isSame && now.mtimeNs === mtimeNs) return old;
  }
  await old?.content.close();
  return openOldArchive(path, options);
}
