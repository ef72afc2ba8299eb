/**
 * The index.json of a layout as a value: its entries, the tag walk over them and
 * the changes that writers make. Whatever cacheport does not know is kept as it is.
 *
 * Sources: OCI image-spec, image-layout.md, "index.json file"; BuildKit
 * client/ociindex/ociindex.go for the two name annotations.
 */
import * as v from "valibot";
import type { NamedEntry, NameQuery, NameRemoval, Root } from "./content-store.ts";
import { checkSchema, jsonObject } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import {
  encodeGoJson,
  isLossy,
  joinObject,
  jsonTextOf,
  parseJson,
  rewriteJson,
  splitJson,
} from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import { entryText, readEntry } from "./layout-entry.ts";
import type { IndexEntry } from "./layout-entry.ts";
import { entryLabel, matchesName, NameTable } from "./layout-names.ts";
import { isIndexType, OCI_INDEX } from "./media-types.ts";

export type { IndexEntry } from "./layout-entry.ts";
export { entryLabel, matchesName, parseEntryName, sameNameFinder } from "./layout-names.ts";

/** A parsed index.json. */
export interface LayoutIndex {
  readonly raw: JsonObject;
  /** The whole as compact text, where a JavaScript value does not keep all of it. */
  readonly text?: string | undefined;
  readonly entries: readonly IndexEntry[];
}

const IndexSchema = v.pipe(
  jsonObject,
  v.looseObject({
    schemaVersion: v.nullish(v.picklist([0, 2])),
    mediaType: v.nullish(
      v.pipe(
        v.string(),
        v.check(
          (mediaType) => mediaType === "" || isIndexType(mediaType),
          (issue) => `Invalid media type: Expected an image index but received ${issue.received}`,
        ),
      ),
    ),
    manifests: v.nullish(v.array(jsonObject), []),
  }),
);

/**
 * Parses an index.json. An entry that cannot be used is kept with its problem: it is no
 * reason not to use the others.
 *
 * @param what What the bytes are, for the message: `index.json of "cache"`.
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseLayoutIndex(bytes: Uint8Array, what: string): LayoutIndex {
  const raw = parseJson(bytes, what);
  const { manifests } = checkSchema(IndexSchema, raw, what);
  const source = jsonTextOf(bytes);
  const text = isLossy(source) ? rewriteJson(source) : undefined;
  const texts = text === undefined ? [] : manifestTexts(text);
  return {
    raw: raw as JsonObject,
    text,
    entries: manifests.map((entry, position) => {
      const where = `${what}, entry ${position + 1} of ${manifests.length}`;
      return readEntry(entry, texts[position], where);
    }),
  };
}

function manifestTexts(text: string): string[] {
  const members = splitJson(text);
  const manifests = members.findLast(({ key }) => key === "manifests")?.value ?? "";
  return manifests.startsWith("[") ? splitJson(manifests).map(({ value }) => value) : [];
}

/** The index of a new layout. */
export function emptyLayoutIndex(): LayoutIndex {
  return {
    raw: { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] },
    entries: [],
  };
}

/** The bytes of an index.json: compact, as BuildKit writes it. */
export function encodeLayoutIndex(index: LayoutIndex): Uint8Array {
  if (index.text !== undefined) return encodeExactly(index, index.text);
  const manifests = index.entries.map((entry) => entry.raw);
  const { schemaVersion, mediaType, ...rest } = index.raw;
  return encodeGoJson({
    schemaVersion: schemaVersion || 2,
    mediaType: mediaType || OCI_INDEX,
    ...rest,
    manifests,
  });
}

/** An index.json of which a JavaScript value would lose something, member by member. */
function encodeExactly(index: LayoutIndex, text: string): Uint8Array {
  const manifests = `[${index.entries.map(entryText).join(",")}]`;
  const { schemaVersion, mediaType } = index.raw;
  const members = new Map([
    ["schemaVersion", JSON.stringify(schemaVersion || 2)],
    ["mediaType", JSON.stringify(mediaType || OCI_INDEX)],
  ]);
  for (const { key = "", value } of splitJson(text)) if (!members.has(key)) members.set(key, value);
  members.set("manifests", manifests);
  return new TextEncoder().encode(joinObject(members));
}

/** Entries that are there for their own sake, not as a referrer of another manifest. */
function tagEntries(index: LayoutIndex): IndexEntry[] {
  return index.entries.filter((entry) => entry.subject === undefined || entryLabel(entry) !== null);
}

/**
 * The tag walk: finds the entry that a query names, in one pass over the entries.
 *
 * @param location The layout as the user wrote it, for messages.
 * @returns The entry; undefined for a digest that no entry has.
 * @throws {CacheportError} NAME_NOT_FOUND, NAME_AMBIGUOUS
 */
