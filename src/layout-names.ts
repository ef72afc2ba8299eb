/**
 * The names of a layout's entries: when two are the same, what an entry answers to, and
 * how names are given to many entries at once.
 *
 * Sources: OCI image-spec, annotations.md, "ref.name"; BuildKit client/ociindex/ociindex.go.
 */
import type { EntryName, NamedEntry, NameUpdate, Root } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import { changeEntry, makeEntry } from "./layout-entry.ts";
import type { IndexEntry } from "./layout-entry.ts";
import { canonicalName, isTag, normalizeReference } from "./reference.ts";

/** The annotations that name text becomes, as BuildKit writes them: a tag, or a full image name. */
export function parseEntryName(text: string): EntryName {
  const imageName = isTag(text) ? undefined : canonicalName(text);
  if (imageName === undefined) return { refName: text };
  const { tag, digest } = normalizeReference(imageName);
  return { refName: tag ?? `@${digest}`, imageName };
}

/** How an entry is called in messages and tables: its full name, else its ref.name, else null. */
export function entryLabel(entry: EntryName): string | null {
  return entry.imageName ?? entry.refName ?? null;
}

/** The tag that a full image name ends with. */
function tagOf(name: string | undefined): string | undefined {
  if (name === undefined || isTag(name)) return undefined;
  const canonical = canonicalName(name);
  return canonical === undefined ? undefined : (normalizeReference(canonical).tag ?? undefined);
}

/** The names of an entry that are full image names, in canonical form. */
function fullNames(entry: EntryName): string[] {
  return [entry.imageName, entry.refName]
    .filter((name) => name !== undefined && !isTag(name))
    .map((name) => canonicalName(name as string))
    .filter((name) => name !== undefined);
}

/** Tells whether an entry answers to a name: a bare tag, a full image name, or any other exact text. */
export function matchesName(entry: EntryName, name: string): boolean {
  if (!mayMatch(entry, name)) return false;
  if (entry.refName === name || entry.imageName === name) return true;
  if (isTag(name)) return tagOf(entry.imageName) === name || tagOf(entry.refName) === name;
  const canonical = canonicalName(name);
  return canonical !== undefined && fullNames(entry).includes(canonical);
}

/**
 * Tells whether an entry can answer to a name, without reading names as references: of a
 * layout's very many entries nearly all are told apart so. False is certain, true is not.
 */
function mayMatch({ refName, imageName }: EntryName, name: string): boolean {
  const [path, tag] = isTag(name) ? ["", name] : essence(name);
  const may = (text: string | undefined): boolean =>
    text !== undefined &&
    text.includes(path) &&
    (text.includes(tag) || (tag === LATEST && !namesTag(text)));
  return may(refName) || may(imageName);
}

/** The tag of an image name that says none. */
const LATEST = "latest";

/** What all spellings of an image name have in common: the end of its path, and the tag. */
function essence(name: string): [path: string, tag: string] {
  const at = name.indexOf("@");
  const named = at === -1 ? name : name.slice(0, at);
  const [path = "", tag] = named.slice(named.lastIndexOf("/") + 1).split(":");
  // With a digest the tag may be left out.
  return [path, tag ?? (at === -1 ? LATEST : "")];
}

/** Tells whether a name ends with a tag or a digest: has a colon that is no port's. */
function namesTag(text: string): boolean {
  return text.lastIndexOf(":") > text.lastIndexOf("/");
}

/** As many names as are looked for among all entries; for more a table is made of them. */
const FEW = 8;

/**
 * Finds among many entries the one that a name is the same as.
 *
 * @returns Undefined for a name that none of them has.
 */
export function sameNameFinder<T extends EntryName>(
  entries: readonly T[],
): (name: EntryName) => T | undefined {
  let asked = 0;
  let all: Map<string, T> | undefined;
  return (name) => {
    asked++;
    if (asked <= FEW)
      return findSame(firstByKey(entries.filter((one) => maySame(one, name))), name);
    all ??= firstByKey(entries);
    return findSame(all, name);
  };
}

