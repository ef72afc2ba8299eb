/**
 * `cacheport copy`: one thing or every entry, under which names and in which form; the copying
 * is copy.ts.
 */
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { COMPRESSION_OPTIONS, compressionChoice } from "./cli-compression.ts";
import type {
  ContentReader,
  ContentWriter,
  EntryName,
  NameUpdate,
  Store,
} from "./content-store.ts";
import { copyContent, NOTHING_MOVED } from "./copy.ts";
import type { CopyRoot, TransferCounts, TransferOptions } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import { parseDocument } from "./document.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { wholePlatforms } from "./image-choose.ts";
import type { Location } from "./location.ts";
import { entryLabel } from "./layout-index.ts";
import { isDocumentType } from "./media-types.ts";
import {
  defaultName,
  folderNear,
  locationName,
  openSource,
  storeSettings,
} from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { tryReadCache } from "./cache-read.ts";
import type { CompressionChoice } from "./recompress.ts";
import type { Referrer } from "./referrers.ts";
import { PLATFORM_OPTION, resolveSource } from "./location-source.ts";
import { formatReference } from "./reference.ts";
import { chooseNames, fitNames, keepName, nameTexts, refuseClashes } from "./location-names.ts";
import { DELETE_REPLACED_OPTION, settleNames } from "./cli-replaced.ts";
import { formatTransfer, printTransfer, runTransfer, transferResult } from "./cli-transfer.ts";

/** What stands in the target, and how much was moved. */
interface Copied {
  roots: Descriptor[];
  counts: TransferCounts;
}

/** What is copied. */
interface Content {
  store: Store;
  roots: readonly CopyRoot[];
  /** What refers to the roots and goes with them. */
  referrers: readonly Referrer[];
  /** The text that names what was to become a target: `HOST/REPO:TAG`. */
  sourceOf(target: string): string;
}

