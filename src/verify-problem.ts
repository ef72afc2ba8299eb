/** What a verification finds, and the list that it is gathered in. */
import type { Digest } from "./digest.ts";
import { CacheportError, EXIT_CODES, isCacheportError } from "./errors.ts";

/**
 * How bad a problem is: content that is damaged or refused, content that works and
 * loses something, and what is worth knowing.
 */
export type Severity = "error" | "warning" | "note";

/** Each code with its severity and what it stands for. The codes are stable. */
export const PROBLEMS = {
  MANIFEST_MISSING: ["error", "a name points to content that is not there"],
  ENTRY_INVALID: ["error", "an entry of index.json cannot be used"],
  BLOB_MISSING: ["error", "a document lists content that is not there"],
  BLOB_UNREADABLE: ["error", "the place says that it has a blob and cannot give it"],
  DIGEST_MISMATCH: ["error", "the bytes have another digest"],
  SIZE_MISMATCH: ["error", "there are more or fewer bytes than a descriptor says"],
  DUPLICATE_SIZE: ["error", "one blob is listed with different sizes"],
  DATA_MISMATCH: ["error", "the content embedded in a descriptor is other content"],
  DOCUMENT_INVALID: ["error", "a document cannot be read"],
  DOCUMENT_UNKNOWN: ["error", "what a document lists is not known, so nobody looked inside"],
  DOCUMENT_TOO_LARGE: ["error", "a document is over its limit (--max-document)"],
  INDEX_TOO_DEEP: ["error", "indexes are nested too deeply"],
  IO_FAILED: ["error", "a file cannot be read"],
  LAYOUT_INVALID: ["error", "the layout is of another version"],
  CONTENT_UNREADABLE: ["error", "the registry says that content is there and does not give it"],
  LAYER_TYPE_WRONG: ["error", "a layer is not compressed as its media type says"],
  COMPRESSION_INVALID: ["error", "a layer cannot be decompressed (--deep)"],
  DIFF_ID_MISSING: ["error", "a cache's layer lacks containerd.io/uncompressed"],
  DIFF_ID_INVALID: ["error", "a diffID is no digest"],
  DIFF_ID_MISMATCH: ["error", "the unpacked layer has another digest"],
  DIFF_IDS_COUNT: ["error", "an image has more or fewer diffIDs than layers"],
  CACHE_INVALID: ["error", "an inline cache, or one in an object store, cannot be used"],
  LAYER_INDEX: ["error", "BuildKit refuses the cache: invalid layer index"],
  LAYER_LOOP: ["error", "BuildKit refuses the cache: invalid looping layer"],
  RECORD_INDEX: ["error", "BuildKit refuses the cache: invalid record ID"],
  RECORD_LOOP: ["error", "BuildKit refuses the cache: invalid looping record"],
  INPUT_EMPTY: ["error", "BuildKit refuses the cache: invalid empty input"],
  INPUT_RANDOM: ["error", "BuildKit refuses the cache: a session-unique input"],
  LAYER_NOT_LISTED: ["warning", "BuildKit drops the results of a layer without a word"],
  RESULT_LOST: ["warning", "BuildKit drops all results of records without a word"],
  IMPORT_LOSES_LINKS: ["warning", "BuildKit's import can lose cache hits; cacheport heal cures it"],
  OVER_IMPORT_LIMIT: ["warning", "BuildKit imports no such document over 1 MiB"],
  MIXED_LAYER_TYPES: ["warning", "Docker types in an OCI document or OCI types in a Docker one"],
  LAYER_TYPE_UNKNOWN: ["warning", "a cache's layer is of no layer type"],
  DUPLICATE_DIFFERS: ["warning", "one document describes a blob in two ways"],
  SEVERAL_CONFIGS: ["warning", "a list holds several cache configs; the last one counts"],
  CONFIG_IN_LAYERS: ["warning", "a cache config among layers, where BuildKit does not look"],
  MEDIA_TYPE_MISMATCH: [
    "warning",
    "a descriptor's type is not the document's; BuildKit's reset deletes what an unknown type lists",
  ],
  NAME_TWICE: ["warning", "two entries have one name and different content"],
  LAYOUT_MARKER_MISSING: ["warning", "there is no usable oci-layout file"],
  LIFECYCLE_BREAKS: [
    "warning",
    "a rule of the object store removes blobs while a name needs them: fatal for a build",
  ],
  BLOBS_OLDER: [
    "note",
    "blobs in an object store are older than their name: a rule by age removes them first",
  ],
  OVER_OCI_LIMIT: ["note", "BuildKit imports no such document over 1 MiB from elsewhere"],
  EMPTY_CACHE: ["note", "a cache without layers"],
  LAYER_UNCHECKED: ["note", "an image's layer of an unknown type, which was not unpacked"],
  LAYER_UNUSED: ["note", "the cache config does not use a layer of the manifest"],
  FOREIGN_LAYER_ABSENT: ["note", "a layer that is to be had from its URLs"],
  UNREFERENCED_BLOB: ["note", "no name reaches a blob"],
  LEFTOVER_FILE: ["note", "a writer was interrupted, or is at work"],
  STRAY_FILE: ["note", "a file under blobs that is no blob"],
} as const satisfies Record<string, readonly [Severity, string]>;

