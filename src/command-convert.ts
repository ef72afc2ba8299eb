/**
 * `cacheport convert`: which cache, in what shape and to where; the conversion itself is
 * convert.ts.
 */
import { CACHE_SHAPES } from "./cache-manifest.ts";
import type { CacheShape } from "./cache-manifest.ts";
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { OperandSpec, OptionSpec, SharedFlag, SharedValue } from "./cli-options.ts";
import { DELETE_REPLACED_OPTION, settleNames } from "./cli-replaced.ts";
import { TargetBefore } from "./cli-target.ts";
import { COMPRESSION_OPTIONS, compressionChoice } from "./cli-compression.ts";
import type { NameUpdate } from "./content-store.ts";
import { shapeOfAttributes } from "./location-attributes.ts";
import { findMissing, planConversion } from "./convert.ts";
import type { ConversionPlan } from "./convert.ts";
import { NOTHING_MOVED } from "./copy.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { parseEntryName } from "./layout-index.ts";
import {
  defaultName,
  folderNear,
  isSameStore,
  locationName,
  storeSettings,
} from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { readCache } from "./cache-read.ts";
import { PLATFORM_OPTION, resolveSource } from "./location-source.ts";
import type { ResolvedSource } from "./location-source.ts";
import { chooseNames, fitNames, nameTexts } from "./location-names.ts";
import {
  droppedText,
  formatTransfer,
  noteImportLimits,
  printTransfer,
  runTransfer,
  transferResult,
} from "./cli-transfer.ts";

const OPERANDS = [
  { name: "SRC", description: "The cache to convert", kind: "location" },
  {
    name: "DST",
    description: "Where to write it; the same place when it is left out",
    optional: true,
    kind: "location",
    target: true,
  },
] as const satisfies readonly OperandSpec[];

/** The option for the shape, whose default is another for each word. */
const shapeOption = (byDefault: string) =>
  ({
    name: "to",
    value: "SHAPE",
    choices: [...CACHE_SHAPES, "auto"],
    description: `Shape to write (default ${byDefault}); auto keeps it where the registry takes it`,
  }) as const satisfies OptionSpec;

/** The other options of both words. */
const OPTIONS = [
  {
    name: "tag",
    short: "t",
    value: "NAME",
    repeat: true,
    description: "Name of the result, a tag or a full image name",
  },
  {
    name: "drop-missing",
    description: "Drop the results that need a blob which is not there",
  },
  DELETE_REPLACED_OPTION,
  PLATFORM_OPTION,
  ...COMPRESSION_OPTIONS,
  {
    name: "dry-run",
    description: "Say what would be written and write nothing",
  },
] as const satisfies readonly OptionSpec[];

/** `cacheport convert SRC [DST]`: a cache in another shape. */
export const convertCommand = defineCommand({
  name: "convert",
  summary: "Convert a build cache to another shape, in place or on the way to another store",
  description:
    "Rewrites the top document of a BuildKit cache: an OCI image manifest (which every registry takes), an OCI index or a Docker manifest list. Without DST it converts in place: the new manifest is written, the name is moved, no blob is opened; the old manifest stays until gc. The result has the digest that BuildKit itself would have given it. An inline cache of an image becomes a cache of its own; the caches of several platforms in one index become one.\n\nWith --heal a cache of which BuildKit's import can lose hits gets one record that joins its leaves; the command heal does that alone.",
  operands: OPERANDS,
  options: [
    {
      name: "heal",
      description: "Join the leaves of the cache where BuildKit's import can lose hits",
    },
    {
      name: "exact",
      description: "BuildKit's own bytes of caches that become one: join no leaves",
    },
    shapeOption("image-manifest, with --heal auto"),
    ...OPTIONS,
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
    {
      command: "cacheport convert ./cache --heal",
      description: "Keep the shape, and let every import find the whole cache",
    },
  ],
  async run(context, args) {
    if (args.flag("heal") && args.flag("exact")) {
      throw new CacheportError(
        "USAGE",
        "Cannot use --heal with --exact: one joins leaves, the other does not",
      );
    }
    await convert(context, args, { heal: args.flag("heal"), exact: args.flag("exact") });
  },
});

/** `cacheport heal SRC [DST]`: `convert --heal` under a plain name. */
export const healCommand = defineCommand({
  name: "heal",
  summary: "Let BuildKit find the whole cache, every time",
  description:
    "BuildKit's import loses cache hits where several leaves of a cache share steps: several platforms, several targets of a bake, merged caches. Which hits are lost changes from run to run. This adds one record without a result whose inputs are all leaves; BuildKit itself takes no notice of it, and its import then loses nothing. A cache that loses nothing stays as it is and keeps its digest. merge and prune heal what they write.\n\nA later --cache-to writes the cache anew, so this is best the last step of a CI job. It is convert --heal by another name, and keeps the shape unless --to is given.",
  operands: [{ ...OPERANDS[0], description: "The cache to heal" }, OPERANDS[1]],
  options: [shapeOption("auto"), ...OPTIONS],
  examples: [
    { command: "cacheport heal ./cache", description: "Heal a cache folder in place" },
    {
      command: "cacheport heal registry.example/app/cache:main",
      description: "Heal a cache in its registry: reads and two small uploads",
    },
  ],
  async run(context, args) {
    await convert(context, args, { heal: true, exact: false });
  },
});

