/**
 * Blobs that were moved aside and may have to come back: `.cacheport/trash-<random>`
 * within the layout, so that moving them is a rename. Nothing is lost while a blob is
 * in there; a run that dies leaves its trash for the next one to put back.
 */
import { lstat, mkdir, readdir, rename, rm, unlink } from "node:fs/promises";
import { blobPath, digestAlgorithm, digestHex, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { systemCode, systemError } from "./errors.ts";
import { join } from "./paths.ts";

const PARENT = ".cacheport";
const PREFIX = "trash-";

/** The blobs of one layout that one run has moved aside. */
export class Trash {
  readonly #layout: string;
  readonly #path: string;
  readonly #digests = new Set<Digest>();
  readonly #folders = new Set<string>();

  /** @param layout Path of the layout; `.cacheport` exists in it. */
  constructor(layout: string) {
    this.#layout = layout;
    this.#path = join(layout, PARENT, `${PREFIX}${crypto.randomUUID()}`);
  }

  /** How many blobs are in it. */
  get size(): number {
    return this.#digests.size;
  }

  /** The digests of the blobs that are in it. */
  get digests(): Digest[] {
    return [...this.#digests];
  }

  /**
   * Moves a blob aside, and back at once when it was written or touched too lately:
   * only now can nobody touch it any more.
   *
   * @param before Milliseconds since 1970; what was modified later stays.
   * @returns Whether the blob is in the trash now.
   * @throws {CacheportError} PERMISSION_DENIED, IO_FAILED
   */
  async moveAside(digest: Digest, before: number): Promise<boolean> {
    try {
      await this.#makeFolder(digestAlgorithm(digest));
      await rename(join(this.#layout, blobPath(digest)), this.#held(digest));
      this.#digests.add(digest);
      const { mtimeMs } = await lstat(this.#held(digest));
      if (mtimeMs <= before) return true;
      await this.putBack(digest);
      return false;
    } catch (error) {
      if (systemCode(error) === "ENOENT" && !this.#digests.has(digest)) return false;
      throw systemError(`Cannot remove blob "${digest}"`, error);
    }
  }

  /** Puts a blob back that is in the trash; any other is left alone. */
  async putBack(digest: Digest): Promise<void> {
    if (!this.#digests.has(digest)) return;
    await putInPlace(this.#layout, this.#held(digest), digest);
    this.#digests.delete(digest);
  }

  /** Puts everything back. */
  async putAllBack(): Promise<void> {
    for (const digest of this.digests) await this.putBack(digest);
  }

  /** Removes a blob for good. */
  async remove(digest: Digest): Promise<void> {
    try {
      await unlink(this.#held(digest));
      this.#digests.delete(digest);
    } catch (error) {
      throw systemError(`Cannot remove blob "${digest}"`, error);
    }
  }

  /** Removes the trash folder, which must hold no blob any more. */
  async close(): Promise<void> {
    if (this.#folders.size > 0 && this.size === 0)
      await rm(this.#path, { recursive: true, force: true });
  }

  #held(digest: Digest): string {
    return join(this.#path, digestAlgorithm(digest), digestHex(digest));
  }

  async #makeFolder(algorithm: string): Promise<void> {
    if (this.#folders.has(algorithm)) return;
    await mkdir(join(this.#path, algorithm), { recursive: true, mode: 0o700 });
    this.#folders.add(algorithm);
  }
}

/**
 * Puts back what runs that died have moved aside. Only whoever holds the lock for
 * collecting garbage in the layout may call it.
 *
 * @throws {CacheportError} PERMISSION_DENIED, IO_FAILED
 */
export async function recoverTrash(layout: string): Promise<void> {
  const parent = join(layout, PARENT);
  try {
    for (const name of await readdir(parent)) {
      if (!name.startsWith(PREFIX)) continue;
      await emptyInto(layout, join(parent, name));
      await rm(join(parent, name), { recursive: true, force: true });
    }
  } catch (error) {
    throw systemError(`Cannot put back the blobs in "${parent}"`, error);
  }
}

async function emptyInto(layout: string, trash: string): Promise<void> {
  for (const algorithm of await readdir(trash)) {
    for (const hex of await readdir(join(trash, algorithm))) {
      const digest = `${algorithm}:${hex}`;
      if (isDigest(digest)) await putInPlace(layout, join(trash, algorithm, hex), digest);
    }
  }
}

/** Moves a blob back, unless somebody has written it again meanwhile. */
async function putInPlace(layout: string, held: string, digest: Digest): Promise<void> {
  const path = join(layout, blobPath(digest));
  try {
    const isThere = await lstat(path).then(
      () => true,
      (error: unknown) => {
        if (systemCode(error) === "ENOENT") return false;
        throw error;
      },
    );
    await (isThere ? unlink(held) : rename(held, path));
  } catch (error) {
    throw systemError(`Cannot put back blob "${digest}"`, error);
  }
}
