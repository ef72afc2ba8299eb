/**
 * Takes a layout out of a tar stream: blobs go into files that are named after
 * their digest alone, index.json and oci-layout beside them, everything else is
 * passed over. No name from the archive becomes a path.
 */
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { extract } from "tar-stream";
import type { Extract, Header } from "tar-stream";
import type { Digest } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, systemCode, systemError } from "./errors.ts";
import { blobDigest } from "./archive-reader.ts";
import { dirname, join } from "./paths.ts";
import { archiveInvalid, TAR_BLOCK, TAR_END, tarPadding } from "./archive-header.ts";
import { checkMemberPath, MAX_TAR_MEMBERS, noTar } from "./archive-scan.ts";

/** What was in a stream. */
export interface UnpackedLayout {
  /** The paths of all members. */
  readonly paths: ReadonlySet<string>;
  /** The blobs in the folder, with their sizes in bytes. */
  readonly blobs: ReadonlyMap<Digest, number>;
  /** False when the stream ended without the blocks that end an archive. */
  readonly isComplete: boolean;
}

/** How to unpack. */
export interface UnpackOptions {
  /** The archive as the user wrote it, for messages. */
  location: string;
  limits: DocumentLimits;
}

/** What the parser is ended with. */
const STOPPED = new Error("stopped");

/** A member as tar-stream gives it; `offset` is where its header begins. */
type Entry = Extract extends AsyncIterable<infer E> ? E : never;

const DOCUMENTS = new Set(["index.json", "oci-layout"]);

/** Bytes that are given to the parser at once. */
const PIECE = 1024 * 1024;

/**
 * Bytes after a member within which the next one must have begun; extended headers
 * have 4 MiB at most. What is longer is padding, or a bomb of zeros.
 */
const MAX_GAP = 8 * 1024 * 1024;

/**
 * Programs of the seventies wrote no format mark; the checksum of the header counts
 * all the same. The option is not in tar-stream's types.
 */
const PARSER_OPTIONS = { highWaterMark: PIECE, allowUnknownFormat: true };

/**
 * Unpacks the blobs of a layout into a folder as `blobs/<algorithm>/<hex>`, NOT
 * checked against their digests.
 *
 * @param source The tar, not compressed.
 * @throws {CacheportError} ARCHIVE_INVALID, DOCUMENT_TOO_LARGE, NO_SPACE, INTERRUPTED,
 *   and the errors of the source
 */
export async function unpackLayout(
  source: AsyncIterable<Uint8Array>,
  folder: string,
  options: UnpackOptions,
): Promise<UnpackedLayout> {
  return new Unpacking(source, folder, options).run();
}

class Unpacking {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #folder: string;
  readonly #options: UnpackOptions;
  readonly #parser: Extract = extract(PARSER_OPTIONS);
  readonly #paths = new Set<string>();
  readonly #blobs = new Map<Digest, number>();
  readonly #folders = new Set<string>();
  /** Bytes that the parser was given. */
  #fed = 0;
  /** Where the last member and its padding end. */
  #end = 0;
  #count = 0;

  constructor(source: AsyncIterable<Uint8Array>, folder: string, options: UnpackOptions) {
    this.#source = source;
    this.#folder = folder;
    this.#options = options;
  }