type ConvertArguments = Arguments<
  SharedFlag | "delete-replaced" | "dry-run" | "force-compression" | "drop-missing",
  SharedValue | "compression" | "compression-level" | "platform" | "tag" | "to"
>;

async function convert(
  context: CommandContext,
  args: ConvertArguments,
  choice: { heal: boolean; exact: boolean },
): Promise<void> {
  const settings = await storeSettings(context, args);
  const target = args.locations[1];
  const source = await resolveSource(args.location(0), settings, args, {
    near: target && folderNear(target),
  });
  for (const note of (target ?? source.location).attributes?.notes ?? []) context.note(note);
  try {
    await convertSource(context, args, settings, source, target, choice);
  } finally {
    await source.store.close();
  }
}

async function convertSource(
  context: CommandContext,
  args: ConvertArguments,
  settings: StoreSettings,
  source: ResolvedSource,
  targetLocation: Location | undefined,
  choice: { heal: boolean; exact: boolean },
): Promise<void> {
  const inPlace = !targetLocation || isSameStore(source.location, targetLocation);
  const target = targetLocation ?? source.location;
  const shape = chosenShape(args, target, choice.heal);
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
  const layers = set.caches.flatMap((cache) => cache.layers);
  const missing = args.flag("drop-missing")
    ? await findMissing(source.store, layers, settings)
    : undefined;
  const plan = await planConversion(source.store, set, {
    ...choice,
    shape,
    inPlace,
    checkBlobs: source.location.kind !== "registry",
    compression,
    missing,
    tempFolder: folderNear(target),
  });
  const dryRun = args.flag("dry-run");
  const { made, before } = plan
    ? await runTransfer(context, args, settings, {
        target,
        names,
        dryRun,
        sourceOf: () => source.location.text,
        platform: args.value("platform"),
        write: (writer, options) => plan.write(writer, options),
      })
    : { before: new TargetBefore(target) };
  if (!plan && !dryRun) context.note("skipping cache export for empty result");
  if (plan && !compression) noteImportLimits(context, plan.parts, target);
  const written = made ?? (plan && { ...plan, counts: NOTHING_MOVED });
  const descriptor = written?.descriptor;
  const joined = plan?.parts[0]?.cache.config.joined;
  const settled = await settleNames(
    context,
    target,
    settings,
    before.written(descriptor ? [{ descriptor, names }] : []),
    made !== undefined && args.flag("delete-replaced"),
  );
  const value = {
    ...transferResult(
      descriptor,
      written?.shape ?? null,
      written ? nameTexts(names) : [],
      written?.counts ?? NOTHING_MOVED,
    ),
    ...settled,
    source: { digest: set.descriptor.digest, shape: set.shape },
    ...(choice.heal && { healed: plan?.healed ?? false }),
    ...(joined && { joinedLeaves: joined.length }),
    ...(plan?.dropped && { dropped: plan.dropped }),
    dryRun,
  };
  await printTransfer(context, target, value, () =>
    plan && written
      ? formatTransfer(
          value,
          [
            ...headline(plan, set.shape, written.shape, choice.heal, dryRun),
            ["from", set.descriptor.digest],
            ["dropped", plan?.dropped && droppedText(plan.dropped)],
            ["joined leaves", joined && `${joined.length}`],
          ],
          context,
        )
      : "",
  );
}

/** What was done, in the first line of the result. */
function headline(
  { isSame, healed: isHealed }: ConversionPlan,
  from: string,
  to: string,
  heal: boolean,
  dryRun: boolean,
): [string, string][] {
  const health: [string, string][] =
    heal && !isHealed ? [["healthy", "BuildKit's import loses nothing of it"]] : [];
  if (isSame) return [["unchanged", to], ...health];
  return [[dryRun ? "would convert" : "converted", `${from} -> ${to}`], ...health];
}

/** The shape that --to asks for, else the target's attributes in BuildKit's own spelling. */
function chosenShape(
  args: Arguments<never, "to">,
  { attributes }: Location,
  heal: boolean,
): CacheShape | "auto" {
  const given = args.value("to");
  if (given !== undefined) return given as CacheShape | "auto";
  // Healing alone changes no shape.
  return heal && !attributes ? "auto" : shapeOfAttributes(attributes);
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
