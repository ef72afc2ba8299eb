import { arch } from "node:os";
import { CACHE_SHAPES } from "./cache-manifest.ts";
import type { CacheShape, ReadableShape } from "./cache-manifest.ts";
import type { Arguments, CommandContext, CommandSpec } from "./command.ts";
import type { NamedEntry, NameUpdate, Store } from "./content-store.ts";
import { shapesToTry } from "./convert.ts";
import type { TransferCounts } from "./copy.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { indexInto, mergeInto, planIndex, planMerge } from "./merge.ts";
import type { CacheSource } from "./merge.ts";
import {
  folderNear,
  locateTarget,
  locationName,
  openSource,
  openWriter,
  storeSettings,
} from "./open-store.ts";
import type { StoreSettings } from "./open-store.ts";
import { localPlatform, parsePlatform } from "./platform.ts";
import { readCache } from "./read-cache.ts";
import type { CacheSet } from "./read-cache.ts";
import { chooseNames, nameTexts } from "./target-names.ts";
import {
  formatTransfer,
  printTransfer,
  transferResult,
} from "./transfer-result.ts";

const NOTHING = { copied: 0, skipped: 0, bytes: 0 };

/** `cacheport merge SRC... DST`: several caches as one. */
export const mergeCommand: CommandSpec = {
  name: "merge",
  summary: "Merge several caches into one",
  description:
    "Writes one cache that has what each of the sources has: matrix jobs or platforms that would overwrite each other's cache each export their own, and a last job merges them. Records with the same key and inputs become one with the newest result; layers are shared. The order of the sources does not matter. With --as-index the caches stand side by side in an index, one for each platform, which BuildKit itself does not import.",
  operands: [
    {
      name: "SRC",
      description: "Caches to merge",
      kind: "location",
      repeat: true,
    },
    { name: "DST", description: "Where to write the result", kind: "location" },
  ],
  options: [
    {
      name: "to",
      value: "SHAPE",
      choices: [...CACHE_SHAPES, "auto"],
      description:
        "Shape to write (default image-manifest); auto takes the first source's",
    },
    {
      name: "tag",
      short: "t",
      value: "NAME",
      repeat: true,
      description: "Name of the result, a tag or a full image name",
    },
    {
      name: "as-index",
      description: "Write an index of one cache for each platform",
    },
    {
      name: "platform",
      value: "OS/ARCH[/VARIANT]",
      repeat: true,
      description:
        "With --as-index: the platform of each source, in their order",
    },
    {
      name: "dry-run",
      description: "Say what would be merged and write nothing",
    },
  ],
  examples: [
    {
      command: "cacheport merge ./cache-amd64 ./cache-arm64 ./cache",
      description: "One cache for both platforms",
    },
    {
      command:
        "cacheport merge registry.example/app/cache:job-1 registry.example/app/cache:job-2 registry.example/app/cache:main",
      description: "The caches of two jobs",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const target = locateTarget(args.operand(args.operands.length - 1));
    for (const note of target.attributes?.notes ?? []) context.note(note);
    const stores: Store[] = [];
    try {
      const sets: { store: Store; set: CacheSet }[] = [];
      let entry: NamedEntry | undefined;
      for (const text of args.operands.slice(0, -1)) {
        const { store, query } = await openSource(text, settings, {
          near: folderNear(target),
        });
        stores.push(store);
        const resolved = await store.resolve(query);
        entry ??= resolved.entry;
        sets.push({
          store,
          set: await readCache(store, resolved.descriptor, settings),
        });
      }
      const names = chooseNames(
        args.values("tag"),
        locationName(target),
        entry,
      );
      const sources = sets.flatMap(({ store, set }) =>
        set.caches.map((cache) => ({ store, cache })),
      );
      const result = await merge(
        context,
        args,
        settings,
        sources,
        target,
        names,
      );
      if (!result) context.note("skipping cache export for empty result");
      const value = {
        ...transferResult(
          result?.descriptor,
          result?.shape ?? null,
          result ? nameTexts(names) : [],
          result?.counts ?? NOTHING,
        ),
        sources: sets.map(({ set }) => ({
          digest: set.descriptor.digest,
          shape: set.shape,
        })),
        dryRun: args.flag("dry-run"),
      };
      const verb = value.dryRun ? "would merge" : "merged";
      await printTransfer(context, target, value, () =>
        result
          ? formatTransfer(
              value,
              [[verb, `${sources.length} caches -> ${result.shape}`]],
              context,
            )
          : "",
      );
    } finally {
      await Promise.all(stores.map((store) => store.close()));
    }
  },
};

/** What a merge made, or would make. */
interface Merged {
  descriptor: Descriptor;
  shape: ReadableShape;
  counts: TransferCounts;
}

async function merge(
  context: CommandContext,
  args: Arguments,
  settings: StoreSettings,
  sources: readonly CacheSource[],
  target: Location,
  names: readonly NameUpdate[],
): Promise<Merged | undefined> {
  const platforms = sourcePlatforms(args, sources);
  const first = sources[0]?.cache.shape;
  const to = args.value("to") ?? "image-manifest";
  const shapes = shapesToTry(first, to as CacheShape | "auto");
  if (args.flag("dry-run")) {
    const plan = platforms
      ? planIndex(sources, platforms)
      : planMerge(sources, shapes[0]);
    return plan && { ...plan, counts: NOTHING };
  }
  const writer = await openWriter(target, settings);
  try {
    const options = { ...settings, progress: context.progress, names };
    return platforms
      ? await indexInto(sources, platforms, writer, options)
      : await mergeInto(sources, shapes, writer, options);
  } finally {
    await writer.close();
  }
}

/** The platform of each source for --as-index; undefined without that option. */
function sourcePlatforms(
  args: Arguments,
  sources: readonly CacheSource[],
): (Platform | undefined)[] | undefined {
  const given = args.values("platform");
  if (!args.flag("as-index")) {
    if (given.length === 0) return undefined;
    throw new CacheportError(
      "USAGE",
      "Cannot use --platform here: it goes with --as-index",
    );
  }
  if (args.value("to") !== undefined) {
    throw new CacheportError(
      "USAGE",
      "Cannot use --to with --as-index: its caches are image manifests",
    );
  }
  if (given.length > 0 && given.length !== sources.length) {
    throw new CacheportError(
      "USAGE",
      `Cannot name the platforms of ${sources.length} caches with ${given.length} --platform options`,
      { hint: "Give one for each source, in their order" },
    );
  }
  const local = localPlatform("linux", arch());
  return sources.map(({ cache }, position) => {
    const text = given[position];
    return text === undefined ? cache.platform : parsePlatform(text, local);
  });
}
