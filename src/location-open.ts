/**
 * Opens what a location names. The code of each kind of store is loaded when the
 * first location of that kind is opened, so that a command on a folder does not
 * pay for the registry client.
 */
import { statSync } from "node:fs";
import { tmpdir } from "node:os";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { ContentWriter, EntryName, NameQuery, NameWriter, Store } from "./content-store.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { parseEntryName } from "./layout-index.ts";
import { parseLocation } from "./location.ts";
import { checkTargetFolder } from "./location-new.ts";
import type { Location, PathKind } from "./location.ts";
import { dirname, resolve } from "./paths.ts";
import { accessTo, readAccess, withAuthFile } from "./location-login.ts";
import type { ArchiveOptions, StoreSettings } from "./location-settings.ts";
import { DEFAULT_NAME, isSamePlace } from "./object-place.ts";
import type { ObjectStore } from "./object-store.ts";
import type { RegistryRepository } from "./registry.ts";
import { DEFAULT_JOBS } from "./concurrency.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";

/** A location that was opened for reading, and what to look for in it. */
export interface OpenedSource {
  store: Store;
  location: Location;
  query: NameQuery;
}

/**
 * Reads the shared options of a command line.
 *
 * @throws {CacheportError} USAGE
 */
export async function storeSettings(
  context: CommandContext,
  args: Arguments<SharedFlag, SharedValue>,
): Promise<StoreSettings> {
  const limit = args.bytes("max-document");
  return {
    limits: {
      manifest: limit ?? DEFAULT_LIMITS.manifest,
      config: limit ?? DEFAULT_LIMITS.config,
      depth: DEFAULT_LIMITS.depth,
    },
    jobs: args.integer("jobs", { min: 1, max: 64 }) ?? DEFAULT_JOBS,
    lockTimeout: args.duration("lock-timeout") ?? 30_000,
    signal: context.signal,
    env: withAuthFile(context.env, args.value("authfile")),
    stdin: () => context.stdin(),
    write: (bytes) => context.write(bytes),
    note: (text) => context.note(text),
    stdinIsTerminal: context.stdinIsTerminal,
    stdoutIsTerminal: context.stdoutIsTerminal,
    access: await readAccess(context, args),
    trace: args.flag("verbose") ? (line) => context.note(line) : undefined,
    caFile: args.value("ca-file"),
    insecure: args.flag("insecure"),
    plainHttp: args.flag("plain-http"),
    allowPrivateUpload: args.flag("allow-private-upload"),
    checkTarget: args.flag("check-target"),
  };
}

function probe(path: string): PathKind {
  const stats = statSync(path, { throwIfNoEntry: false });
  // A pipe, as the shell makes one for <(...), is read and written like a file.
  return stats && (stats.isDirectory() ? "directory" : "file");
}

/** Parses the text of a location against the files that exist. */
export function locate(text: string, role: "source" | "target"): Location {
  return parseLocation(text, {
    role,
    probe: (path) => {
      try {
        return probe(path);
      } catch {
        return undefined;
      }
    },
  });
}

/**
 * Parses the text of a location that is to be written to.
 *
 * @throws {CacheportError} USAGE when it ends with a digest
 */
export function locateTarget(text: string): Location {
  const location = locate(text, "target");
  checkTargetFolder(location);
  const isNamed = "digestStart" in location && location.digestStart !== undefined;
  if (locationQuery(location).digest === undefined && !isNamed) return location;
  throw new CacheportError("USAGE", `Cannot write to "${text}": a digest is no name`, {
    hint: "Leave the digest out, or give a tag instead",
  });
}

/** Tells whether two locations are the same store, whatever their names. */
export function isSameStore(a: Location, b: Location): boolean {
  if (a.kind === "registry" && b.kind === "registry") {
    return a.reference.domain === b.reference.domain && a.reference.path === b.reference.path;
  }
  if (a.kind === "object" && b.kind === "object") return isSamePlace(a.place, b.place);
  if (a.kind === "object" || b.kind === "object") return false;
  if (a.kind === "stream" || b.kind === "stream") return false;
  if (a.kind === "registry" || b.kind === "registry") return false;
  return a.kind === b.kind && resolve(a.path) === resolve(b.path);
}

/** What a location's own text asks for. */
export function locationQuery(location: Location): NameQuery {
  if (location.kind !== "registry") return { name: location.name, digest: location.digest };
  const { tag, digest } = location.reference;
  return { name: tag ?? undefined, digest: digest ?? undefined };
}

/** What a cache is called in a place where nobody names it; undefined where it keeps its own name. */
export function defaultName({ kind }: Location): EntryName | undefined {
  return kind === "object" ? { refName: DEFAULT_NAME } : undefined;
}

/**
 * The name that a target's location ends with. BuildKit takes any text for the tag of
 * `type=local`, so there it is no image name even where it looks like one.
 */
