/**
 * Trees of files as BuildKit sees them when it computes content keys: a folder on
 * disk, what a layer holds, or a document that stands in the Dockerfile.
 *
 * Source: BuildKit cache/contenthash/filehash.go (which fields of a file count).
 */
import { createHasher, digestOf } from "./digest.ts";
import type { Hasher } from "./digest.ts";
import { compareBytes } from "./go-json.ts";
import { posix } from "./paths.ts";

/** What kind of file an entry is. */
export type TreeType =
  "file" | "directory" | "symlink" | "character-device" | "block-device" | "fifo";

/** One file, directory or link. */
export interface TreeEntry {
  type: TreeType;
  /** Permission bits, with set-user-ID, set-group-ID and sticky. */
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of a file, 0 for anything else. */
  size: number;
  /** Where a symbolic link leads to, as it is written. */
  link: string;
  /** Digest of header and content, which for a file may read it. */
  digest(): string;
  /** Digest of the content alone, for comparing files whose mode differs. */
  contentDigest(): string;
}

/** A tree. Paths are absolute with forward slashes; the root is the empty text. */
export interface FileTree {
  entry(path: string): TreeEntry | undefined;
  /** Names in byte order. */
  children(path: string): readonly string[];
}

const TYPE_FLAGS: Record<TreeType, string> = {
  file: "0",
  directory: "5",
  symlink: "2",
  "character-device": "3",
  "block-device": "4",
  fifo: "6",
};

/** What of a file's header counts: no name, no time. */
export interface HeaderFields {
  type: TreeType;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  link: string;
  major?: number;
  minor?: number;
  /** Extended attributes that count. */
  xattrs?: ReadonlyMap<string, string>;
}

/** Starts the hash of a file with its header; the content is added to it. */
export function startFileHash(fields: HeaderFields): Hasher {
  const { type, mode, uid, gid, size, link, major = 0, minor = 0, xattrs } = fields;
  const text = [
    `namemode${mode}uid${uid}gid${gid}size${size}typeflag${TYPE_FLAGS[type]}`,
    `linkname${link}unamegnamedevmajor${major}devminor${minor}`,
  ];
  for (const [key, value] of [...(xattrs ?? [])].toSorted(([a], [b]) => compareBytes(a, b)))
    text.push(key, value);
  const hasher = createHasher();
  hasher.update(new TextEncoder().encode(text.join("")));
  return hasher;
}

/** The digest of what has no content but its header. */
export function headerDigest(fields: HeaderFields): string {
  return startFileHash(fields).digest();
}

/** The header of a root counts for nothing: it has none. */
export const EMPTY_DIGEST: string = digestOf("");

/** A root directory without a header. */
export const ROOT_ENTRY: TreeEntry = {
  type: "directory",
  mode: 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  link: "",
  digest: () => EMPTY_DIGEST,
  contentDigest: () => "",
};

/** A tree in memory, of entries by their paths. Directories that are not given are made up. */
export class MemoryTree implements FileTree {
  readonly #entries = new Map<string, TreeEntry>([["", ROOT_ENTRY]]);
  readonly #children = new Map<string, Set<string>>();
  readonly #sorted = new Map<string, readonly string[]>();

  /** Sets an entry; an earlier one at this path is replaced. */
  set(path: string, entry: TreeEntry): void {
    this.#entries.set(path, entry);
    this.#sorted.clear();
    for (let at = path; at !== ""; at = parentOf(at)) {
      const parent = parentOf(at);
      const names = this.#children.get(parent) ?? new Set();
      this.#children.set(parent, names.add(posix.basename(at)));
      if (!this.#entries.has(parent)) this.#entries.set(parent, impliedDirectory());
    }
  }

  entry(path: string): TreeEntry | undefined {
    return this.#entries.get(path);
  }

  children(path: string): readonly string[] {
    const known = this.#sorted.get(path);
    if (known) return known;
    const sorted = [...(this.#children.get(path) ?? [])].toSorted(compareBytes);
    this.#sorted.set(path, sorted);
    return sorted;
  }

  /** All paths but the root. */
  paths(): string[] {
    return [...this.#entries.keys()].filter((path) => path !== "");
  }
}

/** The path above; the empty text for the root. */
export function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

function impliedDirectory(): TreeEntry {
  return directoryEntry(0o755);
}

/** A directory of root with a mode. */
export function directoryEntry(mode: number, uid: number = 0, gid: number = 0): TreeEntry {
  const fields = { type: "directory" as const, mode, uid, gid, size: 0, link: "" };
  return { ...fields, digest: () => headerDigest(fields), contentDigest: () => "" };
}

/** A file whose bytes are in memory. */
export function bytesEntry(bytes: Uint8Array, mode: number): TreeEntry {
  const fields = {
    type: "file" as const,
    mode,
    uid: 0,
    gid: 0,
    size: bytes.length,
    link: "",
  };
  return {
    ...fields,
    digest() {
      const hasher = startFileHash(fields);
      hasher.update(bytes);
      return hasher.digest();
    },
    contentDigest: () => digestOf(bytes),
  };
}

/** A symbolic link. */
export function linkEntry(link: string, uid: number = 0, gid: number = 0): TreeEntry {
  const fields = { type: "symlink" as const, mode: 0o777, uid, gid, size: 0, link };
  return { ...fields, digest: () => headerDigest(fields), contentDigest: () => digestOf(link) };
}
