/** Opens layouts in tar files and tar streams, compressed or not. */
import { existsSync } from "node:fs";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { LayoutArchive } from "./layout-archive.ts";
import { LayoutArchiveWriter } from "./layout-archive-writer.ts";
import { archiveFileFormat, LayoutStream } from "./layout-stream.ts";
import type { Location } from "./location.ts";
import type { ArchiveOptions, StoreSettings } from "./open-store.ts";
import type { Store } from "./content-store.ts";
import { walk } from "./walk.ts";

/** A location that is an archive. */
type ArchiveLocation = Extract<Location, { kind: "archive" | "stream" }>;

/**
 * Opens an archive for reading: a plain tar in place, anything else through a
 * temporary folder.
 *
 * @param tempRoot The folder in which that is made.
 * @throws {CacheportError} USAGE, LOCATION_NOT_FOUND, ARCHIVE_INVALID, LAYOUT_INVALID, ...
 */
export async function openArchive(
  location: ArchiveLocation,
  settings: StoreSettings,
  tempRoot: string,
): Promise<Store> {
  const { limits, signal } = settings;
  if (location.kind === "stream") {
    if (settings.stdinIsTerminal) {
      throw new CacheportError(
        "USAGE",
        "Cannot read an archive from a terminal",
        {
          hint: 'Pipe a tar into it: "cat cache.tar | cacheport ls -"',
        },
      );
    }
    return LayoutStream.open(settings.stdin(), { tempRoot, limits, signal });
  }
  const { path } = location;
  if ((await archiveFileFormat(path)) === "uncompressed") {
    return LayoutArchive.open(path, { limits });
  }
  const source = Bun.file(path).stream();
  return LayoutStream.open(source, {
    tempRoot,
    location: path,
    limits,
    signal,
  });
}

/**
 * Opens an archive for writing. One that is there is added to; nothing in it is lost.
 *
 * @throws {CacheportError} USAGE, NOT_SUPPORTED, ARCHIVE_INVALID, ...
 */
export async function openArchiveWriter(
  location: ArchiveLocation,
  settings: StoreSettings,
  options: ArchiveOptions,
): Promise<LayoutArchiveWriter> {
  const { limits, jobs, lockTimeout, signal } = settings;
  const docker = location.attributes?.dockerArchive;
  const common = { docker, limits, jobs, lockTimeout, signal };
  if (location.kind === "stream") {
    if (settings.stdoutIsTerminal) {
      throw new CacheportError(
        "USAGE",
        "Cannot write an archive to a terminal",
        {
          hint: "Redirect it to a file or pipe it on",
        },
      );
    }
    const sink = (bytes: Uint8Array): Promise<void> => settings.write(bytes);
    const compress = options.compress;
    return LayoutArchiveWriter.open(
      { sink },
      { ...common, mode: "create", compress },
    );
  }
  const { path } = location;
  const compress = options.compress ?? compressionOfName(path);
  const mode = !existsSync(path)
    ? "create"
    : options.rewrite
      ? "rewrite"
      : "append";
  return LayoutArchiveWriter.open(
    { path },
    {
      ...common,
      mode,
      compress,
      async keeps(reader, roots): Promise<Set<Digest>> {
        const nodes = await walk(reader, roots, { limits, signal });
        return new Set(nodes.map((node) => node.descriptor.digest));
      },
    },
  );
}

/** What a file's name says of its compression. */
function compressionOfName(path: string): "gzip" | "zstd" | undefined {
  if (/\.(?:tar\.gz|tgz)$/i.test(path)) return "gzip";
  return /\.(?:tar\.zstd?|tzst)$/i.test(path) ? "zstd" : undefined;
}
