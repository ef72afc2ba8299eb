/** What a layout folder holds beside the content that its names reach. */
import type { ContentReader, NamedEntry } from "./content-store.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import { hasLayoutMarker } from "./layout-index-file.ts";
import { listLayoutFiles } from "./layout-files.ts";
import { entryLabel } from "./layout-index.ts";
import { findReferrers } from "./reachable.ts";
import type { ProblemList } from "./verify-problem.ts";
import { walk } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/**
 * Notes what is in a layout folder and belongs to nothing. What refers to something that is
 * reached belongs to it, as it does for gc.
 *
 * @param reached The digests that the names reach; undefined when not all names were
 *   followed.
 * @throws {CacheportError} IO_FAILED, PERMISSION_DENIED
 */
export async function verifyLayoutFiles(
  store: ContentReader,
  folder: string,
  reached: Set<Digest> | undefined,
  options: WalkOptions,
  problems: ProblemList,
): Promise<void> {
  await verifyMarker(folder, problems);
  const { blobs, leftovers, strays } = await listLayoutFiles(folder);
  if (reached) await addReferrers(store, reached, blobs, options);
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

/** Adds what the referrers of reached documents reach, and theirs. */
async function addReferrers(
  store: ContentReader,
  reached: Set<Digest>,
  blobs: readonly { digest: Digest; size: number }[],
  { limits, jobs, signal }: WalkOptions,
): Promise<void> {
  const others = blobs.filter(({ digest }) => !reached.has(digest));
  if (others.length === 0) return;
  const referrers = await findReferrers(store, others, { limits, jobs, signal });
  let news = [...reached];
  while (news.length > 0) {
    const roots = news.flatMap((digest) => referrers.get(digest) ?? []);
    const onBroken = (): void => {};
    const nodes = await walk(store, roots, { limits, jobs, signal, subjects: true, onBroken });
    news = nodes
      .map(({ descriptor }) => descriptor.digest)
      .filter((digest) => !reached.has(digest));
    for (const digest of news) reached.add(digest);
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
