/**
 * What a layout's archive looks like: its members in BuildKit's order with their
 * modes, and where each of them lies. The same content always gives the same bytes.
 *
 * Source: BuildKit exporter/oci/export.go and containerd
 * core/images/archive/exporter.go (records sorted by path, no times, no owners).
 */
import type { BlobSource, PutOptions } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { blobPath } from "./digest.ts";
import { compareBytes } from "./go-json.ts";
import { LAYOUT_MARKER } from "./layout-marker.ts";
import { encodeTarHeader, TAR_END, tarPadding } from "./archive-header.ts";

/** A blob that is to be written. */
export interface ArchiveBlob {
  readonly descriptor: Descriptor;
  readonly source: BlobSource;
  readonly onBytes?: PutOptions["onBytes"];
}

/** What an archive is to hold. */
export interface ArchiveContent {
  readonly blobs: readonly ArchiveBlob[];
  /** index.json */
  readonly index: Uint8Array;
  /** manifest.json, of `type=docker` archives. */
  readonly dockerManifest?: Uint8Array | undefined;
  /** The oci-layout file and the folders, which an archive that is added to has already. */
  readonly hasFrame?: boolean;
}

/** The content of a member: bytes, or a blob from elsewhere. */
export type MemberContent = { readonly bytes: Uint8Array } | { readonly blob: ArchiveBlob };

/** A member with its place in the archive. */
export interface PlacedMember {
  readonly path: string;
  readonly header: Uint8Array;
  /** Where the header starts. */
  readonly headerOffset: number;
  /** Where the content starts. */
  readonly offset: number;
  /** Bytes of content. */
  readonly size: number;
  readonly content: MemberContent;
}

/** An archive, or the part that is added to one. */
export interface ArchivePlan {
  readonly members: readonly PlacedMember[];
  /** Where the zero blocks that end the archive start. */
  readonly end: number;
  /** Bytes of the whole file. */
  readonly size: number;
}

interface Entry {
  path: string;
  mode: number;
  content: MemberContent;
}

/**
 * Gives each member of an archive its place.
 *
 * @param start Where the first header is to stand.
 */
export function planArchive(content: ArchiveContent, start: number = 0): ArchivePlan {
  const entries = listEntries(content).toSorted((a, b) => compareBytes(a.path, b.path));
  let headerOffset = start;
  const members = entries.map(({ path, mode, content }): PlacedMember => {
    const size = "bytes" in content ? content.bytes.length : content.blob.descriptor.size;
    const header = encodeTarHeader({ path, mode, size });
    const offset = headerOffset + header.length;
    const member = { path, header, headerOffset, offset, size, content };
    headerOffset = offset + size + tarPadding(size);
    return member;
  });
  return { members, end: headerOffset, size: headerOffset + TAR_END.length };
}

function listEntries(content: ArchiveContent): Entry[] {
  const { blobs, index, dockerManifest, hasFrame = false } = content;
  const file = (path: string, mode: number, bytes: Uint8Array): Entry => ({
    path,
    mode,
    content: { bytes },
  });
  const entries = blobs.map((blob): Entry => ({
    path: blobPath(blob.descriptor.digest),
    mode: 0o444,
    content: { blob },
  }));
  entries.push(file("index.json", 0o644, index));
  if (dockerManifest) entries.push(file("manifest.json", 0o644, dockerManifest));
  if (hasFrame) return entries;
  const folders = new Set(["blobs/", "blobs/sha256/"]);
  for (const { path } of entries)
    if (path.startsWith("blobs/")) folders.add(path.slice(0, path.lastIndexOf("/") + 1));
  for (const path of folders) entries.push(file(path, 0o755, new Uint8Array(0)));
  entries.push(file("oci-layout", 0o444, LAYOUT_MARKER));
  return entries;
}
