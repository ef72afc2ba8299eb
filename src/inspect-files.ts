/** `inspect --files LAYER`: what is in one layer, written while it is read. */
import type { CommandContext } from "./cli-command.ts";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { shortDigest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { Inspected } from "./inspect.ts";
import { listLayer } from "./inspect-layer.ts";
import type { LayerFile, LayerFileType } from "./inspect-layer.ts";
import { printable } from "./cli-text.ts";

/** Candidates that an error lists. */
const LISTED = 10;
/** Characters that are gathered before they are written. */
const BATCH = 64 * 1024;

/**
 * Finds the layer that a text means.
 *
 * @param text A digest, or the start of one that no other layer has; `sha256:` may be left out.
 * @throws {CacheportError} BLOB_NOT_FOUND, NAME_AMBIGUOUS
 */
export function findLayer(found: Inspected, text: string): Descriptor {
  const layers = new Map<string, Descriptor>();
  for (const { digest, size, mediaType } of layersOf(found))
    // What the manifest does not list has no size to check it by.
    if (size !== null) layers.set(digest, { digest, size, mediaType: mediaType ?? "" });
  const action = `Cannot find layer ${JSON.stringify(text)}`;
  const matching = [...layers.values()].filter(
    ({ digest }) =>
      digest.startsWith(text) || digest.slice(digest.indexOf(":") + 1).startsWith(text),
  );
  const [layer, ...others] = matching;
  if (!layer || text === "") {
    throw new CacheportError(
      "BLOB_NOT_FOUND",
      layers.size === 0
        ? `${action}: ${found.manifest.digest} has no layers`
        : `${action}: no layer's digest starts with it`,
      {
        hint:
          found.kind === "index"
            ? "Choose one of its images with --platform"
            : "Run the command without --files to see the layers",
      },
    );
  }
  if (others.length > 0) {
    const shown = matching.slice(0, LISTED).map(({ digest }) => shortDigest(digest));
    const rest = matching.length - shown.length;
    throw new CacheportError(
      "NAME_AMBIGUOUS",
      `${action}: ${matching.length} layers start with it`,
      {
        hint: `Write more of the digest: ${shown.join(", ")}${rest > 0 ? `, ... and ${rest} more` : ""}`,
      },
    );
  }
  return layer;
}

type LayerLike = Pick<Descriptor, "digest"> & {
  size: number | null;
  mediaType: string | null;
};

function layersOf(found: Inspected): readonly LayerLike[] {
  switch (found.kind) {
    case "index":
      return [];
    case "artifact":
      return found.children;
    default:
      return found.layers;
  }
}

/**
 * Lists a layer on standard output: lines like those of `tar tv`, or with `--json`
 * an array. Memory is bounded whatever the layer's size. When the layer proves
 * damaged, the lines of what was read stand there before the command fails.
 *
 * @throws {CacheportError} as {@link listLayer}
 */
export async function writeLayerFiles(
  context: CommandContext,
  reader: ContentReader,
  layer: Descriptor,
): Promise<void> {
  const { json, signal } = context;
  const encoder = new TextEncoder();
  const line = fileLines();
  let batch = json ? "[" : "";
  let isFirst = true;
  const flush = async (): Promise<void> => {
    const text = batch;
    batch = "";
    await context.write(encoder.encode(text));
  };
  try {
    for await (const file of listLayer(reader, layer, { signal })) {
      batch += json ? `${isFirst ? "\n" : ",\n"}${fileJson(file)}` : line(file);
      isFirst = false;
      if (batch.length >= BATCH) await flush();
    }
  } catch (error) {
    // An array that is cut off is of use to nobody.
    if (!json) await flush();
    throw error;
  }
  if (json) batch += isFirst ? "]\n" : "\n]\n";
  await flush();
}

function fileJson(file: LayerFile): string {
  const { path, type, size, mode, uid, gid, mtime, link } = file;
  const time = timeOf(mtime)?.toISOString() ?? null;
  return JSON.stringify({
    path,
    type,
    size,
    mode,
    uid,
    gid,
    mtime: time,
    link: link ?? null,
  });
}

/** A time that can be written: a header may hold any number. */
function timeOf(mtime: Date | undefined): Date | undefined {
  return mtime && Number.isFinite(mtime.getTime()) ? mtime : undefined;
}

const MARKS: Record<LayerFileType, string> = {
  file: "-",
  directory: "d",
  symlink: "l",
  hardlink: "h",
  "character-device": "c",
  "block-device": "b",
  fifo: "p",
  whiteout: "w",
  opaque: "w",
  other: "?",
};

/** Makes the lines of a listing. As in tar, the column of owner and size grows when it has to. */
function fileLines(): (file: LayerFile) => string {
  let width = 19;
  return ({ path, type, size, mode, uid, gid, mtime, link }) => {
    const owner = `${uid}/${gid}`;
    const length = `${size}`;
    width = Math.max(width, owner.length + 1 + length.length);
    const time = timeOf(mtime)?.toISOString().slice(0, 16).replace("T", " ");
    return `${[
      MARKS[type] + permissions(mode),
      owner + length.padStart(width - owner.length),
      time ?? "-".padEnd(16),
      printable(path) + suffix(type, link),
    ].join(" ")}\n`;
  };
}

/** `rwxr-xr-x`, with set-user-ID, set-group-ID and sticky where execution stands. */
function permissions(mode: number): string {
  const triple = (bits: number, special: boolean, letter: string): string => {
    const execute = (bits & 1) !== 0;
    const last = special ? (execute ? letter : letter.toUpperCase()) : execute ? "x" : "-";
    return `${bits & 4 ? "r" : "-"}${bits & 2 ? "w" : "-"}${last}`;
  };
  return (
    triple(mode >> 6, (mode & 0o4000) !== 0, "s") +
    triple(mode >> 3, (mode & 0o2000) !== 0, "s") +
    triple(mode, (mode & 0o1000) !== 0, "t")
  );
}

function suffix(type: LayerFileType, link: string | undefined): string {
  switch (type) {
    case "symlink":
      return ` -> ${printable(link ?? "")}`;
    case "hardlink":
      return ` link to ${printable(link ?? "")}`;
    case "whiteout":
      return " (whiteout: removed from the layers below)";
    case "opaque":
      return " (opaque: the layers below are hidden here)";
    default:
      return "";
  }
}