/** `cacheport copy SRC DST`: content with its digests. */
export const copyCommand = defineCommand({
  name: "copy",
  summary: "Copy images, indexes, caches or any artifact; digests stay as they are",
  description:
    "Copies what SRC names, with everything that it reaches, to DST: a layout folder, an archive, a registry or, for a cache, an object store. Only --compression changes digests. Every byte is checked against its digest; blobs that DST has already are skipped. Nothing is named in DST before all of its content is there. Without a name in DST the source's own is kept.",
  operands: [
    { name: "SRC", description: "What to copy", kind: "location" },
    { name: "DST", description: "Where to copy it", kind: "location", target: true },
  ],
  options: [
    {
      name: "all",
      short: "a",
      description: "Copy every entry of SRC with its name",
    },
    PLATFORM_OPTION,
    {
      name: "tag",
      short: "t",
      value: "NAME",
      repeat: true,
      description: "Name of the copy, a tag or a full image name",
    },
    {
      name: "referrers",
      description: "Copy signatures, SBOMs and attestations of what is copied, too",
    },
    {
      name: "compress",
      value: "KIND",
      choices: ["gzip", "zstd"],
      description: "Compress the archive that is written",
    },
    ...COMPRESSION_OPTIONS,
    {
      name: "rewrite",
      description: "Write an archive anew instead of adding to it",
    },
    DELETE_REPLACED_OPTION,
    {
      name: "dry-run",
      description: "Say what would be copied and copy nothing",
    },
  ],
  examples: [
    {
      command: "cacheport copy ./cache:main ./backup:main",
      description: "Folder to folder",
    },
    {
      command: "cacheport copy image.tar registry.example/team/app:1.0",
      description: "Push an archive",
    },
    {
      command:
        "cacheport copy registry.example/app/cache:main - | ssh host cacheport copy - ./cache",
      description: "Through a pipe",
    },
    {
      command: "cacheport copy --all ./layout other.tar",
      description: "Every name of a layout",
    },
    {
      command: "cacheport copy --referrers registry.example/app:1.0 ./app",
      description: "An image with its signatures and its SBOM",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const target = args.location(1);
    refuseShape(target);
    for (const note of target.attributes?.notes ?? []) context.note(note);
    if (args.flag("all")) await copyAll(context, args, settings, target);
    else await copyOne(context, args, settings, target);
  },
});

/** Copying keeps the shape of a cache, so attributes that name one belong to convert. */
function refuseShape({ attributes, text }: Location): void {
  if (attributes?.imageManifest === undefined && attributes?.ociMediaTypes === undefined) return;
  throw new CacheportError("USAGE", `Cannot copy to "${text}": its attributes ask for a shape`, {
    hint: "copy keeps the shape; use convert with the same locations",
  });
}

type CopyArguments = Arguments<
  "delete-replaced" | SharedFlag | "dry-run" | "force-compression" | "referrers" | "rewrite",
  SharedValue | "compress" | "compression" | "compression-level" | "platform" | "tag"
>;

async function copyOne(
  context: CommandContext,
  args: CopyArguments,
  settings: StoreSettings,
  target: Location,
): Promise<void> {
  const source = await resolveSource(args.location(0), settings, args, {
    near: folderNear(target),
  });
  try {
    const { store, descriptor, location } = source;
    const tags = args.values("tag");
    const entry = source.entry && ownName(source.entry, location, target);
    const names = fitNames(
      chooseNames(tags, locationName(target), entry, defaultName(target)),
      target,
      tags,
    );
    const choice = compressionChoice(args, target);
    const roots = [{ descriptor, names }];
    if (choice && args.flag("referrers"))
      throw new CacheportError(
        "USAGE",
        "Cannot use --referrers with a compression: what refers to a digest is about no other",
      );
    const referrers = await wantedReferrers(args, store, roots, settings);
    const content = { store, roots, referrers, sourceOf: () => args.location(0).text };
    await transfer(context, args, settings, content, target, (writer, options) =>
      choice
        ? copyRecompressed(store, descriptor, names, choice, writer, options)
        : copyContent(store, [...roots, ...referrers], writer, options),
    );
  } finally {
    await source.store.close();
  }
}

/** Copies an image, an index or a cache with other layers, so with other digests. */
async function copyRecompressed(
  store: Store,
  descriptor: Descriptor,
  names: readonly NameUpdate[],
  choice: CompressionChoice,
  writer: ContentWriter,
  options: TransferOptions & { tempFolder: string },
): Promise<Copied> {
  const set = await tryReadCache(store, descriptor, options);
  if (set && set.shape !== "inline") {
    const { convertCache } = await import("./convert.ts");
    const { sameShape } = await import("./plan.ts");
    const converted = await convertCache(store, set, writer, {
      ...options,
      shape: sameShape(set.shape),
      names,
      inPlace: false,
      checkBlobs: false,
      compression: choice,
    });
    return converted
      ? { roots: [converted.descriptor], counts: converted.counts }
      : { roots: [], counts: NOTHING_MOVED };
  }
  const { recompressImage } = await import("./recompress-image.ts");
  const made = await recompressImage(store, descriptor, choice, writer, options);
  try {
    const { signal, onNames } = options;
    const root = { descriptor: made.descriptor, bytes: made.bytes, names };
    await writer.publish([root], { signal, onNames });
  } finally {
    await made.dispose();
  }
  return { roots: [made.descriptor], counts: made.counts };
}

async function copyAll(
  context: CommandContext,
  args: CopyArguments,
  settings: StoreSettings,
  target: Location,
): Promise<void> {
  if (
    locationName(target) !== undefined ||
    args.value("platform") !== undefined ||
    args.values("tag").length > 0 ||
    compressionChoice(args, target)
  ) {
    throw new CacheportError(
      "USAGE",
      "Cannot use --all with a name, a platform or a compression: every entry stays as it is",
    );
  }
  const { store, query, location } = await openSource(args.location(0), settings, {
    near: folderNear(target),
  });
  try {
    if (query.name !== undefined || query.digest !== undefined) {
      throw new CacheportError(
        "USAGE",
        `Cannot use --all with "${location.text}": it names one entry`,
      );
    }
    const entries = await store.list();
    const broken = entries.find(({ problem }) => problem !== undefined);
    if (broken) {
      throw new CacheportError("DOCUMENT_INVALID", broken.problem ?? "", {
        hint: "The other entries can be copied one by one",
      });
    }
    const roots = entries.map((entry) => ({
      descriptor: entry.descriptor,
      names: fitNames([keepName(ownName(entry, location, target))], target),
    }));
    if (target.kind === "registry" || target.kind === "object") refuseClashes(roots);
    const sourceOf = (written: string): string => {
      const entry = entries.find((_, position) =>
        nameTexts(roots[position]?.names ?? []).some((name) => written.endsWith(`:${name}`)),
      );
      return withName(location, (entry && entryLabel(entry)) ?? undefined);
    };
    const referrers = await wantedReferrers(args, store, roots, settings);
    const content = { store, roots, referrers, sourceOf };
    await transfer(context, args, settings, content, target, (writer, options) =>
      copyContent(store, [...roots, ...referrers], writer, options),
    );
  } finally {
    await store.close();
  }
}

/**
 * What an entry of the source is called elsewhere. A repository has tags alone; an archive
 * needs the image's full name, which docker load takes from it.
 */
function ownName<T extends EntryName>(entry: T, source: Location, target: Location): T {
  const isArchive = target.kind === "archive" || target.kind === "stream";
  if (source.kind !== "registry" || !isArchive || entry.refName === undefined) return entry;
  const { domain, path } = source.reference;
  const imageName = formatReference({ domain, path, tag: entry.refName, digest: null });
  return { ...entry, imageName };
}

/** A location's text with a name at its end. */
function withName({ text }: Location, name: string | undefined): string {
  if (name === undefined) return text;
  return text.startsWith("type=local") ? `${text},tag=${name}` : `${text}:${name}`;
}

async function transfer(
  context: CommandContext,
  args: CopyArguments,
  settings: StoreSettings,
  { store, roots, referrers, sourceOf }: Content,
  target: Location,
  run: (
    writer: ContentWriter,
    options: TransferOptions & { tempFolder: string },
  ) => Promise<Copied>,
): Promise<void> {
  const dryRun = args.flag("dry-run");
  const { made, before } = await runTransfer(context, args, settings, {
    target,
    names: roots.flatMap((root) => root.names),
    dryRun,
    archive: {
      rewrite: args.flag("rewrite"),
      compress: args.value("compress") as "gzip" | "zstd" | undefined,
    },
    sourceOf,
    platform: args.value("platform"),
    async write(writer, options) {
      try {
        return await run(writer, options);
      } catch (error) {
        throw await wholeHint(error, store, roots, settings);
      }
    },
  });
  const copied = made ?? {
    roots: roots.map((root) => root.descriptor),
    counts: NOTHING_MOVED,
  };
  const only = roots.length === 1 ? copied.roots[0] : undefined;
  const shape = roots[0] && only ? await cacheShape(store, roots[0].descriptor, settings) : null;
  const names = roots.flatMap((root) => nameTexts(root.names));
  const written = copied.roots
    .slice(0, roots.length)
    .map((descriptor, at) => ({ descriptor, names: roots[at]?.names ?? [] }));
  const settled = await settleNames(
    context,
    target,
    settings,
    before.written(written),
    made !== undefined && args.flag("delete-replaced"),
  );
  const value = {
    ...transferResult(only, shape, names, copied.counts),
    ...settled,
    entries: written.map(({ descriptor: { digest, mediaType, size }, names }) => ({
      digest,
      mediaType,
      size,
      names: nameTexts(names),
    })),
    referrers: referrers.map(({ descriptor: { digest, mediaType, size }, subject }) => ({
      digest,
      mediaType,
      size,
      subject,
    })),
    dryRun,
  };
  const verb = dryRun ? "would copy" : "copied";
  const what = only?.mediaType ?? `${roots.length} entries`;
  const also: [string, string][] =
    referrers.length > 0 ? [["with", `${referrers.length} that refer to it`]] : [];
  await printTransfer(context, target, value, () =>
    formatTransfer(value, [[verb, what], ...also], context),
  );
}

/** What `--referrers` asks for; none without it, and none that is copied anyway. */
async function wantedReferrers(
  args: CopyArguments,
  store: Store,
  roots: readonly CopyRoot[],
  settings: StoreSettings,
): Promise<Referrer[]> {
  if (!args.flag("referrers")) return [];
  const { findReferrers } = await import("./referrers.ts");
  const copied = new Set(roots.map(({ descriptor }) => descriptor.digest));
  const found = await findReferrers(
    store,
    roots.map(({ descriptor }) => descriptor),
    settings,
  );
  return found.filter(({ descriptor }) => !copied.has(descriptor.digest));
}

/** Names the platforms of an index that can be copied where the whole of it cannot. */
async function wholeHint(
  error: unknown,
  store: ContentReader,
  roots: readonly CopyRoot[],
  settings: StoreSettings,
): Promise<unknown> {
  const [root] = roots;
  if (!isCacheportError(error, "BLOB_MISSING") || !root || roots.length > 1) return error;
  const platforms = await wholePlatforms(store, root.descriptor, settings);
  if (platforms.length === 0) return error;
  const hint = { do: "choose-platform", platforms } as const;
  return new CacheportError(error.code, error.message, { hint, cause: error });
}

/** The shape of what was copied, null for what is no cache. */
async function cacheShape(
  reader: ContentReader,
  descriptor: Descriptor,
  { limits }: StoreSettings,
): Promise<string | null> {
  if (!isDocumentType(descriptor.mediaType)) return null;
  const bytes = await reader.read(descriptor, limits.manifest);
  const { mediaType, digest } = descriptor;
  return parseDocument(bytes, mediaType, `manifest "${digest}"`).cache?.shape ?? null;
}