/** The first of the entries that have a key of {@link sameKeys}. */
function firstByKey<T extends EntryName>(entries: readonly T[]): Map<string, T> {
  const first = new Map<string, T>();
  for (const entry of entries)
    for (const key of [pairKey(entry), ...fullNames(entry).map(fullKey)])
      if (!first.has(key)) first.set(key, entry);
  return first;
}

function findSame<T>(first: ReadonlyMap<string, T>, name: EntryName): T | undefined {
  for (const key of sameKeys(name)) if (first.has(key)) return first.get(key);
  return undefined;
}

/** Tells whether a name can be the same as that of an entry, as {@link mayMatch} does. */
function maySame(entry: EntryName, name: EntryName): boolean {
  if (isSamePair(entry, name)) return true;
  return name.imageName !== undefined && mayMatch(entry, name.imageName);
}

function isSamePair(a: EntryName, b: EntryName): boolean {
  return a.refName === b.refName && a.imageName === b.imageName;
}

/** Tells whether an update has to know of an entry; false is certain, true is not. */
function mayConcern(entry: IndexEntry, { digest }: Descriptor, update: NameUpdate): boolean {
  switch (update.kind) {
    case "list":
      return entry.descriptor.digest === digest;
    case "replace":
      return isSamePair(entry, update.entry);
    case "set": {
      const { refName, imageName } = update.name;
      if (maySame(entry, update.name)) return true;
      return imageName === undefined && refName !== undefined && mayMatch(entry, refName);
    }
  }
}

/** Entries that can be found by what they are called; a layout may have very many. */
export class NameTable {
  readonly #location: string;
  /** In their order; undefined where one has been dropped. */
  readonly #entries: (IndexEntry | undefined)[] = [];
  /** The positions of the entries that have a key of {@link keysOf}. */
  readonly #positions = new Map<string, Set<number>>();

  /**
   * @param location The layout as the user wrote it, for messages.
   * @param roots What will be applied; for a few updates only the entries that these can
   *   concern are put under their keys, which takes a tenth of the time.
   */
  constructor(entries: readonly IndexEntry[], location: string, roots: readonly Root[]) {
    this.#location = location;
    const updates = roots.flatMap(({ descriptor, names }) =>
      names.map((update) => ({ descriptor, update })),
    );
    const isFew = updates.length <= FEW;
    for (const entry of entries) {
      const isNeeded =
        !isFew || updates.some(({ descriptor, update }) => mayConcern(entry, descriptor, update));
      if (isNeeded) this.#put(this.#entries.length, entry);
      else this.#entries.push(entry);
    }
  }

  /** The entries as they are now. */
  toEntries(): IndexEntry[] {
    return this.#entries.filter((entry) => entry !== undefined);
  }

  /** @throws {CacheportError} as applyNames of layout-index.ts */
  apply(descriptor: Descriptor, update: NameUpdate): void {
    switch (update.kind) {
      case "list":
        if (this.#find([digestKey(descriptor)]).length === 0) this.#append(descriptor, {});
        return;
      case "set":
        return this.#set(descriptor, update.name);
      case "replace":
        return this.#replace(descriptor, update.entry);
    }
  }

  #set(descriptor: Descriptor, name: EntryName): void {
    const same = this.#find(sameKeys(name));
    this.#refuseSharedTag(descriptor, name, same.length > 0);
    const broken = same.find(({ entry }) => entry.problem !== undefined)?.entry;
    if (broken) {
      throw new CacheportError(
        "DOCUMENT_INVALID",
        `Cannot replace "${entryLabel(broken)}" in "${this.#location}": what it stands for is not known (${broken.problem})`,
        { hint: "Remove it first with cacheport untag, or choose another name" },
      );
    }
    const [first, ...others] = same;
    if (!first) return this.#append(descriptor, name);
    this.#put(first.position, makeEntry(descriptor, name));
    for (const { position } of others) this.#put(position, undefined);
  }

