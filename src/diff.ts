/**
 * Which files differ between two caches: records of one step (the same digest) on other
 * inputs, or with other results, are paired, and what their layers hold is compared. The
 * layers are read for it, so how much is read has a bound.
 */
import type { CacheDifference, RecordReference } from "./cache-diff.ts";
import { resultsOf } from "./cache-layers.ts";
import type { Cache } from "./cache-layers.ts";
import { compareTimes, parseCacheTime } from "./cache-time.ts";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { isCacheportError } from "./errors.ts";
import { readLayerTree } from "./explain-layer.ts";
import type { MemoryTree, TreeEntry } from "./explain-tree.ts";
import { compareBytes } from "./go-json.ts";

/** A cache and where its layers are. */
export interface DiffSource {
  cache: Cache;
  reader: ContentReader;
}

/** A file that differs. */
export interface FileDifference {
  /** Without a slash before it. */
  path: string;
  change: "added" | "removed" | "content" | "mode" | "type" | "link";
  /** Bytes in A and in B; null where it is not there or is no file. */
  aSize: number | null;
  bSize: number | null;
  /** Octal modes, types or targets of links, where these are what differs. */
  from?: string;
  to?: string;
}

/** Two records of one step, and the files that differ in the layers that the step made. */
export interface StepDifference {
  digest: string;
  a: RecordReference;
  b: RecordReference;
  aLayer: string;
  bLayer: string;
  /** The first ones by their paths. */
  files: FileDifference[];
  /** How many files differ. */
  total: number;
}

/** How much is compared. */
export interface DiffFileOptions {
  signal?: AbortSignal | undefined;
  /** Pairs of layers; the first ones in the order of B's records. */
  pairs?: number;
  /** Files of a pair that are listed. */
  files?: number;
  /** Bytes of layers, as they are stored, that are read in all. */
  bytes?: number;
}

const PAIRS = 20;
const FILES = 100;
const BYTES = 128 * 2 ** 20;

/**
 * Compares the files of paired steps.
 *
 * @returns The pairs whose layers could be compared; `skipped` counts those beyond the
 *   bounds, and those of which a layer is not there.
 * @throws {CacheportError} DIGEST_MISMATCH, ARCHIVE_INVALID, ... for damaged layers
 */
export async function diffFiles(
  a: DiffSource,
  b: DiffSource,
  difference: CacheDifference,
  options: DiffFileOptions = {},
): Promise<{ steps: StepDifference[]; skipped: number }> {
  const { pairs = PAIRS, files = FILES, signal } = options;
  let left = options.bytes ?? BYTES;
  let skipped = 0;
  const steps: StepDifference[] = [];
  const seen = new Set<string>();
  for (const pair of pairRecords(difference)) {
    const [own, other] = [topLayer(a.cache, pair.a), topLayer(b.cache, pair.b)];
    if (!own || !other || own.digest === other.digest) continue;
    const key = `${own.digest} ${other.digest}`;
    if (seen.has(key)) continue;
    seen.add(key);
    if (steps.length >= pairs || own.size + other.size > left) {
      skipped++;
      continue;
    }
    left -= own.size + other.size;
    const trees = await Promise.all([
      readOrNothing(a.reader, own, signal),
      readOrNothing(b.reader, other, signal),
    ]);
    const [before, after] = trees;
    if (!before || !after) {
      skipped++;
      continue;
    }
    const found = compareTrees(before, after);
    steps.push({
      digest: pair.digest,
      a: pair.a,
      b: pair.b,
      aLayer: own.digest,
      bLayer: other.digest,
      files: found.slice(0, files),
      total: found.length,
    });
  }
  return { steps, skipped };
}

interface Pair {
  digest: string;
  a: RecordReference;
  b: RecordReference;
}

/** Records of one step in both caches, in the order of B's records. */
function pairRecords({ records }: CacheDifference): Pair[] {
  const pairs = new Map<string, Pair>();
  const add = (a: RecordReference, b: RecordReference): void => {
    const key = `${a.index} ${b.index}`;
    if (!pairs.has(key)) pairs.set(key, { digest: b.digest, a, b });
  };
  for (const { index, digest, parting } of records.onlyB)
    if (parting) add(parting.other, { index, digest });
  for (const { index, digest, parting } of records.onlyA)
    if (parting) add({ index, digest }, parting.other);
  for (const { a, b } of records.results) add(a, b);
  return [...pairs.values()].toSorted((x, y) => x.b.index - y.b.index || x.a.index - y.a.index);
}

/** The layer that a record's step made: the top one of its newest result. */
function topLayer({ config, layers }: Cache, { index }: RecordReference): Descriptor | undefined {
  const record = config.records[index];
  const [newest] = (record ? resultsOf(record) : []).toSorted((x, y) =>
    compareTimes(parseCacheTime(y.createdAt), parseCacheTime(x.createdAt)),
  );
  const blob = config.layers[newest?.layers.at(-1) ?? -1]?.blob;
  return layers.find(({ digest }) => digest === blob);
}

/** A layer that is not there tells nothing. */
async function readOrNothing(
  reader: ContentReader,
  layer: Descriptor,
  signal: AbortSignal | undefined,
): Promise<MemoryTree | undefined> {
  try {
    return await readLayerTree(reader, layer, signal);
  } catch (error) {
    if (isCacheportError(error, "BLOB_MISSING", "COMPRESSION_INVALID")) return undefined;
    throw error;
  }
}

function compareTrees(a: MemoryTree, b: MemoryTree): FileDifference[] {
  const paths = [...new Set([...a.paths(), ...b.paths()])].toSorted(compareBytes);
  return paths.flatMap((path) => {
    const found = compareEntries(a.entry(path), b.entry(path));
    return found ? [{ path: path.slice(1), ...found }] : [];
  });
}

function compareEntries(
  a: TreeEntry | undefined,
  b: TreeEntry | undefined,
): Omit<FileDifference, "path"> | undefined {
  const sizes = { aSize: sizeOf(a), bSize: sizeOf(b) };
  if (!a || !b) return { change: a ? "removed" : "added", ...sizes };
  if (a.type !== b.type) return { change: "type", ...sizes, from: a.type, to: b.type };
  if (a.link !== b.link) return { change: "link", ...sizes, from: a.link, to: b.link };
  if (a.contentDigest() !== b.contentDigest()) return { change: "content", ...sizes };
  if (a.mode === b.mode) return undefined;
  return { change: "mode", ...sizes, from: a.mode.toString(8), to: b.mode.toString(8) };
}

function sizeOf(entry: TreeEntry | undefined): number | null {
  return entry?.type === "file" ? entry.size : null;
}
