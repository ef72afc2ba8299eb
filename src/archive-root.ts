/** Where in an archive its layout is. */
import { archiveInvalid } from "./archive-header.ts";
import { CacheportError } from "./errors.ts";

/** What an archive holds. */
export interface ArchiveRoot {
  /** `layout`: a layout at {@link ArchiveRoot.folder}; `images`: a manifest.json without an index.json. */
  readonly form: "layout" | "images";
  /** The path of the layout's folder with a slash behind it; empty for the archive's own root. */
  readonly folder: string;
}

/**
 * Finds the layout: at the root of the archive, else images in the form of `docker save`,
 * else in the one folder that is a layout, as `tar -czf cache.tgz .cache` packs it.
 *
 * @param members By path.
 * @throws {CacheportError} LAYOUT_INVALID, or ARCHIVE_INVALID for an archive that may
 *   have been cut short before it
 */
export function findRoot(
  members: Pick<ReadonlyMap<string, unknown>, "has" | "keys" | "size">,
  isComplete: boolean,
  location: string,
): ArchiveRoot {
  if (members.has("index.json")) return { form: "layout", folder: "" };
  const folders = layoutFolders(members);
  const [folder] = folders;
  if (folder !== undefined && folders.length === 1) return { form: "layout", folder };
  if (members.has("manifest.json")) return { form: "images", folder: "" };
  if (folder !== undefined) {
    const named = folders.slice(0, 10).map((path) => JSON.stringify(path.slice(0, -1)));
    throw new CacheportError(
      "LAYOUT_INVALID",
      `Cannot read a layout from "${location}": the archive holds ${folders.length}, in ${named.join(", ")}`,
      { hint: "Unpack it and give one folder, or pack one alone: tar -C FOLDER -cf FILE.tar ." },
    );
  }
  if (!isComplete && members.size > 0) {
    throw archiveInvalid(
      location,
      "it is truncated: it has neither an index.json nor an end mark",
      "Get the archive again from where it was made",
    );
  }
  throw new CacheportError(
    "LAYOUT_INVALID",
    `Cannot read a layout from "${location}": the archive has no index.json`,
    { hint: innerIndexHint(members) },
  );
}

/** The folders that have an index.json and blobs or a marker beside it. */
function layoutFolders(members: Pick<ReadonlyMap<string, unknown>, "has" | "keys">): string[] {
  const indexed = new Set<string>();
  const filled = new Set<string>();
  for (const path of members.keys()) {
    const found = INSIDE.exec(path);
    if (found?.[2] === "index.json") indexed.add(found[1] as string);
    else if (found) filled.add(found[1] as string);
  }
  return [...indexed].filter((folder) => filled.has(folder)).toSorted();
}

/** A folder, and what is in it that only a layout has. */
const INSIDE = /^(.+\/)(index\.json|oci-layout|blobs|blobs\/sha\d+\/[0-9a-f]+)$/;

function innerIndexHint(members: Pick<ReadonlyMap<string, unknown>, "keys">): string | undefined {
  const end = "/index.json";
  const inner = [...members.keys()].find((path) => path.endsWith(end))?.slice(0, -end.length);
  return inner === undefined
    ? undefined
    : `Should the layout be in a folder of the archive, pack it from inside: tar -C ${inner} -cf FILE.tar .`;
}
