/**
 * How src/ is laid out, as data: the rooms with their doors, and the layers from the
 * bottom up. scripts/check-structure.ts holds the code against it, `npm run map` prints it,
 * and a test holds README's "Where to look" against it.
 *
 * A file without a dash is vocabulary: a noun or a verb of the README. A dash means inside
 * a room, and the first word is the room. From outside a room only its doors are imported;
 * the file that is called as the room is always one.
 */

/** A room of src/. */
export interface Room {
  /** The first word of its files. */
  readonly name: string;
  /** What is inside, in one line. */
  readonly holds: string;
  /** The files that others may import, without the room's name; `*` for all. */
  readonly doors: string;
}

/** All rooms. */
export const ROOMS: readonly Room[] = [
  { name: "image", holds: "the documents of images: index, manifest, config", doors: "*" },
  {
    name: "cache",
    holds: "what a build cache is: config, records, layers; no network",
    doors: "*",
  },
  { name: "document", holds: "what any document is, and what it lists", doors: "*" },
  {
    name: "blob",
    holds: "checking, compressing and hashing bytes, and the threads for it",
    doors: "check compression jobs pack stream threads writeback",
  },
  {
    name: "layout",
    holds: "layout folders: index, lock, writer, temporaries",
    doors: "directory durable files folder index index-file lock marker reader trash work",
  },
  { name: "archive", holds: "layouts in tar files", doors: "open reader writer" },
  { name: "registry", holds: "the client of registries", doors: "failures limits trace" },
  { name: "object", holds: "object stores: s3, azblob, gha", doors: "gc place store" },
  {
    name: "location",
    holds: "what stands on the command line for a place, and opening it",
    doors: "attributes digest login names open settings source sources library",
  },
  {
    name: "cli",
    holds: "the frame of all commands: arguments, help, output, progress",
    doors:
      "builds command completion compression conflicts contracts file hints man options page replaced schema streams suggestion table target text transfer tree",
  },
  { name: "command", holds: "one file per command", doors: "conflicts table" },
  {
    name: "inspect",
    holds: "what only inspect needs",
    doors: "conflicts image contents dot files html largest mermaid part text layer labels",
  },
  { name: "verify", holds: "what only verify needs", doors: "objects problem" },
  { name: "recompress", holds: "what only recompression needs", doors: "image" },
  { name: "explain", holds: "builds, their steps, and why a step is not cached", doors: "*" },
  {
    name: "serve",
    holds: "a registry over any location",
    doors: "cache pending repository",
  },
];

/** Vocabulary that is written with a dash all the same: the field's own compounds. */
export const COMPOUNDS: readonly string[] = [
  "content-store",
  "go-json",
  "media-types",
  "plain-json",
  "self-check",
  "self-check-sample",
  "self-check-system",
  "system-calls",
  "text-files",
];

/** The layers from the bottom up, with their files; `*` stands for any end of a name. */
export const LAYERS: readonly (readonly [layer: string, files: string])[] = [
  [
    "values",
    `cache-time cache-types concurrency descriptor digest documents errors go-json media-types paths
     plain-json platform progress reference cli-suggestion system-calls text-files* units`,
  ],
  ["documents", "cache-* document* image-* layout-marker"],
  [
    "content",
    "archive-* blob-* content-store inspect-layer layout-* object-* registry* self-check-system",
  ],
  [
    "operations",
    `cache-read convert copy diff du expire explain* gc image-choose inspect list merge plan prune
     reachable
     recompress* self-check* referrers seed serve* verify* walk`,
  ],
  [
    "edge",
    `cli* command* explain-html explain-markdown explain-text explain-words inspect-* location* main version`,
  ],
  ["library", "mod"],
];

/** The files of a room, without its name; the file that is called as the room itself by that name. */
export function filesOf(room: Room, files: readonly string[]): string[] {
  return files
    .map((file) => file.replace(/(?:\.d)?\.ts$/, ""))
    .filter((name) => !COMPOUNDS.includes(name))
    .filter((name) => name === room.name || name.startsWith(`${room.name}-`))
    .map((name) => (name === room.name ? name : name.slice(room.name.length + 1)));
}

/** The files that are in no room: nouns and verbs of the README. */
export function vocabulary(files: readonly string[]): string[] {
  const inRooms = new Set(
    ROOMS.flatMap((room) => filesOf(room, files).map((name) => `${room.name}-${name}`)),
  );
  return files
    .map((file) => file.replace(/(?:\.d)?\.ts$/, ""))
    .filter((name) => !inRooms.has(name) && !ROOMS.some((room) => room.name === name));
}
