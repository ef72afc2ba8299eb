/** How content is to be called in its target. */
import type { EntryName, NamedEntry, NameUpdate } from "./content-store.ts";
import { parseEntryName } from "./layout-index.ts";

/**
 * Chooses the names of a root: those that the user gave, else the source's own,
 * else `latest`.
 *
 * @param tags What `--tag` was given, any number of times.
 * @param locationName The name that stands in the target's location.
 * @param entry The source's entry.
 */
export function chooseNames(
  tags: readonly string[],
  locationName: EntryName | undefined,
  entry: EntryName | undefined,
): NameUpdate[] {
  const given = [
    ...(locationName ? [locationName] : []),
    ...tags.map(parseEntryName),
  ];
  if (given.length > 0) return given.map((name) => ({ kind: "set", name }));
  const { refName, imageName } = entry ?? {};
  const own = refName ?? imageName;
  return [
    {
      kind: "set",
      name:
        own === undefined ? parseEntryName("latest") : { refName, imageName },
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
