/** `cacheport untag`: names taken away, and manifests of a registry deleted. */
import { defineCommand } from "./cli-command.ts";
import { deletesManifests } from "./content-store.ts";
import type { NamedEntry, NameRemoval, Store } from "./content-store.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { namerOf } from "./expire.ts";
import { entryLabel, matchesName } from "./layout-index.ts";
import type { Location } from "./location.ts";
import { locationQuery, openSource, openWriter, storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";

/** A name that is to go. */
interface Removal extends NameRemoval {
  location: Location;
}

/** `cacheport untag LOC...`: removes names. */
export const untagCommand = defineCommand({
  name: "untag",
  summary: "Remove names from a layout, an archive, a repository or an object store",
  description:
    "Removes the name that each LOC ends with. In a layout folder or an archive the entry goes from index.json; its content stays until gc, or until an archive is written anew. LAYOUT@DIGEST removes every entry for that digest, those without a name too. In a registry the tag is deleted, in the way that the registry has for it, and REPOSITORY@DIGEST deletes a manifest that no tag and no other manifest names; where a registry deletes nothing the exit code is 5. All names are looked up before the first one is removed.",
  operands: [
    {
      name: "LOC",
      description: "A location with a name",
      repeat: true,
      kind: "location",
    },
  ],
  options: [{ name: "dry-run", description: "Say what would be done and change nothing" }],
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
  if (location.kind === "stream") throw notInPlace(location);
  const { name, digest: wanted } = locationQuery(location);
  const isRegistry = location.kind === "registry";
  if (name === undefined && wanted === undefined) {
    throw new CacheportError("USAGE", `Cannot untag "${text}": it ends with no name`, {
      hint: `"cacheport ls ${text}" shows the names`,
    });
  }
  const { store } = await openSource(location, settings);
  try {
    const isObject = location.kind === "object";
    const isIndex = !isRegistry && !isObject;
    const all = isIndex ? await store.list() : [];
    const broken = all.find(
      (entry) => entry.problem !== undefined && name !== undefined && matchesName(entry, name),
    );
    // Of an entry that cannot be used nothing is asked but that it goes.
    const { descriptor, entry: found } = broken
      ? { descriptor: broken.descriptor, entry: broken }
      : await store.resolve({ name, digest: wanted });
    const { digest } = descriptor;
    const listed = isObject && found ? [found] : all;
    const entries = listed.filter(
      (entry) =>
        isObject ||
        (entry.descriptor.digest === digest && (name === undefined || matchesName(entry, name))),
    );
    if (name === undefined && isRegistry) await refuseNeeded(store, location, digest, settings);
    refuseSeveral(text, name, entries);
    if (!isRegistry && entries.length === 0) {
      throw new CacheportError(
        "NAME_NOT_FOUND",
        isObject
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

/** A manifest of a registry is deleted for all that name it: so nothing may. */
async function refuseNeeded(
  store: Store,
  { text }: Location,
  digest: Digest,
  settings: StoreSettings,
): Promise<void> {
  const namer = await namerOf(store, digest, settings);
  if (namer === undefined) return;
  throw new CacheportError("USAGE", `Cannot delete "${text}": ${namer} needs it`, {
    hint: "Remove that first: cacheport untag takes tags and digests",
  });
}

async function removeName(removal: Removal, settings: StoreSettings): Promise<void> {
  const { location } = removal;
  const writer = await openWriter(location, settings);
  try {
    if (removal.name.startsWith("@") && deletesManifests(writer)) {
      await writer.deleteManifest(removal.digest);
      return;
    }
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

function notInPlace({ text }: Location): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot untag "${text}": standard input cannot be changed in place`,
    { hint: "Write it to a file first" },
  );
}
