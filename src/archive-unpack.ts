/**
 * Takes the members of a tar stream apart into files of a folder: no name from the
 * archive becomes a path.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { tarMembers, truncatedMember } from "./archive-members.ts";
import type { TarMember } from "./archive-members.ts";
import { addMember } from "./archive-scan.ts";
import { systemCode, systemError } from "./errors.ts";
import type { RunFolder } from "./layout-work.ts";

/** What was in a stream. */
export interface UnpackedTar {
  /** By path; of several members with one path the last. */
  readonly members: ReadonlyMap<string, TarMember>;
  /** The file of each content that was kept, by the byte at which it starts in the tar. */
  readonly files: ReadonlyMap<number, string>;
  /** False when the stream ended without the blocks that end an archive. */
  readonly isComplete: boolean;
}

/**
 * Bytes behind the end of an archive that are read so that whoever writes them is not
 * cut short: tar(1) pads to 10 KiB. What is longer is a bomb of zeros.
 */
const MAX_PADDING = 8 * 1024 * 1024;

/**
 * Unpacks the plain files of a tar.
 *
 * @param source The tar, not compressed.
 * @param keeps Tells whether a file's content is wanted, when it is met.
 * @param archive The archive as the user wrote it, for messages.
 * @throws {CacheportError} ARCHIVE_INVALID, NO_SPACE, and the errors of the source
 */
export async function unpackTar(
  source: AsyncIterator<Uint8Array, void>,
  folder: RunFolder,
  keeps: (member: TarMember) => boolean,
  archive: string,
): Promise<UnpackedTar> {
  const tar = new TarStream(source);
  const members = new Map<string, TarMember>();
  const files = new Map<number, string>();
  const steps = tarMembers(archive);
  let answer: Uint8Array = new Uint8Array(0);
  for (;;) {
    const { done, value } = steps.next(answer);
    if (done) {
      if (value.isComplete) await tar.skip(value.end + MAX_PADDING);
      return { members, files, isComplete: value.isComplete };
    }
    if (value.kind === "read") {
      answer = await tar.peek(value.offset, value.length);
      continue;
    }
    const { member } = value;
    addMember(members, member);
    const end = member.offset + member.size;
    if (member.type === "file" && keeps(member)) {
      const path = folder.temporaryPath();
      await saveMember(tar, member, path);
      files.set(member.offset, path);
    }
    await tar.skip(end);
    if (tar.position < end) throw truncatedMember(archive, member, tar.position);
  }
}

async function saveMember(tar: TarStream, member: TarMember, path: string): Promise<void> {
  const fd = openSync(path, "wx", 0o444);
  try {
    await tar.skip(member.offset);
    await tar.take(member.offset + member.size, (chunk) => {
      for (let done = 0; done < chunk.length;) done += writeSync(fd, chunk, done);
    });
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
    throw systemError(`Cannot unpack member "${member.path}"`, error);
  } finally {
    closeSync(fd);
  }
}

/** A tar that comes in pieces and is read from its start to its end. */
class TarStream {
  readonly #source: AsyncIterator<Uint8Array, void>;
  /** What was received and not taken yet. */
  #chunk: Uint8Array = new Uint8Array(0);
  /** Bytes that went before. */
  #position = 0;

  constructor(source: AsyncIterator<Uint8Array, void>) {
    this.#source = source;
  }

  /** How far the tar was read. */
  get position(): number {
    return this.#position;
  }

  /** The bytes from a place on, which stay; fewer than asked for at the end. */
  async peek(offset: number, length: number): Promise<Uint8Array> {
    await this.skip(offset);
    if (this.#position < offset) return new Uint8Array(0);
    if (this.#chunk.length < length) await this.#gather(length);
    return this.#chunk.subarray(0, length);
  }

  /** Passes over everything up to a place, or to the end of the tar. */
  async skip(end: number): Promise<void> {
    await this.take(end, () => {});
  }

  /** Takes everything up to a place, or to the end of the tar, in pieces that are as they come. */
  async take(end: number, use: (chunk: Uint8Array) => void): Promise<void> {
    while (this.#position < end) {
      if (this.#chunk.length === 0) {
        const next = await this.#source.next();
        if (next.done) return;
        this.#chunk = next.value;
      }
      const part = this.#chunk.subarray(0, end - this.#position);
      use(part);
      this.#position += part.length;
      this.#chunk = this.#chunk.subarray(part.length);
    }
  }

  /** Waits until some bytes are there together. */
  async #gather(length: number): Promise<void> {
    const parts = [this.#chunk];
    let size = this.#chunk.length;
    while (size < length) {
      const next = await this.#source.next();
      if (next.done) break;
      parts.push(next.value);
      size += next.value.length;
    }
    this.#chunk = Buffer.concat(parts, size);
  }
}
