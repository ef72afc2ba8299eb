/**
 * Finds the members of an uncompressed tar file without reading their contents: a
 * pass over the headers that skips from one to the next. What a member is, is told by
 * archive-members.ts.
 */
import { fstatSync, readSync } from "node:fs";
import { tarMembers, truncatedMember } from "./archive-members.ts";
import type { TarEnd, TarMember } from "./archive-members.ts";

/** What a tar file holds. */
export interface TarScan extends TarEnd {
  /** By path; of several members with one path the last. */
  readonly members: ReadonlyMap<string, TarMember>;
}

/** Bytes that are read at once; headers of small members share a window. */
const WINDOW = 64 * 1024;

/**
 * Scans the headers of an uncompressed tar file.
 *
 * @param fd Open for reading.
 * @param archive The file as the user wrote it, for messages.
 * @throws {CacheportError} ARCHIVE_INVALID for a damaged or truncated archive and for
 *   a member outside of its root
 */
export function scanTar(fd: number, archive: string): TarScan {
  const file = new WindowedFile(fd);
  const members = new Map<string, TarMember>();
  const steps = tarMembers(archive);
  let answer: Uint8Array = new Uint8Array(0);
  for (;;) {
    const { done, value } = steps.next(answer);
    if (done) return { members, ...value };
    if (value.kind === "read") {
      if (value.again) file.refresh();
      answer = file.read(value.offset, value.length);
    } else {
      const { member } = value;
      const end = member.offset + member.size;
      // Another process may have added members since the scan began.
      if (end > file.size) file.refresh();
      if (end > file.size) throw truncatedMember(archive, member, file.size);
      addMember(members, member);
    }
  }
}

/** Notes a member down. A hard link to a file that went before it is that file, as tar(1) unpacks it. */
export function addMember(members: Map<string, TarMember>, member: TarMember): void {
  const { link, path } = member;
  const target = link?.isHard ? members.get(link.target.replace(/^(?:\.\/)+/, "")) : undefined;
  members.set(path, target?.type === "file" ? { ...target, path } : member);
}

/** Reads a file in windows, so that neighbouring headers cost one system call. */
class WindowedFile {
  readonly #fd: number;
  readonly #window = new Uint8Array(WINDOW);
  #start = 0;
  #length = 0;
  #size: number;

  constructor(fd: number) {
    this.#fd = fd;
    this.#size = fstatSync(fd).size;
  }

  /** Bytes of the file when it was last looked at. */
  get size(): number {
    return this.#size;
  }

  /** Forgets what was read, and looks at the size again. */
  refresh(): void {
    this.#length = 0;
    this.#size = fstatSync(this.#fd).size;
  }

  /** Up to `length` bytes, fewer at the end of the file; valid until the next call. */
  read(offset: number, length: number): Uint8Array {
    if (length > WINDOW) {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, this.#fill(bytes, offset));
    }
    const isInside = offset >= this.#start && offset + length <= this.#start + this.#length;
    if (!isInside) {
      this.#length = this.#fill(this.#window, offset);
      this.#start = offset;
    }
    const from = offset - this.#start;
    return this.#window.subarray(from, Math.min(from + length, this.#length));
  }

  #fill(target: Uint8Array, offset: number): number {
    let filled = 0;
    while (filled < target.length) {
      const count = readSync(this.#fd, target, filled, target.length - filled, offset + filled);
      if (count === 0) break;
      filled += count;
    }
    return filled;
  }
}
