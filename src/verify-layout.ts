/** What a layout folder holds beside the content that its names reach. */
import type { NamedEntry } from "./content-store.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import { hasLayoutMarker } from "./layout-index-file.ts";
import { listLayoutFiles } from "./layout-files.ts";
import { entryLabel } from "./layout-index.ts";
import type { ProblemList } from "./verify-problem.ts";

/**
 * Notes what is in a layout folder and belongs to nothing.
 *
 * @param reached The digests that the names reach; undefined when not all names were
 *   followed.
 * @throws {CacheportError} IO_FAILED, PERMISSION_DENIED
 */
export async function verifyLayoutFiles(
  folder: string,
  reached: ReadonlySet<Digest> | undefined,
  problems: ProblemList,
): Promise<void> {
  await verifyMarker(folder, problems);
  const { blobs, leftovers, strays } = await listLayoutFiles(folder);
  for (const { digest, size } of reached ? blobs : []) {
    if (reached?.has(digest)) continue;
    problems.add("UNREFERENCED_BLOB", digest, `No name reaches blob ${digest} (${size} bytes)`);
  }
  for (const { path, size } of leftovers) {
    problems.add(
      "LEFTOVER_FILE",
      null,
      `"${path}" (${size} bytes) was left by an interrupted writer, or one is at work`,
    );
  }
  for (const { path, isLink } of strays) {
    problems.add(
      "STRAY_FILE",
      null,
      isLink
        ? `"${path}" is a symbolic link and is not followed`
        : path.startsWith("blobs/")
          ? `"${path}" is no blob: its name is no digest`
          : `"${path}" is not what a layout has there`,
    );
  }
}

async function verifyMarker(folder: string, problems: ProblemList): Promise<void> {
  try {
    if (await hasLayoutMarker(folder)) return;
    problems.add(
      "LAYOUT_MARKER_MISSING",
      null,
      "The file oci-layout is missing or damaged: some tools do not take the folder for a layout",
    );
  } catch (error) {
    if (!isCacheportError(error, "LAYOUT_INVALID")) throw error;
    problems.add("LAYOUT_INVALID", null, error.message);
  }
}

/**
 * Reports entries that cannot be used.
 *
 * @returns The others.
 */
export function usableEntries(
  entries: readonly NamedEntry[],
  problems: ProblemList,
): readonly NamedEntry[] {
  for (const { problem } of entries)
    if (problem !== undefined) problems.add("ENTRY_INVALID", null, problem);
  return entries.filter(({ problem }) => problem === undefined);
}

/** Warns of names that stand for two things, of which nobody gets the second. */
export function verifyNames(entries: readonly NamedEntry[], problems: ProblemList): void {
  const first = new Map<string, NamedEntry>();
  for (const entry of entries) {
    const label = entryLabel(entry);
    if (label === null) continue;
    const key = JSON.stringify([entry.imageName, entry.refName]);
    const twin = first.get(key);
    if (!twin) {
      first.set(key, entry);
    } else if (twin.descriptor.digest !== entry.descriptor.digest) {
      problems.add(
        "NAME_TWICE",
        entry.descriptor.digest,
        `Two entries are called "${label}": ${twin.descriptor.digest} and ${entry.descriptor.digest}`,
      );
    }
  }
}
