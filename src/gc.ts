/**
 * Removes what no name of a layout folder reaches, beside programs that write to it.
 *
 * A running export is not to be seen: it writes blobs first and names them at its
 * end, and a blob that it finds in the layout it does not write again. What keeps it
 * whole:
 *
 * 1. Blobs younger than the grace period stay.
 * 2. Blobs are moved aside, not removed. Whoever looks for one from then on finds it
 *    absent and writes it.
 * 3. Then the layout is watched until nothing in it has changed for two seconds (or
 *    the grace period, if that is shorter). Whatever a name reaches by then is put
 *    back. When the layout does not come to rest, everything is put back.
 * 4. Only then the blobs are removed.
 *
 * What this cannot see is an export that finds an old unreferenced blob, then writes
 * nothing for longer than the layout was watched, and names the blob at last. BuildKit
 * gives no sign in between; a cacheport that is surprised like this fails and names
 * nothing.
 *
 * The lock of index.json is not taken: BuildKit tries it once and its export fails
 * when it is held, and no lock is held between the two ends of an export anyway.
 */
import { existsSync } from "node:fs";
import { lstat } from "node:fs/promises";
import type { ContentReader } from "./content-store.ts";
import { digestOf } from "./digest.ts";
import type { Digest } from "./digest.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { acquireLock } from "./layout-lock.ts";
import { readIndexFile } from "./layout-index-file.ts";
import { HeldFolder } from "./layout-folder.ts";
import { LayoutDirectory } from "./layout-directory.ts";
import { listLayoutFiles, removeLeftover } from "./layout-files.ts";
import type { BlobFile, LayoutFiles, Leftover } from "./layout-files.ts";
import { encodeLayoutIndex } from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { basename, join } from "./paths.ts";
import { findReachable, findReferrers } from "./reachable.ts";
import type { Referrers } from "./reachable.ts";
import {
  GC_LOCK,
  isInUse,
  isTrashName,
  removeDeadRunsNear,
  RunFolder,
  WORK_FOLDER,
} from "./layout-work.ts";
import { recoverTrash, Trash } from "./layout-trash.ts";

/** Milliseconds for which blobs stay after they were written, unless told otherwise. */
export const DEFAULT_GRACE = 3_600_000;

/** Milliseconds without any change after which no export is taken to be running. */
const REST = 2000;

/** Milliseconds between two looks at the layout. */
const LOOK_AFTER = 20;

/** How to collect garbage. */
export interface GarbageOptions {
  limits: DocumentLimits;
  /** Milliseconds since the last change for which nothing is removed; 0 promises that nobody writes. */
  grace: number;
  /** Say what would be removed and remove nothing. */
  dryRun: boolean;
  /** Documents that are read at once. */
  jobs: number;
  /** Milliseconds to wait for another gc to end, and for the layout to come to rest. */
  lockTimeout: number;
  signal?: AbortSignal | undefined;
  /** Milliseconds since 1970; the present unless told otherwise. */
  now?: number | undefined;
  /** The folder as the user wrote it, for messages. */
  location?: string | undefined;
}

/** What was removed, or would be. */
export interface GarbageReport {
  /** In the order of their digests. */
  removed: { digest: Digest; size: number }[];
  /** Bytes of the removed blobs. */
  removedBytes: number;
  /** Blobs that stay. */
  kept: number;
  dryRun: boolean;
  /** What interrupted writers had left: paths relative to the layout, with forward slashes. */
  leftovers: { path: string; size: number }[];
  /** Blobs that no name reaches and that stay, since they are too young. */
  young: number;
  /** Blobs that stay since the layout did not come to rest. */
  postponed: number;
  /** What is not what a layout has in its place, and was left alone: paths as above. */
  leftAlone: string[];
}

/**
 * Removes every blob that no entry of index.json reaches, and what interrupted
 * writers left behind.
 *
 * @param folder Path of the layout.
 * @throws {CacheportError} GC_REFUSED, with nothing removed, when something reachable
 *   cannot be read or followed; LOCK_TIMEOUT, PERMISSION_DENIED, INTERRUPTED, ...
 */