export function locationName(location: Location): EntryName | undefined {
  const { name } = locationQuery(location);
  if (name === undefined) return undefined;
  return location.kind === "object" || location.text.startsWith("type=local")
    ? { refName: name }
    : parseEntryName(name);
}

/** How a source is to be read. */
export interface OpenOptions {
  /**
   * A path; what has to be unpacked is unpacked on its file system, so that its blobs can
   * be moved there without a second copy.
   */
  near?: string | undefined;
  /** Only manifests and small configs will be read: of an archive nothing else is unpacked. */
  documentsOnly?: boolean | undefined;
}

/**
 * Opens a location for reading, given as it is written or parsed.
 *
 * @throws {CacheportError} LOCATION_NOT_FOUND, LAYOUT_INVALID, ARCHIVE_INVALID, ...
 */
export async function openSource(
  source: string | Location,
  settings: StoreSettings,
  options: OpenOptions = {},
): Promise<OpenedSource> {
  const location = typeof source === "string" ? locate(source, "source") : source;
  const query = locationQuery(location);
  const store = await openStore(location, settings, options);
  const start = "digestStart" in location ? location.digestStart : undefined;
  if (start === undefined) return { store, location, query };
  try {
    const { findByStart } = await import("./location-digest.ts");
    return {
      store,
      location,
      query: { ...query, digest: await findByStart(store, start, settings) },
    };
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function openStore(
  location: Location,
  settings: StoreSettings,
  options: OpenOptions,
): Promise<Store> {
  const { limits, jobs } = settings;
  switch (location.kind) {
    case "directory": {
      const { LayoutDirectory } = await import("./layout-reader.ts");
      return LayoutDirectory.open(location.path, { limits, jobs });
    }
    case "archive":
    case "stream": {
      if (location.kind === "stream" && settings.access.usedInput) throw readsTwice();
      const { openArchive } = await import("./location-archive.ts");
      return openArchive(location, settings, options.near ?? tmpdir(), options.documentsOnly);
    }
    case "registry":
      return openRepository(location, settings);
    case "object":
      return openObjectStore(location, settings);
  }
}

async function openObjectStore(
  { place }: Extract<Location, { kind: "object" }>,
  settings: StoreSettings,
): Promise<ObjectStore> {
  const { ObjectStore } = await import("./object-store.ts");
  return await ObjectStore.open(place, settings);
}

function readsTwice(): CacheportError {
  return new CacheportError(
    "USAGE",
    "Cannot read both a password and an archive from standard input",
    {
      hint: "Log in with docker login, or write the archive to a file first",
    },
  );
}

/** Opens a repository, with the login that was given if it is for its registry. */
async function openRepository(
  location: Extract<Location, { kind: "registry" }>,
  { access, ...settings }: StoreSettings,
): Promise<RegistryRepository> {
  const { RegistryRepository } = await import("./registry.ts");
  const { reference, attributes } = location;
  const { login, verify } = accessTo(location, access);
  return RegistryRepository.open(reference, {
    ...settings,
    ...(login && { username: login.username, password: login.password }),
    insecure: settings.insecure || attributes?.insecure === true || !verify,
  });
}

/** Opens the store that a location names for writing, whatever name or digest it ends with. */
export async function openWriter(
  location: Location,
  settings: StoreSettings,
  options: ArchiveOptions = {},
): Promise<ContentWriter & NameWriter> {
  refuseArchiveOptions(location, options);
  const { jobs, lockTimeout, signal } = settings;
  switch (location.kind) {
    case "directory": {
      const { LayoutDirectoryWriter } = await import("./layout-directory.ts");
      return LayoutDirectoryWriter.open(location.path, {
        create: true,
        lockTimeout,
        jobs,
        signal,
      });
    }
    case "archive":
    case "stream": {
      const { openArchiveWriter } = await import("./location-archive.ts");
      return openArchiveWriter(location, settings, options);
    }
    case "registry":
      return openRepository(location, settings);
    case "object":
      return openObjectStore(location, settings);
  }
}

/** What is meant for an archive must not be passed over where none is written. */
function refuseArchiveOptions(
  { kind, text }: Location,
  { rewrite, compress }: ArchiveOptions,
): void {
  if (kind === "archive" || kind === "stream" || (!rewrite && !compress)) return;
  throw new CacheportError(
    "USAGE",
    `Cannot write to "${text}" with ${rewrite ? "--rewrite" : "--compress"}: that is for archives`,
    compress ? { hint: "--compression recompresses the layers of an image or a cache" } : {},
  );
}

/** A folder on the file system that a location lies on, for what has to be unpacked. */
export function folderNear(location: Location): string {
  if (!("path" in location)) return tmpdir();
  const found = statSync(location.path, { throwIfNoEntry: false });
  // Beside a pipe of the shell's, in /dev/fd, nothing can be made.
  if (found && !found.isFile() && !found.isDirectory()) return tmpdir();
  let folder =
    location.kind === "directory" ? resolve(location.path) : dirname(resolve(location.path));
  while (probe(folder) !== "directory" && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}
