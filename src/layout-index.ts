/**
 * The index.json of a layout as a value: its entries, the tag walk over them and
 * the changes that writers make. Whatever cacheport does not know is kept as it is.
 *
 * Sources: OCI image-spec, image-layout.md, "index.json file"; BuildKit
 * client/ociindex/ociindex.go for the two name annotations.
 */
import * as v from "valibot";
import type { EntryName, NamedEntry, NameQuery, NameUpdate, Root } from "./content-store.ts";
import { DescriptorSchema, orderDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import { checkSchema, jsonObject } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { encodeGoJson, parseJson } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import {
  ANNOTATION_IMAGE_NAME,
  ANNOTATION_MANIFEST_SUBJECT,
  ANNOTATION_REF_NAME,
  isIndexType,
  OCI_INDEX,
} from "./media-types.ts";
import { canonicalName, isTag, normalizeReference } from "./reference.ts";

/** An entry together with its JSON, unknown fields included. */
export interface IndexEntry extends NamedEntry {
  readonly raw: JsonObject;
}

/** A parsed index.json. */
export interface LayoutIndex {
  readonly raw: JsonObject;
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
 * Parses an index.json.
 *
 * @param what What the bytes are, for the message: `index.json of "cache"`.
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseLayoutIndex(bytes: Uint8Array, what: string): LayoutIndex {
  const raw = parseJson(bytes, what);
  const { manifests } = checkSchema(IndexSchema, raw, what);
  return {
    raw: raw as JsonObject,
    entries: manifests.map((entry, position) =>
      toEntry(entry, `${what}, entry ${position + 1} of ${manifests.length}`),
    ),
  };
}

function toEntry(raw: JsonObject, what: string): IndexEntry {
  const descriptor = checkSchema(DescriptorSchema, raw, what);
  const annotations = descriptor.annotations ?? {};
  const subject = annotations[ANNOTATION_MANIFEST_SUBJECT];
  return {
    raw,
    descriptor,
    refName: annotations[ANNOTATION_REF_NAME] || undefined,
    imageName: annotations[ANNOTATION_IMAGE_NAME] || undefined,
    subject: isDigest(subject) ? subject : undefined,
  };
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
  const manifests = index.entries.map((entry) => entry.raw);
  const { schemaVersion, mediaType, ...rest } = index.raw;
  return encodeGoJson({
    schemaVersion: schemaVersion || 2,
    mediaType: mediaType || OCI_INDEX,
    ...rest,
    manifests,
  });
}

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
  if (entry.refName === name || entry.imageName === name) return true;
  if (isTag(name)) return tagOf(entry.imageName) === name || tagOf(entry.refName) === name;
  const canonical = canonicalName(name);
  return canonical !== undefined && fullNames(entry).includes(canonical);
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
    const same = index.entries.filter((entry) => entry.descriptor.digest === digest);
    return same.find((entry) => name !== undefined && matchesName(entry, name)) ?? same[0];
  }
  const entries = tagEntries(index);
  if (name !== undefined) {
    const matches = entries.filter((entry) => matchesName(entry, name));
    return onlyOne(matches, name, location) ?? notFound(entries, name, location);
  }
  const latest = entries.filter((entry) => matchesName(entry, "latest"));
  return (
    onlyOne(latest, "latest", location) ??
    onlyOne(entries, undefined, location) ??
    notFound(entries, undefined, location)
  );
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
 *   something else, since then neither could be asked for by its tag any more
 */
export function applyNames(
  index: LayoutIndex,
  roots: readonly Root[],
  location: string,
): LayoutIndex {
  let entries = [...index.entries];
  for (const { descriptor, names } of roots) {
    for (const update of names) entries = applyUpdate(entries, descriptor, update, location);
  }
  return { raw: index.raw, entries };
}

function applyUpdate(
  entries: IndexEntry[],
  descriptor: Descriptor,
  update: NameUpdate,
  location: string,
): IndexEntry[] {
  switch (update.kind) {
    case "list": {
      const listedAlready = entries.some((entry) => entry.descriptor.digest === descriptor.digest);
      return listedAlready ? entries : [...entries, makeEntry(descriptor, {})];
    }
    case "set": {
      refuseSharedTag(entries, descriptor, update.name, location);
      const isSame = (entry: IndexEntry): boolean => isSameName(entry, update.name);
      return replaceFirst(entries, isSame, makeEntry(descriptor, update.name));
    }
    case "replace": {
      const old = update.entry;
      const hasNames = (entry: IndexEntry): boolean =>
        entry.refName === old.refName && entry.imageName === old.imageName;
      const found = entries.find(
        (entry) => hasNames(entry) && entry.descriptor.digest === old.descriptor.digest,
      );
      if (found) {
        return replaceFirst(entries, (entry) => entry === found, changeEntry(found, descriptor));
      }
      if (entries.some((e) => hasNames(e) && e.descriptor.digest === descriptor.digest)) {
        return entries;
      }
      throw new CacheportError(
        "NAME_CHANGED",
        `Cannot replace "${entryLabel(old) ?? old.descriptor.digest}" in "${location}": another process has changed it meanwhile`,
        { hint: "Run the command again to work on what is there now" },
      );
    }
  }
}

/** Puts an entry in the place of the first that fits, drops the others, or appends it. */
function replaceFirst(
  entries: IndexEntry[],
  fits: (entry: IndexEntry) => boolean,
  entry: IndexEntry,
): IndexEntry[] {
  const first = entries.findIndex(fits);
  if (first === -1) return [...entries, entry];
  return entries.flatMap((old, position) =>
    position === first ? [entry] : fits(old) ? [] : [old],
  );
}

/** Two names are the same when BuildKit would replace one by the other, or both are one full name. */
export function isSameName(entry: EntryName, name: EntryName): boolean {
  if (entry.refName === name.refName && entry.imageName === name.imageName) return true;
  return name.imageName !== undefined && fullNames(entry).includes(name.imageName);
}

function refuseSharedTag(
  entries: IndexEntry[],
  descriptor: Descriptor,
  name: EntryName,
  location: string,
): void {
  if (name.imageName !== undefined || name.refName === undefined) return;
  const tag = name.refName;
  const owner = entries.find(
    (entry) =>
      !isSameName(entry, name) &&
      entry.descriptor.digest !== descriptor.digest &&
      matchesName(entry, tag),
  );
  if (!owner || entries.some((entry) => isSameName(entry, name))) return;
  throw new CacheportError(
    "NAME_AMBIGUOUS",
    `Cannot give the name "${tag}" in "${location}": it is the tag of ${entryLabel(owner)}`,
    { hint: "Give that full name to replace it, or choose another tag" },
  );
}

function makeEntry(descriptor: Descriptor, name: EntryName): IndexEntry {
  const {
    [ANNOTATION_REF_NAME]: _refName,
    [ANNOTATION_IMAGE_NAME]: _imageName,
    ...annotations
  } = descriptor.annotations ?? {};
  if (name.refName !== undefined) annotations[ANNOTATION_REF_NAME] = name.refName;
  if (name.imageName !== undefined) annotations[ANNOTATION_IMAGE_NAME] = name.imageName;
  return toEntry(orderDescriptor({ ...descriptor, annotations }) as JsonObject, "entry");
}

/** Points an entry to other content; what described only the old content goes. */
function changeEntry(entry: IndexEntry, descriptor: Descriptor): IndexEntry {
  const { mediaType, digest, size } = descriptor;
  const { data: _data, urls: _urls, artifactType: _artifactType, ...rest } = entry.raw;
  return toEntry({ ...rest, mediaType, digest, size }, "entry");
}

/** An index without the entries that fit. */
export function removeEntries(
  index: LayoutIndex,
  fits: (entry: IndexEntry) => boolean,
): LayoutIndex {
  return {
    raw: index.raw,
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
      return entry.raw === other.raw || JSON.stringify(entry.raw) === JSON.stringify(other.raw);
    })
  );
}