export async function collectGarbage(
  folder: string,
  options: GarbageOptions,
): Promise<GarbageReport> {
  const store = await LayoutDirectory.open(folder, options);
  try {
    const files = await listLayoutFiles(folder);
    refuseLinks(folder, files, options);
    if (!options.dryRun) await removeDeadRunsNear(folder);
    const isIdle = !existsSync(join(folder, WORK_FOLDER));
    if (options.dryRun || isIdle) {
      const plan = await makePlan(folder, store, files, options);
      if (options.dryRun || plan.garbage.length + plan.leftovers.length === 0)
        return report(plan, plan.garbage, plan.leftovers, options);
    }
    return await withRun(folder, options, async () => {
      const dead = files.leftovers.filter(
        ({ path, isOwn }) => isOwn && !existsSync(join(folder, path)),
      );
      const left = await recoverTrash(folder);
      const result = await collect(folder, store, dead, options);
      return { ...result, leftAlone: [...new Set([...result.leftAlone, ...left])] };
    });
  } finally {
    await store.close();
  }
}

/** What is in the layout and what of it can go. */
interface Plan {
  files: LayoutFiles;
  garbage: BlobFile[];
  leftovers: Leftover[];
  referrers: Referrers;
  /** The state of index.json that the plan was made for. */
  index: Digest;
  young: number;
}

async function makePlan(
  folder: string,
  reader: ContentReader,
  files: LayoutFiles,
  options: GarbageOptions,
): Promise<Plan> {
  const index = await readIndexFile(folder, options.location);
  const named = await reach(reader, index, new Map(), options);
  const unnamed = files.blobs.filter(({ digest }) => !named.has(digest));
  const referrers = await findReferrers(reader, unnamed, options);
  const reached = referrers.size === 0 ? named : await reach(reader, index, referrers, options);
  const before = (options.now ?? Date.now()) - options.grace;
  const unreached = unnamed.filter(({ digest }) => !reached.has(digest));
  const garbage = unreached.filter(({ modified }) => modified <= before);
  return {
    files,
    garbage,
    leftovers: await deadLeftovers(folder, files.leftovers, before),
    referrers,
    index: fingerprint(index),
    young: unreached.length - garbage.length,
  };
}

/** What nobody uses any more. Trash is no leftover: it is put back. */
async function deadLeftovers(
  folder: string,
  leftovers: readonly Leftover[],
  before: number,
): Promise<Leftover[]> {
  const dead: Leftover[] = [];
  for (const leftover of leftovers) {
    const { path, modified, isOwn } = leftover;
    if (modified > before || isTrashName(basename(path)) || basename(path) === GC_LOCK) continue;
    if (!isOwn || !(await isInUse(join(folder, path)))) dead.push(leftover);
  }
  return dead;
}

/** A blob folder that is a link may be shared with other layouts, whose names are not known here. */
function refuseLinks(
  folder: string,
  { strays }: LayoutFiles,
  { location = folder }: GarbageOptions,
): void {
  const shared = (path: string): boolean => /^(?:blobs(?:\/[^/]*)?|\.cacheport)$/.test(path);
  const link = strays.find(({ path, isLink }) => shared(path) && (isLink || !path.includes("/")));
  if (!link) return;
  throw new CacheportError(
    "GC_REFUSED",
    link.isLink
      ? `Cannot collect garbage in "${location}": "${link.path}" is a symbolic link, and other layouts may use what is behind it`
      : `Cannot collect garbage in "${location}": "${link.path}" is a file, and a layout has a folder there`,
    { hint: "Nothing was removed" },
  );
}

function fingerprint(index: LayoutIndex): Digest {
  return digestOf(encodeLayoutIndex(index));
}

function reach(
  reader: ContentReader,
  index: LayoutIndex,
  referrers: Referrers,
  { limits, jobs, signal }: GarbageOptions,
): Promise<Set<Digest>> {
  return findReachable(reader, index.entries, referrers, {
    limits,
    jobs,
    signal,
  });
}

/** Runs something as the only gc of a layout, with what dead runs left put in order. */
async function withRun<T>(
  folder: string,
  { lockTimeout, signal }: GarbageOptions,
  run: () => Promise<T>,
): Promise<T> {
  // Removes the folders of dead runs, and makes .cacheport.
  const own = await RunFolder.open(folder);
  try {
    const path = join(folder, WORK_FOLDER, GC_LOCK);
    const lock = await acquireLock(path, { timeout: lockTimeout, signal });
    try {
      return await run();
    } finally {
      await lock.release();
    }
  } finally {
    await own.close();
  }
}