  #replace(descriptor: Descriptor, old: NamedEntry): void {
    const called = this.#find([pairKey(old)]);
    const isOf = ({ entry }: Place, { digest }: Descriptor): boolean =>
      entry.descriptor.digest === digest;
    const found = called.find((place) => isOf(place, old.descriptor));
    if (found) return this.#put(found.position, changeEntry(found.entry, descriptor));
    if (called.some((place) => isOf(place, descriptor))) return;
    throw new CacheportError(
      "NAME_CHANGED",
      `Cannot replace "${entryLabel(old) ?? old.descriptor.digest}" in "${this.#location}": another process has changed it meanwhile`,
      { hint: "Run the command again to work on what is there now" },
    );
  }

  #refuseSharedTag(descriptor: Descriptor, name: EntryName, isThere: boolean): void {
    if (name.imageName !== undefined || name.refName === undefined || isThere) return;
    const owner = this.#find(answerKeys(name.refName)).find(
      ({ entry }) => entry.descriptor.digest !== descriptor.digest,
    );
    if (!owner) return;
    throw new CacheportError(
      "NAME_AMBIGUOUS",
      `Cannot give the name "${name.refName}" in "${this.#location}": it is the tag of ${entryLabel(owner.entry)}`,
      { hint: "Give that full name to replace it, or choose another tag" },
    );
  }

  #append(descriptor: Descriptor, name: EntryName): void {
    this.#put(this.#entries.length, makeEntry(descriptor, name));
  }

  /** The entries that have one of some keys, in their order. */
  #find(keys: readonly string[]): Place[] {
    const positions = new Set(keys.flatMap((key) => [...(this.#positions.get(key) ?? [])]));
    return [...positions]
      .toSorted((a, b) => a - b)
      .map((position) => ({ position, entry: this.#entries[position] as IndexEntry }));
  }

  /** Puts an entry, or nothing, in the place of what is there. */
  #put(position: number, entry: IndexEntry | undefined): void {
    const old = this.#entries[position];
    for (const key of old ? keysOf(old) : []) this.#positions.get(key)?.delete(position);
    this.#entries[position] = entry;
    for (const key of entry ? keysOf(entry) : []) {
      const positions = this.#positions.get(key) ?? new Set();
      this.#positions.set(key, positions.add(position));
    }
  }
}

/** An entry in its place. */
interface Place {
  position: number;
  entry: IndexEntry;
}

const digestKey = ({ digest }: Descriptor): string => `digest ${digest}`;
const pairKey = ({ refName, imageName }: EntryName): string =>
  `pair ${JSON.stringify([refName ?? null, imageName ?? null])}`;
const fullKey = (name: string): string => `full ${name}`;
const answerKey = (name: string): string => `answer ${name}`;

/** All keys by which an entry is found. */
function keysOf(entry: IndexEntry): string[] {
  const { refName, imageName, descriptor } = entry;
  const answers = [refName, imageName, tagOf(refName), tagOf(imageName)];
  return [
    digestKey(descriptor),
    pairKey(entry),
    ...fullNames(entry).map(fullKey),
    ...answers.filter((name) => name !== undefined).map(answerKey),
  ];
}

/**
 * The keys of the entries that have the same name: BuildKit would replace one by the other,
 * or both are one full name.
 */
function sameKeys(name: EntryName): string[] {
  return name.imageName === undefined ? [pairKey(name)] : [pairKey(name), fullKey(name.imageName)];
}

/** The keys of the entries that {@link matchesName} is true of. */
function answerKeys(name: string): string[] {
  const canonical = isTag(name) ? undefined : canonicalName(name);
  return canonical === undefined ? [answerKey(name)] : [answerKey(name), fullKey(canonical)];
}