  async run(): Promise<UnpackedLayout> {
    const failed: { error?: unknown } = {};
    // Not waited for at the end: when the parser has seen enough, the source may
    // have nothing to give for long. Whoever opened it closes it.
    void this.#feed().catch((error: unknown) => {
      failed.error ??= error;
      this.#stop();
    });
    try {
      for await (const entry of this.#parser) {
        if (this.#isBehindEnd(entry)) break;
        await this.#take(entry);
      }
    } catch (error) {
      if (error !== STOPPED) failed.error ??= this.#parserError(error);
    }
    this.#stop();
    if ("error" in failed) throw failed.error;
    return {
      paths: this.#paths,
      blobs: this.#blobs,
      isComplete: this.#fed - this.#end >= TAR_END.length,
    };
  }

  /** Gives the source to the parser, no faster than it takes it. */
  async #feed(): Promise<void> {
    const parser = this.#parser;
    for await (const chunk of this.#source) {
      for (let at = 0; at < chunk.length; at += PIECE) {
        const piece = chunk.subarray(at, at + PIECE);
        this.#fed += piece.length;
        const isTaken = parser.write(piece);
        if (!isTaken && !parser.destroyed) await drained(parser);
        if (parser.destroyed) return;
        if (this.#fed - this.#end > MAX_GAP) {
          this.#stop();
          return;
        }
      }
    }
    parser.end(null);
  }

  /** Ends the parser; without an error its iterator would wait for ever. */
  #stop(): void {
    this.#parser.destroy(STOPPED);
  }

  /**
   * The parser reads on behind the zero blocks that end an archive. What is there
   * is no part of it: a run that was killed while it added to the archive may have
   * left it.
   */
  #isBehindEnd({ header, offset }: Entry): boolean {
    const gap = offset - this.#end;
    const mayHaveExtension =
      Boolean(header.pax) || header.name.length > 100 || (header.linkname ?? "").length > 100;
    return this.#end > 0 && gap >= TAR_END.length && !mayHaveExtension;
  }

  async #take(entry: Entry): Promise<void> {
    const { location, limits } = this.#options;
    const { header, offset } = entry;
    // The parser gives a directory no content, whatever its size.
    const size = header.type === "directory" ? 0 : header.size;
    this.#end = offset + TAR_BLOCK + size + tarPadding(size);
    if (++this.#count > MAX_TAR_MEMBERS) {
      throw archiveInvalid(location, `it has more than ${MAX_TAR_MEMBERS} members`);
    }
    const path = checkMemberPath(header.name, location);
    this.#paths.add(path);
    const digest = blobDigest(path);
    if (digest === undefined && !DOCUMENTS.has(path)) {
      for await (const _ of entry);
      return;
    }
    if (!isPlainFile(header)) {
      throw archiveInvalid(
        location,
        `its member "${path}" is of type ${header.type ?? "unknown"} and no plain file`,
      );
    }
    if (digest === undefined) checkDocumentSize(size, limits.manifest, `${path} of "${location}"`);
    else this.#blobs.set(digest, size);
    await this.#save(entry, path);
  }

  /** @param path Made of what {@link blobDigest} and {@link DOCUMENTS} know. */
  async #save(entry: Entry, path: string): Promise<void> {
    const file = join(this.#folder, path);
    this.#makeFolder(dirname(file));
    // A second member with this name takes the place of the first.
    rmSync(file, { force: true });
    const fd = openSync(file, "wx", 0o444);
    try {
      for await (const chunk of entry) writeAll(fd, chunk as Uint8Array);
    } catch (error) {
      if (systemCode(error) === undefined) throw error;
      throw systemError(`Cannot unpack member "${path}"`, error);
    } finally {
      closeSync(fd);
    }
  }

  #makeFolder(folder: string): void {
    if (this.#folders.has(folder)) return;
    mkdirSync(folder, { recursive: true });
    this.#folders.add(folder);
  }

  /** Says in our words what the parser found wrong. */
  #parserError(error: unknown): unknown {
    if (error instanceof CacheportError) return error;
    const { location } = this.#options;
    const message = error instanceof Error ? error.message : String(error);
    const isCutShort = message === "Unexpected end of data";
    if (this.#count === 0 && this.#fed < TAR_BLOCK)
      return noTar(location, "it ends within its first header");
    if (this.#count === 0 && !isCutShort) return noTar(location, "its first header is damaged");
    if (isCutShort) {
      return archiveInvalid(
        location,
        `it is truncated at byte ${this.#fed}`,
        "Get the archive again from where it was made",
      );
    }
    return archiveInvalid(location, `the header after byte ${this.#end} is damaged (${message})`);
  }
}

function isPlainFile({ type, name, pax }: Header): boolean {
  const isSparse = Object.keys(pax ?? {}).some((key) => key.startsWith("GNU.sparse."));
  const isFile = type === "file" || type === "contiguous-file";
  return isFile && !isSparse && !name.endsWith("/");
}

function writeAll(fd: number, chunk: Uint8Array): void {
  for (let done = 0; done < chunk.length;) done += writeSync(fd, chunk, done);
}

/** Waits until the parser takes more, or takes nothing any more. */
function drained(parser: Extract): Promise<void> {
  return new Promise((resolve) => {
    parser.once("drain", resolve);
    parser.once("close", resolve);
  });
}