async function collect(
  folder: string,
  store: ContentReader,
  dead: readonly Leftover[],
  options: GarbageOptions,
): Promise<GarbageReport> {
  const files = await listLayoutFiles(folder);
  const plan = await makePlan(folder, store, files, options);
  const trash = new Trash(folder);
  try {
    const before = (options.now ?? Date.now()) - options.grace;
    for (const { digest } of plan.garbage) {
      options.signal?.throwIfAborted();
      await trash.moveAside(digest, before);
    }
    const moved = trash.size;
    const atRest = await watch(folder, store, trash, plan, options);
    const held = new Set(atRest ? trash.digests : []);
    const removed = plan.garbage.filter(({ digest }) => held.has(digest));
    for (const { digest } of removed) await trash.remove(digest);
    for (const { path } of plan.leftovers) await removeLeftover(folder, path);
    const leftovers = [...dead, ...plan.leftovers];
    const result = report(plan, removed, leftovers, options);
    return atRest ? result : { ...result, postponed: moved };
  } finally {
    await trash.putAllBack();
    await trash.close();
  }
}

/**
 * Watches a layout until it has come to rest, and puts back from the trash what its
 * names reach meanwhile.
 *
 * @returns Whether it came to rest in time.
 */
async function watch(
  folder: string,
  store: ContentReader,
  trash: Trash,
  plan: Plan,
  options: GarbageOptions,
): Promise<boolean> {
  const rest = Math.min(options.grace, REST);
  const deadline = performance.now() + Math.max(options.lockTimeout, rest);
  const reader = readerWith(store, trash);
  let marked = plan.index;
  let state = await layoutState(folder);
  let changed = performance.now();
  while (trash.size > 0) {
    options.signal?.throwIfAborted();
    const index = await readIndexFile(folder, options.location);
    if (fingerprint(index) !== marked) {
      const reached = await reach(reader, index, plan.referrers, options);
      for (const digest of reached) await trash.putBack(digest);
      marked = fingerprint(index);
      state = await layoutState(folder);
      changed = performance.now();
      continue;
    }
    const now = performance.now();
    if (now - changed >= rest) return true;
    if (now >= deadline) return false;
    await Bun.sleep(Math.min(LOOK_AFTER, rest));
    const next = await layoutState(folder);
    if (next !== state) changed = performance.now();
    state = next;
  }
  return true;
}

/** Reads a layout of which a part is in the trash: a document that is asked for comes back. */
function readerWith(store: ContentReader, trash: Trash): ContentReader {
  return {
    location: store.location,
    async stat(descriptor) {
      await trash.putBack(descriptor.digest);
      return store.stat(descriptor);
    },
    async read(descriptor, limit) {
      await trash.putBack(descriptor.digest);
      return store.read(descriptor, limit);
    },
    async open(descriptor, signal) {
      await trash.putBack(descriptor.digest);
      return store.open(descriptor, signal);
    },
    locate: (descriptor) => store.locate(descriptor),
  };
}

/** A text that changes whenever a program writes to the layout. */
async function layoutState(folder: string): Promise<string> {
  const root = HeldFolder.openRoot(folder);
  try {
    const states = [
      // The folder itself: BuildKit's store makes a short-lived file in it when it opens it.
      await stateOf(root.entry(".")),
      await stateOf(root.entry("index.json")),
      ...(await below(root, "blobs", 1)),
      ...(await below(root, "ingest", 2)),
      ...(await below(root, WORK_FOLDER, 2)),
    ];
    return states.join("\n");
  } finally {
    root.close();
  }
}

async function stateOf(path: string): Promise<string> {
  const stats = await lstat(path).catch(() => undefined);
  return stats ? `${stats.ino} ${stats.size} ${stats.mtimeMs}` : "";
}

/** The states of a folder and of what is in it, down to some depth; no link is followed. */
async function below(parent: HeldFolder, name: string, depth: number): Promise<string[]> {
  const states = [await stateOf(parent.entry(name))];
  if (depth === 0) return states;
  let folder: HeldFolder;
  try {
    folder = parent.folder(name);
  } catch {
    return states;
  }
  try {
    for (const entry of await folder.list())
      states.push(...(await below(folder, entry.name, depth - 1)));
  } catch {
    // It went away meanwhile, which the next look tells from this one.
  } finally {
    folder.close();
  }
  return states;
}

function report(
  { files, young }: Plan,
  removed: readonly BlobFile[],
  leftovers: readonly Leftover[],
  { dryRun }: GarbageOptions,
): GarbageReport {
  return {
    removed: removed.map(({ digest, size }) => ({ digest, size })),
    removedBytes: removed.reduce((sum, { size }) => sum + size, 0),
    kept: files.blobs.length - removed.length,
    dryRun,
    leftovers: leftovers.map(({ path, size }) => ({ path, size })),
    young,
    postponed: 0,
    leftAlone: files.strays
      .filter(({ path }) => !path.startsWith("blobs/"))
      .map(({ path }) => path),
  };
}
