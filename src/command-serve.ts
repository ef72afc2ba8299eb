/** `cacheport serve`: what is served and how it is called; the registry itself is serve.ts. */
import { defineCommand } from "./cli-command.ts";
import type { CommandContext } from "./cli-command.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import {
  folderNear,
  locationQuery,
  openSource,
  openWriter,
  storeSettings,
} from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { RunFolder } from "./layout-work.ts";
import { basename, resolve } from "./paths.ts";
import { isLoopback, serveRegistry } from "./serve.ts";
import { FolderCache } from "./serve-cache.ts";
import { PendingContent } from "./serve-pending.ts";
import { ServedRepository } from "./serve-repository.ts";

const DEFAULT_PORT = 5000;

/** `cacheport serve LOC...`: a registry on this machine over any location. */
export const serveCommand = defineCommand({
  name: "serve",
  summary: "Serve locations as a registry on this machine",
  description:
    "Runs a registry over layout folders, archives, object stores and other registries until it is interrupted, so that a builder which knows only type=registry can import a cache from anywhere. It is read-only, and listens on loopback, unless told otherwise. What is asked for is not checked here: clients of registries check every digest.\n\nEach location is a repository, called as the folder or file (without its ending), as the repository, or as --name says. A location with a name or a digest offers that one alone, without one all its names.\n\nWith --writable it takes what is pushed, too, and puts it into the location when its tag comes, checked and whole; what was pushed without a tag by the end is listed there without a name.",
  operands: [
    {
      name: "LOC",
      description: "What to serve",
      kind: "location",
      target: "writable",
      repeat: true,
    },
  ],
  options: [
    {
      name: "name",
      value: "NAME",
      repeat: true,
      description: "What the repositories are called, in the order of the locations",
    },
    {
      name: "port",
      value: "PORT",
      description: `Port to listen at (default ${DEFAULT_PORT}); 0 for any that is free`,
    },
    {
      name: "address",
      value: "ADDRESS",
      description: "Address to listen at (default 127.0.0.1)",
    },
    { name: "writable", description: "Take pushes, and write them to the locations" },
    {
      name: "cache",
      value: "FOLDER",
      description: "Keep blobs of registries and object stores in this folder",
    },
  ],
  examples: [
    {
      command: "cacheport serve ./cache.tar",
      description:
        "Then docker buildx build takes --cache-from type=registry,ref=127.0.0.1:5000/cache",
    },
    {
      command: "cacheport serve --writable ./cache",
      description: "Take cache exports of builders that only know registries",
    },
    {
      command: "cacheport serve --cache ~/.cache/layers registry.example/app/cache",
      description: "A registry's caches, each blob fetched once",
    },
  ],
  async run(context, args) {
    // What is under way when it is interrupted is written to its end.
    const settings = {
      ...(await storeSettings(context, args)),
      signal: new AbortController().signal,
    };
    const isWritable = args.flag("writable");
    const { locations } = args;
    if (isWritable) for (const location of locations) checkWritable(location);
    const names = repositoryNames(locations, args.values("name"));
    const hostname = args.value("address") ?? "127.0.0.1";
    const port = args.integer("port", { min: 0, max: 65535 }) ?? DEFAULT_PORT;
    const opened = new Opened();
    try {
      const folder = args.value("cache");
      const cache = folder === undefined ? undefined : await opened.cache(folder);
      for (const [position, location] of locations.entries())
        await opened.add(location, names[position] as string, { settings, isWritable, cache });
      const registry = serveRegistry({
        repositories: opened.repositories,
        hostname,
        port,
        maxManifest: settings.limits.manifest,
        onRequest: (line) => context.note(line),
      });
      opened.onClose(() => registry.stop());
      if (!isLoopback(hostname))
        context.note(`everybody who reaches ${hostname} can read this, without a login`);
      const host = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${registry.port}`;
      const list = await describe(opened.repositories, host);
      await context.result({ address: hostname, port: registry.port, repositories: list }, () =>
        list.map(formatRepository).join(""),
      );
      await untilInterrupted(context);
      // What is under way is cut off before the last of what was pushed is written.
      await registry.stop();
      for (const repository of opened.repositories) {
        const count = await repository.settle();
        if (count > 0)
          context.note(`${count} manifests without a tag are listed in ${repository.location}`);
      }
    } finally {
      await opened.close();
    }
    return 0;
  },
});

/** What has been opened so far, and must be closed. */
class Opened {
  readonly repositories: ServedRepository[] = [];
  readonly #closers: (() => Promise<void>)[] = [];

  onClose(close: () => Promise<void>): void {
    this.#closers.push(close);
  }

  async cache(folder: string): Promise<FolderCache> {
    const cache = await FolderCache.open(folder);
    this.onClose(() => cache.close());
    return cache;
  }

  async add(location: Location, name: string, how: HowToServe): Promise<void> {
    const { settings, isWritable, cache } = how;
    const query = locationQuery(location);
    let pending: PendingContent | undefined;
    if (isWritable) {
      const run = await RunFolder.within(folderNear(location));
      this.onClose(() => run.close());
      pending = new PendingContent(run);
    }
    const repository = await ServedRepository.open({
      name,
      location: location.text,
      open: async () => (await openSource(location, settings)).store,
      openWriter: isWritable ? () => openWriter(location, settings) : undefined,
      pending,
      cache,
      only: query.name === undefined && query.digest === undefined ? undefined : query,
      limits: settings.limits,
    });
    this.onClose(() => repository.close());
    this.repositories.push(repository);
  }

  async close(): Promise<void> {
    for (const close of this.#closers.toReversed()) await close();
  }
}

/** With what locations are opened. */
interface HowToServe {
  settings: StoreSettings;
  isWritable: boolean;
  cache: FolderCache | undefined;
}

/** @throws {CacheportError} USAGE for a location with a name */
function checkWritable(location: Location): void {
  if (locationQuery(location).name === undefined) return;
  const { text } = location;
  throw new CacheportError("USAGE", `Cannot serve "${text}" for writing: it names one entry`, {
    hint: "Give the location without a name: what is pushed brings its own",
  });
}

/** @throws {CacheportError} USAGE for two locations of one name, and for what is no name */
function repositoryNames(locations: readonly Location[], given: readonly string[]): string[] {
  if (given.length > locations.length)
    throw new CacheportError("USAGE", "Cannot serve: there are more names than locations");
  const names = locations.map((location, n) => given[n] ?? defaultName(location));
  for (const [position, name] of names.entries()) {
    if (!/^[a-z0-9]+(?:(?:[._]|__|-+|\/)[a-z0-9]+)*$/.test(name))
      throw new CacheportError(
        "USAGE",
        `Cannot serve repository "${name}": that is no name for one`,
        {
          hint: "Lower-case letters, digits, and . _ - / between them",
        },
      );
    if (names.indexOf(name) !== position)
      throw new CacheportError("USAGE", `Cannot serve two repositories called "${name}"`, {
        hint: "Give each location a name of its own with --name",
      });
  }
  return names;
}

function defaultName(location: Location): string {
  if (location.kind === "registry") return location.reference.path;
  if (location.kind === "stream" || location.kind === "object") return "cache";
  const name = basename(resolve(location.path))
    .toLowerCase()
    .replace(/(?:\.oci)?\.t(?:ar|gz|zst)(?:\.\w+)?$/, "")
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return name || "cache";
}

interface Description {
  name: string;
  location: string;
  reference: string;
  tags: string[];
  writable: boolean;
}

async function describe(
  repositories: readonly ServedRepository[],
  host: string,
): Promise<Description[]> {
  return Promise.all(
    repositories.map(async (repository) => ({
      name: repository.name,
      location: repository.location,
      reference: `${host}/${repository.name}`,
      tags: await repository.tags(),
      writable: repository.isWritable,
    })),
  );
}

function formatRepository({ reference, tags, location, writable }: Description): string {
  const names = tags.length === 0 ? "no names yet" : tags.slice(0, 10).join(" ");
  const more = tags.length > 10 ? ` and ${tags.length - 10} more` : "";
  return `${reference}  ${location}${writable ? " (writable)" : ""}: ${names}${more}\n`;
}

async function untilInterrupted({ signal }: CommandContext): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((done) => signal.addEventListener("abort", () => done(), { once: true }));
}