/** A stable name for a kind of problem. */
export type ProblemCode = keyof typeof PROBLEMS;

/** Where content stands: as what, below which name. */
export interface Owner {
  /** The name of the entry that leads to it; null for an entry without one. */
  name: string | null;
  /** The platform of the nearest manifest that says one. */
  platform: string | null;
  /** As what: `layer 2`, `config`, `manifest`. */
  role: string;
}

/** One thing that a verification found. */
export interface Problem {
  code: ProblemCode;
  severity: Severity;
  /** The content that it is about; null for a file that is no blob. */
  digest: Digest | null;
  message: string;
  /** What the content belongs to; the first few. */
  belongsTo: Owner[];
}

/** Refusals in a row after which a registry is taken for one that answers nothing any more. */
const MOST_REFUSALS = 5;

const SEVERITIES: readonly Severity[] = ["error", "warning", "note"];

/** Gathers problems, each one once. */
export class ProblemList {
  readonly #problems = new Map<string, Problem>();
  #refusals = 0;

  /** Adds a problem. */
  add(code: ProblemCode, digest: Digest | null, message: string): void {
    const [severity] = PROBLEMS[code];
    this.#problems.set(`${code} ${digest} ${message}`, {
      code,
      severity,
      digest,
      message,
      belongsTo: [],
    });
  }

  /** Tells whether there is a problem of one of some kinds. */
  has(...codes: ProblemCode[]): boolean {
    return this.#problems.values().some(({ code }) => codes.includes(code));
  }

  /** Notes that content could be read: what was refused before it was refused by itself. */
  noteRead(): void {
    this.#refusals = 0;
  }

  /**
   * Adds what was thrown, if it says that content is wrong.
   *
   * A registry that does not give one piece of content is that content's problem.
   *
   * @throws The error itself when it says something else: that a registry gives nothing
   *   any more, that the user interrupted.
   */
  addError(error: unknown, digest: Digest): void {
    if (!isCacheportError(error)) throw error;
    if (error.code === "REGISTRY_FAILED" || error.code === "REGISTRY_DENIED") {
      if (++this.#refusals > MOST_REFUSALS) throw error;
      this.add("CONTENT_UNREADABLE", digest, error.message);
      return;
    }
    this.add(problemCode(error), digest, error.message);
  }

  /** All problems, errors first, in an order that depends on them alone. */
  toSorted(): Problem[] {
    const rank = ({ severity, code, digest, message }: Problem): string =>
      [SEVERITIES.indexOf(severity), code, digest, message].join(" ");
    return [...this.#problems.values()]
      .map((problem) => ({ problem, key: rank(problem) }))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .map(({ problem }) => problem);
  }
}

/** @throws The error when it says nothing of the content */
function problemCode(error: CacheportError): ProblemCode {
  const { code } = error;
  if (code === "BLOB_NOT_FOUND") return "BLOB_MISSING";
  if (code === "DIGEST_INVALID") return "DOCUMENT_INVALID";
  if (code === "PERMISSION_DENIED") return "IO_FAILED";
  const isKnown = Object.hasOwn(PROBLEMS, code);
  if (!isKnown || (EXIT_CODES[code] !== 4 && code !== "IO_FAILED")) throw error;
  return code as ProblemCode;
}
