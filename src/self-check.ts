/**
 * Finds out whether cacheport can do its work on a machine: in a container that has
 * nothing else in it, on a network file system, under a tight security profile. It
 * does on a small scale what the commands do, and looks at the outcome.
 */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, link, readFile, rename, statfs, writeFile } from "node:fs/promises";
import { rootCertificates } from "node:tls";
import { decompressStream } from "./blob-compression.ts";
import { compressStream } from "./blob-pack.ts";
import { digestOf } from "./digest.ts";
import { writeDurably } from "./layout-durable.ts";
import { CacheportError, interrupted, systemError } from "./errors.ts";
import { acquireLock, hasFlock } from "./layout-lock.ts";
import { RunFolder } from "./layout-work.ts";
import { join, resolve } from "./paths.ts";
import { convertSample } from "./self-check-sample.ts";
import { describeSystem } from "./self-check-system.ts";
import { formatBytes } from "./units.ts";
import { WorkerPool } from "./blob-threads.ts";

/**
 * How a check came out: `limited` means that cacheport works, but not as well as it
 * could.
 */
export type CheckStatus = "ok" | "limited" | "failed";

/** One thing that was looked at. */
export interface Check {
  name: string;
  status: CheckStatus;
  /** What was found, for people. */
  detail: string;
}

/** What a self-check found. */
export interface SelfCheckResult {
  /** Nothing failed. */
  ok: boolean;
  /** The folder that was tried out; null when none could be written to. */
  folder: string | null;
  checks: Check[];
}

/** What a check found when it did not fail: a detail, and whether that is a limit. */
type Finding = string | { limited: string };

/** Bytes of free space below which nothing can be done, and below which little can. */
const NEEDED_SPACE = 16 * 1024 * 1024;
const USUAL_SPACE = 1024 * 1024 * 1024;

/** Milliseconds for which a lock that nobody holds is waited for. */
const LOCK_TIMEOUT = 2000;

/** Bytes of a file that is large enough to be hashed by a thread. */
const THREAD_FILE = 2 * 1024 * 1024;

/**
 * Checks the machine. Nothing is left behind.
 *
 * @param folders Where to work: the first that can be written to is taken, and it
 *   counts as a limit when that is not the first of all.
 * @throws {CacheportError} INTERRUPTED; whatever else goes wrong is a failed check
 */
export async function selfCheck(
  folders: readonly string[],
  signal?: AbortSignal,
): Promise<SelfCheckResult> {
  const checks: Check[] = [];
  const check = async (name: string, run: () => Finding | Promise<Finding>): Promise<void> => {
    if (signal?.aborted) throw interrupted();
    checks.push(await attempt(name, run));
  };

  await check("system", describeSystem);
  await check("certificates", checkCertificates);
  await check("gzip", () => checkCompression("gzip"));
  await check("zstd", () => checkCompression("zstd"));
  const { run, in: place = null, ...folder } = await makeFolder(folders);
  checks.push(folder);
  if (run) {
    const { path } = run;
    try {
      await check("space", () => checkSpace(path));
      await check("rename", () => checkRename(path));
      await check("links", () => checkLinks(path));
      await check("locks", () => checkLocks(path));
      await check("threads", () => checkThreads(path));
      await check("conversion", () => convertSample(join(path, "cache")));
    } finally {
      await run.close();
    }
  }
  return {
    ok: checks.every(({ status }) => status !== "failed"),
    folder: place,
    checks,
  };
}

async function attempt(name: string, run: () => Finding | Promise<Finding>): Promise<Check> {
  try {
    const found = await run();
    return typeof found === "string"
      ? { name, status: "ok", detail: found }
      : { name, status: "limited", detail: found.limited };
  } catch (error) {
    return { name, status: "failed", detail: messageOf(error) };
  }
}

function messageOf(error: unknown): string {
  return error instanceof CacheportError
    ? error.message
    : systemError("Cannot do it", error).message;
}

