/** How content is to be called in its target. */
import type { EntryName, NamedEntry, NameUpdate } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import { entryLabel, parseEntryName } from "./layout-index.ts";
import type { Location } from "./location.ts";
import { DEFAULT_NAME, splitNames } from "./object-place.ts";
import { formatReference, isTag, parseReference } from "./reference.ts";

/**
 * Chooses the names of a root: those that the user gave, else the source's own,
 * else `latest`.
 *
 * @param tags What `--tag` was given, any number of times.
 * @param locationName The name that stands in the target's location.
 * @param entry The source's entry.
 * @param usual What it is called there otherwise, whatever the source calls it.
 */
export function chooseNames(
  tags: readonly string[],
  locationName: EntryName | undefined,
  entry: EntryName | undefined,
  usual?: EntryName,
): NameUpdate[] {
  const given = [...(locationName ? [locationName] : []), ...tags.map(parseEntryName)];
  if (given.length > 0) return given.map((name) => ({ kind: "set", name }));
  if (usual) return [{ kind: "set", name: usual }];
  const { refName, imageName } = entry ?? {};
  // What an object store calls a cache that nobody named, is the latest elsewhere.
  const own = refName === DEFAULT_NAME ? undefined : (refName ?? imageName);
  return [
    {
      kind: "set",
      name: own === undefined ? parseEntryName("latest") : { refName, imageName },
    },
  ];
}

/** The update that gives an entry its own name in another store: none is kept as none. */
export function keepName({ refName, imageName }: NamedEntry): NameUpdate {
  return refName === undefined && imageName === undefined
    ? { kind: "list" }
    : { kind: "set", name: { refName, imageName } };
}

/** The names of updates as text, for results and messages. */
export function nameTexts(updates: readonly NameUpdate[]): string[] {
  return updates.flatMap((update) => {
    if (update.kind === "list") return [];
    const name = update.kind === "set" ? update.name : update.entry;
    return name.imageName ?? name.refName ?? [];
  });
}

/**
 * Fits names to their target before anything is moved: a repository has tags only,
 * so an image name that content has elsewhere becomes its tag. Of what the user
 * gave, an image name must be that of the repository.
 *
 * @param tags What `--tag` was given.
 * @throws {CacheportError} USAGE for a name of another repository, REFERENCE_INVALID
 *   for one that holds no tag
 */
export function fitNames(
  updates: readonly NameUpdate[],
  target: Location,
  tags: readonly string[] = [],
): NameUpdate[] {
  if (target.kind === "object")
    return updates.flatMap((update) => objectNames(update, target, tags));
  if (target.kind !== "registry") return [...updates];
  const { domain, path } = target.reference;
  const repository = formatReference({ domain, path, tag: null, digest: null });
  for (const { imageName } of tags.map(parseEntryName)) {
    if (imageName === undefined || imageName.startsWith(`${repository}:`)) continue;
    throw new CacheportError(
      "USAGE",
      `Cannot give the name "${imageName}" in "${repository}": a repository has tags only`,
      { hint: `Give a tag, or ${imageName} as the target` },
    );
  }
  return updates.map((update) =>
    update.kind === "set"
      ? { kind: "set", name: { refName: tagIn(update.name, repository) } }
      : update,
  );
}

/**
 * The names of a list. What the user gave is a name as it stands, also where it looks like
 * that of an image; of an image name that content has elsewhere the tag is left.
 */
function objectNames(
  update: NameUpdate,
  { place }: Extract<Location, { kind: "object" }>,
  given: readonly string[],
): NameUpdate[] {
  if (update.kind !== "set") return [update];
  const { refName, imageName } = update.name;
  const own = given.find((text) => {
    const parsed = parseEntryName(text);
    return parsed.imageName === imageName && parsed.refName === refName;
  });
  const text = own ?? refName ?? imageName ?? DEFAULT_NAME;
  return splitNames(place.kind, text).map((name) => ({ kind: "set", name: { refName: name } }));
}

/** The tag that an entry gets in a repository. */
function tagIn(entry: EntryName, repository: string): string {
  const { refName, imageName } = entry;
  if (refName !== undefined && isTag(refName)) return refName;
  for (const name of [imageName, refName]) {
    const tag = name === undefined ? null : tagOfName(name);
    if (tag !== null) return tag;
  }
  throw new CacheportError(
    "REFERENCE_INVALID",
    `Cannot use the name "${entryLabel(entry)}" in "${repository}": it holds no tag`,
    { hint: "Give a tag with --tag" },
  );
}

function tagOfName(name: string): string | null {
  try {
    return parseReference(name).tag;
  } catch {
    return null;
  }
}

/**
 * Refuses to give one name to different contents, of which the last would win.
 *
 * @throws {CacheportError} NAME_AMBIGUOUS
 */
export function refuseClashes(
  roots: readonly { descriptor: Descriptor; names: readonly NameUpdate[] }[],
): void {
  const owners = new Map<string, string>();
  for (const { descriptor, names } of roots) {
    const { digest } = descriptor;
    for (const name of nameTexts(names)) {
      const owner = owners.get(name) ?? digest;
      owners.set(name, owner);
      if (owner === digest) continue;
      throw new CacheportError(
        "NAME_AMBIGUOUS",
        `Cannot copy all entries: both ${owner} and ${digest} would be called "${name}"`,
        { hint: "Copy them one by one, each with a --tag of its own" },
      );
    }
  }
}
