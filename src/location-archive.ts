/**
 * Opens layouts in tar files and tar streams, compressed or not. What unpacks and what
 * writes is loaded when it is needed: most archives are only read.
 */
import { isNewArchive, openArchive as openFile, openArchiveStream } from "./archive-open.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { LayoutArchiveWriter } from "./archive-writer.ts";
import type { Location } from "./location.ts";
import type { ArchiveOptions, StoreSettings } from "./location-settings.ts";
import type { Store } from "./content-store.ts";
import { walk } from "./walk.ts";

/** A location that is an archive. */
type ArchiveLocation = Extract<Location, { kind: "archive" | "stream" }>;

/**
 * Opens an archive for reading: a plain tar in place, anything else through a
 * temporary folder.
 *
 * @param tempRoot The folder in which that is made.
 * @param documentsOnly Nothing but documents will be read, and nothing else is unpacked.
 * @throws {CacheportError} USAGE, LOCATION_NOT_FOUND, ARCHIVE_INVALID, LAYOUT_INVALID, ...
 */
export async function openArchive(
  location: ArchiveLocation,
  settings: StoreSettings,
  tempRoot: string,
  documentsOnly?: boolean,
): Promise<Store> {
  const { limits, signal } = settings;
  if (location.kind === "stream") {
    if (settings.stdinIsTerminal) {
      throw new CacheportError("USAGE", "Cannot read an archive from a terminal", {
        hint: 'Pipe a tar into it: "cat cache.tar | cacheport ls -"',
      });
    }
    return openArchiveStream(settings.stdin(), { tempRoot, documentsOnly, limits, signal });
  }
  const { path } = location;
  const options = { tempRoot, documentsOnly, location: path, limits, signal };
  return (await openFile(path, options)).content;
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
  const { LayoutArchiveWriter } = await import("./archive-writer.ts");
  const { limits, jobs, lockTimeout, signal } = settings;
  const docker = location.attributes?.dockerArchive;
  const common = { docker, limits, jobs, lockTimeout, signal };
  if (location.kind === "stream") {
    if (settings.stdoutIsTerminal) {
      throw new CacheportError("USAGE", "Cannot write an archive to a terminal", {
        hint: "Redirect it to a file or pipe it on",
      });
    }
    const sink = (bytes: Uint8Array): Promise<void> => settings.write(bytes);
    const compress = options.compress;
    return LayoutArchiveWriter.open({ sink }, { ...common, mode: "create", compress });
  }
  const { path } = location;
  const isNew = await isNewArchive(path);
  if (!isNew && !options.rewrite && options.compress)
    throw addsUncompressed(path, options.compress);
  return LayoutArchiveWriter.open(
    { path },
    {
      ...common,
      // Another process may make the file meanwhile, so what is new is appended, too.
      mode: options.rewrite ? "rewrite" : "append",
      compress: options.compress ?? (isNew ? compressionOfName(path) : undefined),
      async keeps(reader, roots): Promise<Set<Digest>> {
        const nodes = await walk(reader, roots, { limits, signal });
        return new Set(nodes.map((node) => node.descriptor.digest));
      },
    },
  );
}

function addsUncompressed(path: string, kind: string): CacheportError {
  return new CacheportError(
    "USAGE",
    `Cannot add to archive "${path}" with --compress ${kind}: what is there stays as it is`,
    { hint: "Write it anew with --rewrite, or leave out --compress" },
  );
}

/** What a file's name says of its compression. */
function compressionOfName(path: string): "gzip" | "zstd" | undefined {
  if (/\.(?:tar\.gz|tgz)$/i.test(path)) return "gzip";
  return /\.(?:tar\.zstd?|tzst)$/i.test(path) ? "zstd" : undefined;
}
