/**
 * `cacheport convert`: which cache, in what shape and to where; the conversion itself is
 * convert.ts.
 */
import { tmpdir } from "node:os";
import { CACHE_SHAPES } from "./cache-manifest.ts";
import type { CacheShape } from "./cache-manifest.ts";
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { COMPRESSION_OPTIONS, compressionChoice } from "./cli-compression.ts";
import type { NameUpdate } from "./content-store.ts";
import { shapeOfAttributes } from "./location-attributes.ts";
import { convertCache, planConversion } from "./convert.ts";
import type { ConvertResult } from "./convert.ts";
import { NOTHING_MOVED } from "./copy.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { parseEntryName } from "./layout-index.ts";
import {
  defaultName,
  folderNear,
  isSameStore,
  locationName,
  openWriter,
  storeSettings,
} from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { readCache } from "./cache-read.ts";
import type { CacheSet } from "./cache-read.ts";
import { PLATFORM_OPTION, resolveSource } from "./location-source.ts";
import type { ResolvedSource } from "./location-source.ts";
import { chooseNames, fitNames, nameTexts } from "./location-names.ts";
import { completeHint } from "./cli-hints.ts";
import { formatTransfer, printTransfer, transferResult } from "./cli-transfer.ts";

/** `cacheport convert SRC [DST]`: a cache in another shape. */
export const convertCommand = defineCommand({
  name: "convert",
  summary: "Convert a build cache to another shape, in place or on the way to another store",
  description:
    "Rewrites the top document of a BuildKit cache: an OCI image manifest (which every registry takes), an OCI index or a Docker manifest list. Without DST it converts in place: the new manifest is written, the name is moved, no blob is opened; the old manifest stays until gc. The result has the digest that BuildKit itself would have given it. An inline cache of an image becomes a cache of its own; the caches of several platforms in one index become one.",
  operands: [
    { name: "SRC", description: "The cache to convert", kind: "location" },
    {
      name: "DST",
      description: "Where to write it; the same place when it is left out",
      optional: true,
      kind: "location",
      target: true,
    },
  ],
  options: [
    {
      name: "to",
      value: "SHAPE",
      choices: [...CACHE_SHAPES, "auto"],
      description:
        "Shape to write (default image-manifest); auto keeps it where the registry takes it",
    },
    {
      name: "tag",
      short: "t",
      value: "NAME",
      repeat: true,
      description: "Name of the result, a tag or a full image name",
    },
    PLATFORM_OPTION,
    ...COMPRESSION_OPTIONS,
    {
      name: "dry-run",
      description: "Say what would be written and write nothing",
    },
  ],
  examples: [
    {
      command: "cacheport convert ./cache --to image-manifest",
      description: "Convert a cache folder in place",
    },
    {
      command: "cacheport convert registry.example/app/cache:main",
      description: "Convert a cache in its registry: reads and one PUT",
    },
    {
      command: "cacheport convert ./cache registry.example/app/cache:main --to auto",
      description: "Push a cache in the first shape that the registry takes",
    },
    {
      command: "cacheport convert ./cache:main --tag main-v2 --compression zstd",
      description: "Keep the old name and write recompressed layers under a new one",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const target = args.locations[1];
    const source = await resolveSource(args.location(0), settings, args, {
      near: target && folderNear(target),
    });
    for (const note of (target ?? source.location).attributes?.notes ?? []) context.note(note);
    try {
      await convert(context, args, settings, source, target);
    } finally {
      await source.store.close();
    }
  },
});

type ConvertArguments = Arguments<
  SharedFlag | "dry-run" | "force-compression",
  SharedValue | "compression" | "compression-level" | "platform" | "tag" | "to"
>;

async function convert(
  context: CommandContext,
  args: ConvertArguments,
  settings: StoreSettings,
  source: ResolvedSource,
  targetLocation: Location | undefined,
): Promise<void> {
  const inPlace = !targetLocation || isSameStore(source.location, targetLocation);
  const target = targetLocation ?? source.location;
  const shape = chosenShape(args, target);
  const compression = compressionChoice(args, target);
  const set = await readCache(source.store, source.descriptor, settings);
  // An inline cache is part of an image; the image's own name stays with the image.
  const entry = set.shape === "inline" ? undefined : source.entry;
  const tags = args.values("tag");
  const names = fitNames(
    targetLocation
      ? chooseNames(tags, locationName(targetLocation), entry, defaultName(targetLocation))
      : namesInPlace(args, { ...source, entry }),
    target,
    tags,
  );

  if (args.flag("dry-run")) {
    const plan = planConversion(set, shape);
    await report(context, target, set, names, plan && { ...plan, counts: NOTHING_MOVED }, true);
    return;
  }
  const writer = await openWriter(target, settings);
  try {
    const result = await convertCache(source.store, set, writer, {
      ...settings,
      progress: context.progress,
      shape,
      names,
      inPlace,
      checkBlobs: source.location.kind !== "registry",
      compression,
      tempFolder: target.kind === "directory" ? folderNear(target) : tmpdir(),
    });
    if (!result) context.note("skipping cache export for empty result");
    await report(context, target, set, result ? names : [], result, false);
  } catch (error) {
    throw completeHint(error, () => source.location.text, args, args.value("platform"));
  } finally {
    await writer.close();
  }
}

/** The shape that --to asks for, else the target's attributes in BuildKit's own spelling. */
function chosenShape(args: Arguments<never, "to">, target: Location): CacheShape | "auto" {
  const given = args.value("to");
  if (given !== undefined) return given as CacheShape | "auto";
  return shapeOfAttributes(target.attributes);
}

/** In place a name is moved, unless --tag gives others. */
function namesInPlace(
  args: Arguments<never, "tag">,
  { entry, location }: ResolvedSource,
): NameUpdate[] {
  const tags = args.values("tag");
  if (location.kind === "stream") {
    throw new CacheportError("USAGE", "Cannot convert standard input in place: give a target", {
      hint: "For example: cacheport convert - ./cache",
    });
  }
  if (tags.length > 0) return tags.map((tag) => ({ kind: "set", name: parseEntryName(tag) }));
  if (entry) return [{ kind: "replace", entry }];
  throw new CacheportError(
    "USAGE",
    `Cannot convert "${location.text}" in place: there is no name that could be moved to the result`,
    { hint: "Give the result a name with --tag" },
  );
}

async function report(
  context: CommandContext,
  target: Location,
  set: CacheSet,
  names: readonly NameUpdate[],
  result: ConvertResult | undefined,
  dryRun: boolean,
): Promise<void> {
  const value = {
    ...transferResult(
      result?.descriptor,
      result?.shape ?? null,
      nameTexts(names),
      result?.counts ?? NOTHING_MOVED,
    ),
    source: { digest: set.descriptor.digest, shape: set.shape },
    dryRun,
  };
  await printTransfer(context, target, value, () =>
    result
      ? formatTransfer(
          value,
          [
            [dryRun ? "would convert" : "converted", `${set.shape} -> ${result.shape}`],
            ["from", set.descriptor.digest],
          ],
          context,
        )
      : "",
  );
}
