/** `cacheport tag` and `cacheport untag`: names of content that is there, given and removed. */
import { defineCommand } from "./cli-command.ts";
import type { EntryName, NamedEntry, NameRemoval, NameUpdate, Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import { entryLabel, matchesName, parseEntryName } from "./layout-index.ts";
import type { Location } from "./location.ts";
import { locationQuery, openSource, openWriter, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { canonicalName, isTag } from "./reference.ts";
import { resolveSource } from "./location-source.ts";
import { nameTexts } from "./location-names.ts";
import { formatWritten, TargetBefore } from "./cli-target.ts";
import { printable } from "./cli-text.ts";
import { completeHint } from "./cli-hints.ts";

const DRY_RUN = {
  name: "dry-run",
  description: "Say what would be done and change nothing",
} as const;

/** `cacheport tag LOC NAME...`: further names for one thing. */
export const tagCommand = defineCommand({
  name: "tag",
  summary: "Give further names to what a location names",
  description:
    "Names what LOC names once more, in the same place: in the index.json of a layout folder or an archive, or as a tag of the repository. A name that is there already is moved. No blob is touched.",
  operands: [
    { name: "LOC", description: "What to name", kind: "location" },
    {
      name: "NAME",
      description: "A tag or, in a layout, a full image name",
      repeat: true,
      kind: "text",
    },
  ],
  options: [DRY_RUN],
  examples: [
    {
      command: "cacheport tag ./cache:main main-backup",
      description: "A second name in a cache folder",
    },
    {
      command: "cacheport tag registry.example/app:1.2.3 1.2 1 latest",
      description: "Three more tags in a repository",
    },
    {
      command: "cacheport tag ./layout@sha256:... registry.example/app:1",
      description: "A name for what has none",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const isObject = args.location(0).kind === "object";
    const given = args.operands.slice(1);
    // In an object store any text is a name.
    const names = isObject ? given.map((refName) => ({ refName })) : given.map(checkedName);
    const source = await resolveSource(args.location(0), settings, undefined);
    const { store, location } = source;
    // The entry's own annotations go with it.
    const descriptor = { ...source.descriptor };
    const before = new TargetBefore(location);
    try {
      refuseImageNames(location, names);
      if (args.flag("dry-run")) await before.lookUp(names.map(setName), settings);
      else await giveNames(store, location, descriptor, names, settings, before);
    } catch (error) {
      throw completeHint(error, () => location.text, args);
    } finally {
      await store.close();
    }
    const { mediaType, digest, size } = descriptor;
    const updates = names.map(setName);
    const texts = nameTexts(updates);
    const written = before.written([{ descriptor, names: updates }]);
    await context.result({ mediaType, digest, size, names: texts, ...written }, () =>
      [
        ...texts.map((text) => `${text} ${digest}\n`),
        ...formatWritten(written).map(([label, text]) => `${label}: ${printable(text)}\n`),
      ].join(""),
    );
  },
});

function setName(name: EntryName): NameUpdate {
  return { kind: "set", name };
}

/** @throws {CacheportError} REFERENCE_INVALID */
function checkedName(text: string): EntryName {
  if (isTag(text) || canonicalName(text) !== undefined) return parseEntryName(text);
  throw new CacheportError(
    "REFERENCE_INVALID",
    `Cannot give the name ${JSON.stringify(text.slice(0, 200))}: it is neither a tag nor an image name`,
    {
      hint: "A tag has up to 128 letters, digits, underscores, dots and dashes; an image name looks like registry.example/app:1.0",
    },
  );
}

/** In a registry the repository is the name; an image name could only be meant for another one. */
function refuseImageNames(location: Location, names: readonly EntryName[]): void {
  const full = names.find(({ imageName }) => imageName !== undefined);
  if (location.kind !== "registry" || !full) return;
  throw new CacheportError(
    "USAGE",
    `Cannot tag "${location.text}" as "${full.imageName}": a repository has tags only`,
    {
      hint: `Give a tag, or copy it: cacheport copy ${location.text} ${full.imageName}`,
    },
  );
}

async function giveNames(
  store: Store,
  location: Location,
  descriptor: Descriptor,
  names: readonly EntryName[],
  settings: StoreSettings,
  before: TargetBefore,
): Promise<void> {
  if (location.kind === "stream") throw notInPlace("tag", location);
  const writer = await openWriter(location, settings);
  try {
    const read = (): Promise<Uint8Array> => store.read(descriptor, settings.limits.config);
    await before.lookUp(names.map(setName), settings, writer);
    await writer.setNames(descriptor, names, read, { ...settings, onNames: before.onNames });
  } finally {
    await writer.close();
  }
}

function notInPlace(verb: string, { text }: Location): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot ${verb} "${text}": standard input cannot be changed in place`,
    {
      hint: "Copy it to where it is to be under the name that you want: cacheport copy - LAYOUT:NAME",
    },
  );
}

/** A name that is to go. */
interface Removal extends NameRemoval {
  location: Location;
}

/** `cacheport untag LOC...`: removes names. */
export const untagCommand = defineCommand({
  name: "untag",
  summary: "Remove names from a layout or a repository",
  description:
    "Removes the name that each LOC ends with. In a layout folder or an archive the entry goes from index.json; its content stays until gc, or until an archive is written anew. LAYOUT@DIGEST removes every entry for that digest, those without a name too. In a registry the tag is deleted, where the registry allows it. All names are looked up before the first one is removed.",
  operands: [
    {
      name: "LOC",
      description: "A location with a name",
      repeat: true,
      kind: "location",
    },
  ],
  options: [DRY_RUN],
  examples: [
    {
      command: "cacheport untag ./cache:feature",
      description: "Forget a branch's cache; gc then frees its blobs",
    },
    {
      command: "cacheport untag registry.example/app/cache:old",
      description: "Delete a tag in a registry",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const removals: Removal[] = [];
    for (const location of args.locations) removals.push(await findRemoval(location, settings));
    if (!args.flag("dry-run")) {
      for (const removal of removals) await removeName(removal, settings);
    }
    const removed = removals.map(({ name }) => name);
    const digests = new Set(removals.map(({ digest }) => digest));
    const value = {
      removed,
      // One for all names, or null.
      digest: digests.size === 1 ? [...digests][0] : null,
      entries: removals.map(({ name, digest }) => ({ name, digest })),
    };
    await context.result(value, () =>
      removals.map(({ name, digest }) => `${name} ${digest}\n`).join(""),
    );
  },
});

/** @throws {CacheportError} USAGE without a name, NOT_SUPPORTED, NAME_NOT_FOUND, NAME_AMBIGUOUS */
async function findRemoval(location: Location, settings: StoreSettings): Promise<Removal> {
  const { text } = location;
  if (location.kind === "stream") throw notInPlace("untag", location);
  const { name, digest: wanted } = locationQuery(location);
  const isRegistry = location.kind === "registry";
  if (name === undefined && (wanted === undefined || isRegistry)) {
    throw new CacheportError("USAGE", `Cannot untag "${text}": it ends with no name`, {
      hint: `"cacheport ls ${text}" shows the names`,
    });
  }
  const { store } = await openSource(location, settings);
  try {
    const { descriptor, entry: found } = await store.resolve({ name, digest: wanted });
    const { digest } = descriptor;
    const all =
      isRegistry || location.kind === "object"
        ? []
        : (await store.list()).filter(
            (entry) =>
              entry.descriptor.digest === digest &&
              (name === undefined || matchesName(entry, name)),
          );
    const entries = location.kind === "object" && found ? [found] : all;
    refuseSeveral(text, name, entries);
    if (!isRegistry && entries.length === 0) {
      throw new CacheportError(
        "NAME_NOT_FOUND",
        location.kind === "object"
          ? `Cannot untag "${text}": it is not one name`
          : `Cannot untag "${text}": no entry of index.json has it`,
      );
    }
    return { location, name: name ?? `@${digest}`, digest, entries };
  } finally {
    await store.close();
  }
}

/** A bare tag may be the tag of several full names; which one is meant is not to be guessed. */
function refuseSeveral(
  text: string,
  name: string | undefined,
  entries: readonly NamedEntry[],
): void {
  if (name === undefined) return;
  const labels = new Set(entries.map(entryLabel));
  if (labels.size < 2) return;
  throw new CacheportError(
    "NAME_AMBIGUOUS",
    `Cannot untag "${text}": ${labels.size} entries have that tag`,
    { hint: `Give a full name: ${[...labels].join(", ")}` },
  );
}

async function removeName(removal: Removal, settings: StoreSettings): Promise<void> {
  const { location } = removal;
  const writer = await openWriter(location, settings);
  try {
    if (await writer.removeName(removal)) return;
    throw new CacheportError(
      "NAME_CHANGED",
      `Cannot untag "${location.text}": another process has changed it meanwhile`,
      { hint: "Run the command again to work on what is there now" },
    );
  } finally {
    await writer.close();
  }
}
