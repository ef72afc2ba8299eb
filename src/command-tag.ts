/** `cacheport tag`: further names for content that is there. */
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { EntryName, NameUpdate, Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import { entryLabel, parseEntryName } from "./layout-index.ts";
import type { Location } from "./location.ts";
import { locationQuery, openSource, openWriter, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { canonicalName, isTag, normalizeReference } from "./reference.ts";
import { copyContent } from "./copy.ts";
import { noProgress } from "./progress.ts";
import { firstOf, meaningOf, nameIfAbsent } from "./seed.ts";
import type { PresentName } from "./seed.ts";
import { nameType } from "./walk.ts";
import { resolveSource } from "./location-source.ts";
import type { ResolvedSource } from "./location-source.ts";
import { nameTexts } from "./location-names.ts";
import { formatWritten, TargetBefore } from "./cli-target.ts";
import type { Written } from "./cli-target.ts";
import { printable } from "./cli-text.ts";
import { completeHint } from "./cli-hints.ts";

/** An archive that cannot be named in place is not unpacked to find that out. */
const ONLY_DOCUMENTS = { documentsOnly: true };

const DRY_RUN = {
  name: "dry-run",
  description: "Say what would be done and change nothing",
} as const;

/** `cacheport tag LOC NAME...`: further names for one thing. */
export const tagCommand = defineCommand({
  name: "tag",
  summary: "Give further names to what a location names",
  description:
    "Names what LOC names once more, in the same place: in the index.json of a layout folder or an archive, or as a tag of the repository. A name that is there already is moved, or left as it is with --if-absent. No blob is touched.\n\nIn a registry NAME may be an image name of another repository of the same registry: the blobs are mounted there, and nothing is uploaded where the registry can do that.\n\nWith --first-of, LOC has no name, and the first of the names that is there is meant: so the cache of a new branch begins as that of the branch that it came from.",
  operands: [
    { name: "LOC", description: "What to name", kind: "location" },
    {
      name: "NAME",
      description: "A tag or a full image name",
      repeat: true,
      kind: "text",
    },
  ],
  options: [
    { name: "if-absent", description: "Leave a name that is there as it is" },
    {
      name: "first-of",
      value: "NAME,...",
      description: "Name the first of these that is there",
    },
    DRY_RUN,
  ],
  examples: [
    {
      command:
        "cacheport tag registry.example/app/cache my-branch --first-of main,develop --if-absent",
      description: "Begin a branch's cache with that of main, unless it has one",
    },
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
    const source = await openNamed(args, settings);
    const { store, location, descriptor } = source;
    try {
      if (location.kind === "stream") throw notInPlace(location);
      const { own, others } = sortNames(location, args.operands.slice(1));
      const how: HowToName = {
        settings,
        isDryRun: args.flag("dry-run"),
        onlyAbsent: args.flag("if-absent"),
      };
      const given = own.length > 0 ? [await nameHere(source, own, how)] : [];
      for (const other of others) given.push(await nameElsewhere(source, other, how));
      await printNames(context, descriptor, given);
    } catch (error) {
      throw completeHint(error, () => location.text, args);
    } finally {
      await store.close();
    }
  },
});

/** With what names are given. */
interface HowToName {
  settings: StoreSettings;
  isDryRun: boolean;
  onlyAbsent: boolean;
}

/** The names of one place: those that it got, and those that were there. */
interface Given {
  names: string[];
  present: PresentName[];
  written: Written;
}

/** What LOC names, or with `--first-of` the first of its names that is there. */
async function openNamed(
  args: Arguments<never, "first-of">,
  settings: StoreSettings,
): Promise<ResolvedSource> {
  const wanted = args.value("first-of");
  if (wanted === undefined)
    return await resolveSource(args.location(0), settings, undefined, ONLY_DOCUMENTS);
  const location = args.location(0);
  const { name, digest } = locationQuery(location);
  if (name !== undefined || digest !== undefined)
    throw new CacheportError(
      "USAGE",
      `Cannot use --first-of with "${location.text}": it has a name`,
      {
        hint: "Leave the name out: --first-of says which ones may be meant",
      },
    );
  const { store } = await openSource(location, settings, ONLY_DOCUMENTS);
  try {
    const names = wanted.split(",").filter((one) => one !== "");
    const { descriptor, entry } = await firstOf(store, names);
    return { store, location, descriptor: await nameType(store, descriptor, settings), entry };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Tells names of this place from those of other repositories of the same registry. */
function sortNames(
  location: Location,
  texts: readonly string[],
): { own: EntryName[]; others: Location[] } {
  const own: EntryName[] = [];
  const others: Location[] = [];
  for (const text of texts) {
    // In an object store any text is a name.
    if (location.kind === "object") {
      own.push({ refName: text });
      continue;
    }
    const name = checkedName(text);
    if (location.kind !== "registry" || name.imageName === undefined) {
      own.push(name);
      continue;
    }
    const reference = normalizeReference(text);
    const { domain, path } = location.reference;
    if (reference.domain !== domain)
      throw new CacheportError(
        "USAGE",
        `Cannot tag "${location.text}" as "${text}": that is another registry`,
        { hint: `Copy it: cacheport copy ${location.text} ${text}` },
      );
    if (reference.path === path) own.push(parseEntryName(reference.tag ?? "latest"));
    else
      others.push({
        kind: "registry",
        text,
        reference: { ...reference, tag: reference.tag ?? "latest" },
      });
  }
  return { own, others };
}

async function nameHere(
  { store, location, descriptor }: ResolvedSource,
  names: readonly EntryName[],
  { settings, isDryRun, onlyAbsent }: HowToName,
): Promise<Given> {
  const before = new TargetBefore(location);
  const present: PresentName[] = [];
  let given = names;
  if (isDryRun) {
    if (onlyAbsent) {
      for (const name of names) present.push(...(await presentName(store, name)));
      given = without(names, present);
    }
    await before.lookUp(given.map(setName), settings);
  } else {
    const writer = await openWriter(location, settings);
    try {
      if (onlyAbsent) {
        const options = { limit: settings.limits.config, signal: settings.signal };
        for (const name of names) {
          const taken = await nameIfAbsent(store, writer, descriptor, name, options);
          if (taken) present.push(taken);
        }
        given = without(names, present);
      } else {
        const read = (): Promise<Uint8Array> => store.read(descriptor, settings.limits.config);
        await before.lookUp(names.map(setName), settings, writer);
        await writer.setNames(descriptor, names, read, { ...settings, onNames: before.onNames });
      }
    } finally {
      await writer.close();
    }
  }
  const updates = given.map(setName);
  const written = before.written([{ descriptor, names: updates }]);
  return { names: nameTexts(updates), present, written };
}

/** Names content in another repository, where its blobs are mounted. */
async function nameElsewhere(
  { store, descriptor }: ResolvedSource,
  target: Location,
  { settings, isDryRun, onlyAbsent }: HowToName,
): Promise<Given> {
  const before = new TargetBefore(target);
  const name = parseEntryName(locationQuery(target).name ?? "latest");
  const updates = [setName(name)];
  const writer = await openWriter(target, settings);
  try {
    await before.lookUp(updates, settings, writer);
    const taken = onlyAbsent ? await namedThere(target, name, settings) : undefined;
    const written = before.written([{ descriptor, names: updates }]);
    if (taken)
      return {
        names: [],
        present: [{ ...taken, name: target.text }],
        written: { ...written, moved: [] },
      };
    if (!isDryRun) {
      const roots = [{ descriptor, names: updates }];
      await copyContent(store, roots, writer, { ...settings, progress: noProgress });
    }
    return { names: [target.text], present: [], written };
  } finally {
    await writer.close();
  }
}

async function namedThere(
  target: Location,
  name: EntryName,
  settings: StoreSettings,
): Promise<PresentName | undefined> {
  const { store } = await openSource(target, settings);
  try {
    return (await presentName(store, name))[0];
  } finally {
    await store.close();
  }
}

async function presentName(store: Store, name: EntryName): Promise<PresentName[]> {
  const label = entryLabel(name) ?? "";
  const digest = await meaningOf(store, label);
  return digest === undefined ? [] : [{ name: label, digest }];
}

function without(names: readonly EntryName[], present: readonly PresentName[]): EntryName[] {
  const taken = new Set(present.map(({ name }) => name));
  return names.filter((name) => !taken.has(entryLabel(name) ?? ""));
}

async function printNames(
  context: CommandContext,
  { mediaType, digest, size }: Descriptor,
  given: readonly Given[],
): Promise<void> {
  const names = given.flatMap((one) => one.names);
  const present = given.flatMap((one) => one.present);
  const [first] = given as [Given];
  const moved = given.flatMap(({ written }) => written.moved);
  const value = { mediaType, digest, size, names, present, ...first.written, moved };
  await context.result(value, () => {
    const lines = given
      .filter((one) => one.names.length > 0)
      .flatMap(({ written }) => formatWritten(written))
      .map(([label, text]) => `${label}: ${printable(text)}\n`);
    return [
      ...names.map((name) => `${name} ${digest}\n`),
      ...present.map((one) => `${one.name} ${one.digest} is there already\n`),
      ...lines,
    ].join("");
  });
}

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

function notInPlace({ text }: Location): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot tag "${text}": standard input cannot be changed in place`,
    {
      hint: "Copy it to where it is to be under the name that you want: cacheport copy - LAYOUT:NAME",
    },
  );
}