export function resolveEntry(
  index: LayoutIndex,
  query: NameQuery,
  location: string,
): IndexEntry | undefined {
  const { name, digest } = query;
  if (digest !== undefined) {
    const same = index.entries.filter(
      (entry) => entry.descriptor.digest === digest && entry.problem === undefined,
    );
    return same.find((entry) => name !== undefined && matchesName(entry, name)) ?? same[0];
  }
  const entries = tagEntries(index);
  if (name !== undefined) {
    const matches = entries.filter((entry) => matchesName(entry, name));
    return usable(onlyOne(matches, name, location) ?? notFound(entries, name, location));
  }
  const latest = entries.filter((entry) => matchesName(entry, "latest"));
  return usable(
    onlyOne(latest, "latest", location) ??
      onlyOne(entries, undefined, location) ??
      notFound(entries, undefined, location),
  );
}

/** @throws {CacheportError} DOCUMENT_INVALID for an entry that cannot be used */
function usable(entry: IndexEntry): IndexEntry {
  if (entry.problem === undefined) return entry;
  throw new CacheportError("DOCUMENT_INVALID", entry.problem, {
    hint: "The other entries can be used; this one can be removed with cacheport untag",
  });
}

/** The first entry when all of them are the same content; undefined when there is none. */
function onlyOne(
  entries: IndexEntry[],
  name: string | undefined,
  location: string,
): IndexEntry | undefined {
  if (new Set(entries.map((entry) => entry.descriptor.digest)).size <= 1) return entries[0];
  const candidates = entries.map(describeEntry);
  throw new CacheportError(
    "NAME_AMBIGUOUS",
    name === undefined
      ? `Cannot choose an entry of "${location}": it has ${entries.length} and none is called latest`
      : `Cannot resolve "${name}" in "${location}": ${entries.length} entries have that name`,
    { hint: `Name one of: ${listed(candidates)}` },
  );
}

function notFound(entries: IndexEntry[], name: string | undefined, location: string): never {
  const names = [...new Set(entries.map(describeEntry))];
  const what = name === undefined ? `an entry` : `"${name}"`;
  throw new CacheportError(
    "NAME_NOT_FOUND",
    names.length === 0
      ? `Cannot find ${what} in "${location}": it holds no names`
      : `Cannot find ${what} in "${location}": no entry has that name`,
    { hint: names.length === 0 ? undefined : `It holds: ${listed(names)}` },
  );
}

function describeEntry(entry: IndexEntry): string {
  return entryLabel(entry) ?? `@${entry.descriptor.digest}`;
}

/** Joins names for a sentence; a layout may hold thousands. */
function listed(names: string[]): string {
  const shown = names.slice(0, 20).join(", ");
  return names.length > 20 ? `${shown} and ${names.length - 20} more` : shown;
}

/**
 * Gives roots their names. Entries keep their order; an entry that is replaced
 * keeps its place, a new one comes last.
 *
 * @throws {CacheportError} NAME_CHANGED when an entry to replace is gone;
 *   NAME_AMBIGUOUS when a bare tag is already the tag of a full name that means
 *   something else, since then neither could be asked for by its tag any more;
 *   DOCUMENT_INVALID when the entry to replace is of no known kind
 */
export function applyNames(
  index: LayoutIndex,
  roots: readonly Root[],
  location: string,
): LayoutIndex {
  const table = new NameTable(index.entries, location, roots);
  for (const { descriptor, names } of roots)
    for (const update of names) table.apply(descriptor, update);
  return { ...index, entries: table.toEntries() };
}

/** Tells of an entry whether a removal means it. */
export function removalFilter({ digest, entries }: NameRemoval): (entry: NamedEntry) => boolean {
  return (entry) =>
    entry.descriptor.digest === digest &&
    entries.some(
      ({ refName, imageName }) => refName === entry.refName && imageName === entry.imageName,
    );
}

/** An index without the entries that fit. */
export function removeEntries(
  index: LayoutIndex,
  fits: (entry: IndexEntry) => boolean,
): LayoutIndex {
  return {
    ...index,
    entries: index.entries.filter((entry) => !fits(entry)),
  };
}

/** Tells whether two indexes would be the same file. */
export function sameIndex(a: LayoutIndex, b: LayoutIndex): boolean {
  return (
    a.entries.length === b.entries.length &&
    a.entries.every((entry, position) => {
      const other = b.entries[position] as IndexEntry;
      // A name that is given again is another object with the same text.
      return entry.raw === other.raw || entryText(entry) === entryText(other);
    })
  );
}
