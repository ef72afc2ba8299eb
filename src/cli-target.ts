/**
 * Where a write goes and what it displaces: every command that writes says both, and its
 * JSON value has them as `to` and `moved`.
 */
import { readdirSync, statSync } from "node:fs";
import { mapLimit } from "./concurrency.ts";
import type {
  ContentWriter,
  EntryName,
  NamedEntry,
  NameReader,
  NameUpdate,
} from "./content-store.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import { entryLabel, sameNameFinder } from "./layout-index.ts";
import { nameTexts } from "./location-names.ts";
import { openSource } from "./location-open.ts";
import { placeText as objectText } from "./object-place.ts";
import type { StoreSettings } from "./location-settings.ts";
import type { Location } from "./location.ts";
import { formatReference } from "./reference.ts";

/** What a write's JSON value says of its target. */
export interface Written {
  to: {
    /** `folder`, `archive`, `registry`, `stream` or the kind of an object store. */
    kind: string;
    /** Without names. */
    location: string;
    /** Nothing was there before: no folder, no archive, none of these tags. */
    new: boolean;
  };
  /** Names that meant other content before, in the order in which they were given. */
  moved: { name: string; from: Digest; to: Digest }[];
}

/** Names and what they are for. */
export interface WrittenRoot {
  descriptor: { digest: Digest };
  names: readonly NameUpdate[];
}

/** A target as it was before a write, as far as the names that are written are concerned. */
export class TargetBefore {
  readonly #location: Location;
  readonly #isNewPlace: boolean;
  #entries: readonly NamedEntry[] = [];

  /** To be made before the target is opened for writing. */
  constructor(location: Location) {
    this.#location = location;
    this.#isNewPlace = isNewPlace(location);
  }

  /**
   * Takes the names that a writer's `publish` tells: they are those that its own names are
   * applied to, whatever else writes there meanwhile.
   */
  readonly onNames = (entries: readonly NamedEntry[]): void => {
    this.#entries = entries;
  };

  /**
   * Asks what names mean now, where no writer's `publish` will tell: of a registry before
   * a write, of every target when nothing is to be written. A target that does not tell is
   * no reason not to write.
   *
   * @param writer Of the target; without one the target is opened for reading.
   */
  async lookUp(
    names: readonly NameUpdate[],
    settings: StoreSettings,
    writer?: ContentWriter,
  ): Promise<void> {
    if (this.#isNewPlace) return;
    try {
      if (writer) {
        if ("resolve" in writer)
          this.#entries = await meanings(writer as Resolver, names, settings);
        return;
      }
      const { store } = await openSource(this.#location, settings, { documentsOnly: true });
      try {
        const isPath = this.#location.kind === "directory" || this.#location.kind === "archive";
        this.#entries = isPath ? await store.list() : await meanings(store, names, settings);
      } finally {
        await store.close();
      }
    } catch (error) {
      if (settings.signal?.aborted || !isCacheportError(error)) throw error;
    }
  }

  /** What writing these roots has done, or would do. */
  written(roots: readonly WrittenRoot[]): Written {
    const moved: Written["moved"] = [];
    let isKnown = false;
    const find = sameNameFinder(this.#entries);
    for (const { descriptor, names } of roots) {
      for (const update of names) {
        const from = meaning(update, find);
        if (from === undefined) continue;
        isKnown = true;
        const name = nameTexts([update])[0];
        if (name !== undefined && from !== descriptor.digest)
          moved.push({ name, from, to: descriptor.digest });
      }
    }
    const { kind } = this.#location;
    const isNew = kind === "registry" || kind === "object" ? !isKnown : this.#isNewPlace;
    return {
      to: { kind: placeKind(this.#location), location: placeText(this.#location), new: isNew },
      moved,
    };
  }
}

/** What a name meant before. */
function meaning(
  update: NameUpdate,
  find: (name: EntryName) => NamedEntry | undefined,
): Digest | undefined {
  if (update.kind === "list") return undefined;
  const entry = update.kind === "replace" ? update.entry : find(update.name);
  return entry?.descriptor.digest;
}

/** What can be asked for a name. */
type Resolver = Pick<NameReader, "meaning" | "resolve">;

/** Tells whether nothing is there that a write to a target could displace. */
export async function isNewTarget(location: Location, settings: StoreSettings): Promise<boolean> {
  if (location.kind === "stream" || isNewPlace(location)) return true;
  try {
    const { store, query } = await openSource(location, settings);
    try {
      await store.resolve(query);
      return false;
    } finally {
      await store.close();
    }
  } catch (error) {
    if (settings.signal?.aborted || !isCacheportError(error)) throw error;
    return error.code !== "NAME_AMBIGUOUS";
  }
}

/** What was written where, as lines for people. */
export function formatWritten({ to, moved }: Written): [string, string][] {
  const isName = ["s3", "azblob", "gha"].includes(to.kind);
  const mark = to.kind === "registry" ? "new tag" : isName ? "new name" : "new";
  return [
    ["to", `${to.kind} ${to.location}${to.new ? ` (${mark})` : ""}`],
    ...moved.map(({ name, from, to: now }): [string, string] => [name, `was ${from}, now ${now}`]),
  ];
}

/** The entries that names stand for; those of updates that know it already are not asked for. */
async function meanings(
  store: Resolver,
  names: readonly NameUpdate[],
  { jobs }: StoreSettings,
): Promise<NamedEntry[]> {
  const found = await mapLimit(names, jobs, async (update) => {
    const text = update.kind === "set" ? entryLabel(update.name) : null;
    if (update.kind !== "set" || text === null) return undefined;
    const digest = await meaningOf(store, text);
    return digest && { ...update.name, descriptor: { mediaType: "", digest, size: 0 } };
  });
  return found.filter((entry) => entry !== undefined);
}

async function meaningOf(store: Resolver, name: string): Promise<Digest | undefined> {
  if (store.meaning) return store.meaning(name);
  try {
    return (await store.resolve({ name })).descriptor.digest;
  } catch (error) {
    if (isCacheportError(error, "NAME_NOT_FOUND")) return undefined;
    throw error;
  }
}

/** Nothing is there that names could be in. */
function isNewPlace(location: Location): boolean {
  if (location.kind === "stream") return true;
  if (location.kind !== "directory" && location.kind !== "archive") return false;
  const { kind, path } = location;
  try {
    if (kind === "directory") return !readdirSync(path).includes("index.json");
    return statSync(path).size === 0;
  } catch {
    return true;
  }
}

const KINDS: Record<string, string> = { directory: "folder" };

function placeKind(location: Location): string {
  if (location.kind === "object") return location.place.kind;
  return KINDS[location.kind] ?? location.kind;
}

/** The place without what names something in it. */
function placeText(location: Location): string {
  switch (location.kind) {
    case "directory":
    case "archive":
      return location.path;
    case "registry": {
      const { domain, path } = location.reference;
      return formatReference({ domain, path, tag: null, digest: null });
    }
    case "object":
      return objectText(location.place, { names: false });
    default:
      return location.text;
  }
}
