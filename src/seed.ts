/**
 * Names that are given where there is none yet: how the cache of a new branch begins as that
 * of another one, and two jobs that do so at once do not undo each other.
 */
import type {
  ContentReader,
  ContentWriter,
  EntryName,
  NameReader,
  NameWriter,
  Resolved,
} from "./content-store.ts";
import { namesIfAbsent } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { entryLabel, sameNameFinder } from "./layout-index.ts";

/** A name that was there already. */
export interface PresentName {
  name: string;
  digest: Digest;
}

/**
 * Resolves the first of some names that is there.
 *
 * @throws {CacheportError} NAME_NOT_FOUND when none is, NAME_AMBIGUOUS
 */
export async function firstOf(
  store: NameReader & { readonly location: string },
  names: readonly string[],
): Promise<Resolved> {
  for (const name of names) {
    try {
      return await store.resolve({ name });
    } catch (error) {
      if (!isCacheportError(error, "NAME_NOT_FOUND", "LOCATION_NOT_FOUND")) throw error;
    }
  }
  const list = names.map((name) => JSON.stringify(name)).join(", ");
  throw new CacheportError("NAME_NOT_FOUND", `Cannot find any of ${list} in "${store.location}"`);
}

/**
 * Gives a name to content that the place holds, unless something has it.
 *
 * A layout is looked at under its lock. A registry is asked first and told not to replace
 * (`If-None-Match`), which most registries pass over: between the two another may come.
 *
 * @returns What has the name already, else undefined.
 * @throws {CacheportError} whatever reading and writing names throws
 */
export async function nameIfAbsent(
  store: ContentReader & NameReader,
  writer: ContentWriter & NameWriter,
  descriptor: Descriptor,
  name: EntryName,
  options: { limit: number; signal: AbortSignal },
): Promise<PresentName | undefined> {
  const label = entryLabel(name) ?? "";
  const read = (): Promise<Uint8Array> => store.read(descriptor, options.limit);
  if (namesIfAbsent(writer)) {
    const root = { descriptor, bytes: await read() };
    const present = await writer.publishIfAbsent(root, label, options.signal);
    return present && { name: label, digest: present.digest };
  }
  const present = await meaningOf(store, label);
  if (present !== undefined) return { name: label, digest: present };
  let taken: PresentName | undefined;
  try {
    await writer.setNames(descriptor, [name], read, {
      signal: options.signal,
      onNames: (entries) => {
        const entry = sameNameFinder(entries)(name);
        if (!entry) return;
        taken = { name: label, digest: entry.descriptor.digest };
        // Whoever throws here stops the write before anything is displaced.
        throw new CacheportError("NAME_CHANGED", `Cannot give the name "${label}": it is there`);
      },
    });
  } catch (error) {
    if (!taken) throw error;
  }
  return taken;
}

/** What a name stands for; undefined when it is not there. */
export async function meaningOf(store: NameReader, name: string): Promise<Digest | undefined> {
  try {
    return (await store.resolve({ name })).descriptor.digest;
  } catch (error) {
    if (isCacheportError(error, "NAME_NOT_FOUND", "LOCATION_NOT_FOUND")) return undefined;
    throw error;
  }
}