/** Makes a folder for the files of the check in the first folder that takes one. */
async function makeFolder(
  folders: readonly string[],
): Promise<Check & { run?: RunFolder; in?: string }> {
  const name = "folder";
  const refused: string[] = [];
  for (const folder of folders) {
    const shown = JSON.stringify(resolve(folder));
    try {
      const run = await RunFolder.within(folder);
      if (refused.length === 0)
        return {
          name,
          status: "ok",
          detail: `${shown} can be written to`,
          run,
          in: resolve(folder),
        };
      const detail = `${refused.join("; ")}; ${shown} can be written to: set TMPDIR to such a folder`;
      return { name, status: "limited", detail, run, in: resolve(folder) };
    } catch (error) {
      // The system's own reason is enough.
      const cause = error instanceof CacheportError ? (error.cause ?? error) : error;
      refused.push(systemError(`Cannot write to ${shown}`, cause).message);
    }
  }
  return { name, status: "failed", detail: refused.join("; ") };
}

/** Registries are trusted by Mozilla's list, which is part of the program. */
function checkCertificates(): Finding {
  const { length } = rootCertificates;
  return length > 0
    ? `${length} certificate authorities are built in`
    : { limited: "none is built in: name a file with --ca-file" };
}

async function checkSpace(path: string): Promise<Finding> {
  const { bavail, bsize } = await statfs(path);
  const free = bavail * bsize;
  const text = `${formatBytes(free)} free`;
  if (free < NEEDED_SPACE)
    throw new CacheportError(
      "NO_SPACE",
      `Cannot work here: only ${text}, and ${formatBytes(NEEDED_SPACE)} is the least`,
    );
  return free < USUAL_SPACE ? { limited: `only ${text}: many caches are larger` } : text;
}

/** Whatever cacheport writes is brought to the disk and renamed into its place. */
async function checkRename(path: string): Promise<Finding> {
  const [from, to] = [join(path, "new"), join(path, "old")];
  await writeFile(to, "old");
  await writeDurably(from, new TextEncoder().encode("new"), 0o444);
  await rename(from, to);
  const content = await readFile(to, "utf8");
  if (content !== "new") throw wrong(`a replaced file reads as "${content}"`);
  return "files are replaced at once and whole";
}

/** Neither kind is needed; clones make copies within one file system free. */
async function checkLinks(path: string): Promise<Finding> {
  const source = join(path, "source");
  await writeFile(source, "content");
  const works = (made: Promise<void>): Promise<boolean> =>
    made.then(
      () => true,
      () => false,
    );
  const hard = await works(link(source, join(path, "hard")));
  const { COPYFILE_FICLONE_FORCE } = constants;
  const cloned = await works(copyFile(source, join(path, "clone"), COPYFILE_FICLONE_FORCE));
  return `${hard ? "hard links" : "no hard links"}, ${cloned ? "clones" : "no clones: a copy of a blob takes its space"}`;
}

async function checkLocks(path: string): Promise<Finding> {
  const file = join(path, "file-to-lock");
  const first = await acquireLock(file, { timeout: LOCK_TIMEOUT });
  try {
    const second = await acquireLock(file, { timeout: 0 }).catch(() => undefined);
    if (second) {
      await second.release();
      throw wrong("a lock that is held was given to a second holder");
    }
  } finally {
    await first.release();
  }
  const next = await acquireLock(file, { timeout: LOCK_TIMEOUT });
  await next.release();
  return hasFlock()
    ? "flock keeps a second holder out"
    : {
        limited: "there is no flock, only lock files: do not write to a layout while BuildKit does",
      };
}

async function checkThreads(path: string): Promise<Finding> {
  const file = join(path, "bytes");
  const bytes = randomBytes(THREAD_FILE);
  await writeFile(file, bytes);
  const pool = new WorkerPool(1);
  try {
    const source = { path: file, offset: 0, size: bytes.length };
    const job = { source, algorithm: "sha256", seal: false } as const;
    const { digest } = await pool.run(job);
    if (digest !== digestOf(bytes)) throw wrong("threads give different digests");
  } finally {
    pool.close();
  }
  return "threads hash files";
}

async function checkCompression(kind: "gzip" | "zstd"): Promise<Finding> {
  const text = "cacheport ".repeat(1000);
  const packed = compressStream(new Blob([text]).stream(), kind, 1);
  const unpacked = decompressStream(packed, kind, "the sample");
  const result = await new Response(unpacked).text();
  if (result !== text) throw wrong("what was packed unpacks to something else");
  return "packs and unpacks";
}

function wrong(reason: string): CacheportError {
  return new CacheportError("IO_FAILED", `Cannot rely on this machine: ${reason}`);
}
