/**
 * The contents of a tar's members, wherever they lie, and the tar file that is read in
 * place. A file is read through the handle that was opened first, by threads too: should
 * the archive be written anew meanwhile, the old one is read to its end.
 */
import { fstatSync, statSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { platform } from "node:process";
import { openArchiveFile } from "./archive-format.ts";
import { archiveInvalid } from "./archive-header.ts";
import type { TarMember } from "./archive-members.ts";
import { scanTar } from "./archive-scan.ts";
import type { TarScan } from "./archive-scan.ts";
import type { BlobLocation } from "./content-store.ts";
import { systemError } from "./errors.ts";
import { resolve } from "./paths.ts";

/** Bytes that a stream reads at once. */
const PIECE = 1024 * 1024;

/** A tar whose members can be read. */
export interface TarContent {
  /** By path; of several members with one path the last. */
  readonly members: ReadonlyMap<string, TarMember>;
  /** False when the zero blocks that end an archive are not there. */
  readonly isComplete: boolean;
  /** Reads a plain file whole. */
  read(member: TarMember): Promise<Uint8Array>;
  /** The bytes of a plain file. */
  stream(member: TarMember, signal?: AbortSignal): ReadableStream<Uint8Array>;
  /** Where a plain file lies on the disk; undefined when only this object can read it. */
  locate(member: TarMember): BlobLocation | undefined;
  close(): Promise<void>;
}

/** A tar file that is read in place. */
export class TarFile implements TarContent {
  readonly scan: TarScan;
  /** Absolute path of the file when it was opened. */
  readonly path: string;
  readonly #file: FileHandle;
  readonly #location: string;
  /** A path that leads to the open file, whatever has become of its own. */
  readonly #heldPath: string | undefined;

  private constructor(file: FileHandle, path: string, location: string, scan: TarScan) {
    this.#file = file;
    this.#location = location;
    this.#heldPath = heldPath(file.fd, path);
    this.path = path;
    this.scan = scan;
  }

  /**
   * Opens an uncompressed tar file and finds its members.
   *
   * @throws {CacheportError} LOCATION_NOT_FOUND, ARCHIVE_INVALID, PERMISSION_DENIED, IO_FAILED
   */
  static async open(path: string, location: string): Promise<TarFile> {
    const file = await openArchiveFile(path, location);
    try {
      return new TarFile(file, resolve(path), location, scanTar(file.fd, location));
    } catch (error) {
      await file.close();
      throw systemError(`Cannot read archive "${location}"`, error);
    }
  }

  get members(): ReadonlyMap<string, TarMember> {
    return this.scan.members;
  }

  get isComplete(): boolean {
    return this.scan.isComplete;
  }

  async read({ offset, size }: TarMember): Promise<Uint8Array> {
    const bytes = new Uint8Array(size);
    await this.#fill(bytes, offset);
    return bytes;
  }

  stream({ offset, size }: TarMember, signal?: AbortSignal): ReadableStream<Uint8Array> {
    let position = 0;
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            signal?.throwIfAborted();
            const piece = new Uint8Array(Math.min(PIECE, size - position));
            await this.#fill(piece, offset + position);
            position += piece.length;
            if (piece.length > 0) controller.enqueue(piece);
            if (position === size) controller.close();
          } catch (error) {
            controller.error(systemError(`Cannot read archive "${this.#location}"`, error));
          }
        },
      },
      { highWaterMark: 0 },
    );
  }

  locate({ offset, size }: TarMember): BlobLocation | undefined {
    const path = this.#heldPath;
    return path === undefined ? undefined : { path, offset, size, disposable: false };
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Fills a buffer from a place in the file. */
  async #fill(target: Uint8Array, offset: number): Promise<void> {
    let filled = 0;
    while (filled < target.length) {
      const { bytesRead } = await this.#file.read(
        target,
        filled,
        target.length - filled,
        offset + filled,
      );
      if (bytesRead === 0)
        throw archiveInvalid(this.#location, "it became shorter while it was read");
      filled += bytesRead;
    }
  }
}

/** Where systems show the open files of a process as files: Linux, macOS and the BSDs. */
const OPEN_FILES = ["/proc/self/fd", "/dev/fd"];

/**
 * A path by which threads of this process open the very file that it holds open. Windows
 * has none and needs none: there a file that is open is not replaced.
 */
function heldPath(fd: number, path: string): string | undefined {
  if (platform === "win32") return path;
  const { dev, ino } = fstatSync(fd);
  return OPEN_FILES.map((folder) => `${folder}/${fd}`).find((held) => {
    const found = statSync(held, { throwIfNoEntry: false });
    return found?.dev === dev && found.ino === ino;
  });
}
