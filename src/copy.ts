/**
 * Copies whatever descriptors reach from one store to another, digests kept:
 * images, indexes, caches in every shape, any artifact.
 */
import { mapLimit } from "./concurrency.ts";
import type {
  ContentReader,
  ContentWriter,
  NameUpdate,
  PutOptions,
  Root,
} from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { isForeignLayerType } from "./media-types.ts";
import type { ProgressReporter } from "./progress.ts";
import { walk } from "./walk.ts";
import type { ContentNode, WalkOptions } from "./walk.ts";

/** What is to be copied and how it is called in the target. */
export interface CopyRoot {
  descriptor: Descriptor;
  names: readonly NameUpdate[];
}

/** What operations that move content need to know. */
export interface TransferOptions extends WalkOptions {
  /** Blobs that are moved at once. */
  jobs: number;
  progress: ProgressReporter;
  /** Is told the names that the target had before, as a writer's `publish` tells them. */
  onNames?: PutOptions["onNames"];
}

/** How much content was moved. */
export interface TransferCounts {
  copied: number;
  /** Blobs that the target had already, mounted ones too. */
  skipped: number;
  /** Bytes of the copied ones. */
  bytes: number;
}

/** Where nothing was moved. */
export const NOTHING_MOVED: Readonly<TransferCounts> = {
  copied: 0,
  skipped: 0,
  bytes: 0,
};

/**
 * Copies roots and all that they reach, children before parents, and names them.
 *
 * @returns The roots' descriptors as they stand in the target, and the counts.
 * @throws {CacheportError} whatever reading, checking or writing throws; nothing
 *   is named then
 */
export async function copyContent(
  source: ContentReader,
  roots: readonly CopyRoot[],
  writer: ContentWriter,
  options: TransferOptions,
): Promise<{ roots: Descriptor[]; counts: TransferCounts }> {
  // Several names may stand for one thing.
  const distinct = new Map(
    roots.map(({ descriptor }) => [`${descriptor.digest} ${descriptor.mediaType}`, descriptor]),
  );
  const nodes = await walk(source, [...distinct.values()], { ...options, subjects: true });
  const byDigest = new Map(nodes.map((node) => [node.descriptor.digest, node]));
  const rootDigests = new Set(roots.map((root) => root.descriptor.digest));
  const listed = new Set<Digest>();
  for (const { children, subject } of nodes) {
    for (const { digest } of children) listed.add(digest);
    if (subject) listed.add(subject.digest);
  }

  // A root that another root lists has to be there before that one.
  const before = nodes.filter(
    ({ descriptor: { digest } }) => !rootDigests.has(digest) || listed.has(digest),
  );
  const blobs = before.filter((node) => !node.bytes);
  const counts = await copyBlobs(
    source,
    blobs.map((node) => node.descriptor),
    writer,
    options,
  );
  for (const node of before) await putDocument(node, writer, counts, options);
  const published = await Promise.all(
    roots.map((root) =>
      loadRoot(source, root, byDigest.get(root.descriptor.digest) as ContentNode, options),
    ),
  );
  const { signal, onNames } = options;
  await writer.publish(published, { signal, onNames });
  return { roots: published.map((root) => root.descriptor), counts };
}

/** Writes a document that is no root, as what it is needed as: a registry keeps blobs apart. */
async function putDocument(
  { descriptor, bytes, asBlob, asDocument }: ContentNode,
  writer: ContentWriter,
  counts: TransferCounts,
  { signal }: TransferOptions,
): Promise<void> {
  if (!bytes) return;
  for (const isBlob of [...(asBlob ? [true] : []), ...(asDocument ? [undefined] : [])]) {
    const outcome = await writer.put({ ...descriptor, isBlob }, { bytes }, { signal });
    count(counts, outcome, descriptor.size);
  }
}

/** A root's bytes, read unless the walk has read them. */
async function loadRoot(
  source: ContentReader,
  { descriptor, names }: CopyRoot,
  node: ContentNode,
  { limits }: TransferOptions,
): Promise<Root> {
  const bytes = node.bytes ?? (await source.read(descriptor, limits.config));
  const mediaType = node.descriptor.mediaType;
  return { descriptor: { ...descriptor, mediaType }, bytes, names };
}

/** Copies blobs, each digest once, several at a time. */
export async function copyBlobs(
  source: ContentReader,
  blobs: readonly Descriptor[],
  writer: ContentWriter,
  options: TransferOptions,
): Promise<TransferCounts> {
  // The largest first, so that none of them is left to run alone at the end.
  const distinct = [...new Map(blobs.map((blob) => [blob.digest, blob])).values()].toSorted(
    (a, b) => b.size - a.size,
  );
  const counts: TransferCounts = { copied: 0, skipped: 0, bytes: 0 };
  options.progress.expect({
    tasks: distinct.length,
    bytes: distinct.reduce((sum, blob) => sum + blob.size, 0),
  });
  await mapLimit(distinct, options.jobs, async (blob, _, leave) => {
    options.signal?.throwIfAborted();
    if (await isElsewhere(source, blob)) return;
    const task = options.progress.start("copy", blob.digest, blob.size);
    let moved = 0;
    const onBytes = (bytes: number): void => {
      task.advance(bytes);
      moved += bytes;
      if (moved < blob.size) return;
      task.end("copied");
      // The next one can come while this one is checked and brought to the disk.
      if (writer.finishesLocally) leave();
    };
    try {
      const { isLive } = options.progress;
      const put = { signal: options.signal, onBytes, isLive };
      const outcome = await writer.put(blob, { store: source }, put);
      if (!writer.defers || outcome !== "copied") task.end(outcome);
      count(counts, outcome, blob.size);
    } catch (error) {
      task.end("failed");
      throw error;
    }
  });
  return counts;
}

/** A foreign layer may be absent on purpose: its URLs say where it is. */
async function isElsewhere(source: ContentReader, blob: Descriptor): Promise<boolean> {
  if (!isForeignLayerType(blob.mediaType) || !blob.urls?.length) return false;
  return (await source.stat(blob)) === undefined;
}

function count(counts: TransferCounts, outcome: string, bytes: number): void {
  if (outcome === "copied") {
    counts.copied++;
    counts.bytes += bytes;
  } else {
    counts.skipped++;
  }
}
