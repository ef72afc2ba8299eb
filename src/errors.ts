/**
 * The one error type of cacheport. Every failure that a user can meet carries a
 * stable code, a sentence and, where there is one, a hint at what to do next.
 */

/** Each error code with the exit code that a command ends with. */
export const EXIT_CODES = {
  /** The command line is wrong. */
  USAGE: 2,
  /** A reference or a location does not follow its grammar. */
  REFERENCE_INVALID: 2,
  /** What was asked for is not something cacheport does. */
  NOT_SUPPORTED: 2,
  /** No layout, archive or repository is where the location says. */
  LOCATION_NOT_FOUND: 3,
  /** No name in the store matches. */
  NAME_NOT_FOUND: 3,
  /** Several names with different digests match. */
  NAME_AMBIGUOUS: 3,
  /** No manifest for the platform that was asked for. */
  PLATFORM_NOT_FOUND: 3,
  /** A blob that is asked for by its digest is not in the store. */
  BLOB_NOT_FOUND: 3,
  /** A blob that a document names is not in the store. */
  BLOB_MISSING: 4,
  /** A store says that it has a blob and cannot give it. */
  BLOB_UNREADABLE: 4,
  /** A digest has the wrong form, or an algorithm that is not supported. */
  DIGEST_INVALID: 4,
  /** The bytes do not have the digest that they are known by. */
  DIGEST_MISMATCH: 4,
  /** The bytes are more or fewer than the descriptor says. */
  SIZE_MISMATCH: 4,
  /** A document is no JSON or does not have the fields of its kind. */
  DOCUMENT_INVALID: 4,
  /** A document of a type that is not known, so that nobody knows what it lists. */
  DOCUMENT_UNKNOWN: 4,
  /** A document is over its size limit. */
  DOCUMENT_TOO_LARGE: 4,
  /** Indexes are nested too deeply, or in a cycle. */
  INDEX_TOO_DEEP: 4,
  /** A cache config breaks a rule by which BuildKit would refuse it. */
  CACHE_INVALID: 4,
  /** What was named is no build cache. */
  NOT_A_CACHE: 4,
  /** The layout marks itself with a version that is not 1.0.0, or is no layout. */
  LAYOUT_INVALID: 4,
  /** A tar archive is truncated, damaged or has members that are refused. */
  ARCHIVE_INVALID: 4,
  /** A compressed stream is damaged, truncated or has an unknown format. */
  COMPRESSION_INVALID: 4,
  /** `verify` found errors. */
  VERIFY_FAILED: 4,
  /** `gc` met something below which it must not delete. */
  GC_REFUSED: 4,
  /** A registry refused: 401, 403, denied. */
  REGISTRY_DENIED: 5,
  /** A registry does not do at all what was asked of it: 405. */
  REGISTRY_UNSUPPORTED: 5,
  /** A registry does not take a document in this form. */
  REGISTRY_REJECTED: 5,
  /** A registry could not be reached, or failed after all retries. */
  REGISTRY_FAILED: 1,
  /** An object store refused: 401, 403, wrong or expired credentials. */
  STORE_DENIED: 5,
  /** An object store could not be reached, or failed after all retries. */
  STORE_FAILED: 1,
  /** A name moved between reading it and writing it. */
  NAME_CHANGED: 1,
  /** Another process held the lock for too long. */
  LOCK_TIMEOUT: 1,
  /** The disk is full or a quota is reached. */
  NO_SPACE: 1,
  /** The operating system does not permit it. */
  PERMISSION_DENIED: 1,
  /** Any other failure of a file, a pipe or a process. */
  IO_FAILED: 1,
  /** A fault in cacheport itself. */
  INTERNAL: 1,
  /** The user or a signal ended it. */
  INTERRUPTED: 130,
} as const;

/** A stable name for a kind of failure, shown in `--json` output. */
export type ErrorCode = keyof typeof EXIT_CODES;

/**
 * What to do next where that is a matter of the command line: a code with its facts. The
 * program's edge makes the sentence (cli-hints.ts), for only it knows commands and options.
 */
export type Remedy =
  | { do: "raise-document-limit" | "wait-for-lock" | "ask-less" | "log-in" }
  /** A certificate that is not trusted; some servers may be asked without TLS. */
  | { do: "trust-certificate"; plainHttp: boolean }
  | { do: "push-again" }
  | { do: "allow-plain-http" | "allow-insecure" | "allow-private-upload" | "choose-port" }
  | { do: "list-names" | "verify-layout" | "convert-to-cache"; location: string }
  | { do: "unpack-archive" | "copy-archive"; location: string }
  /** Of an index these platforms are whole. */
  | { do: "choose-platform"; platforms: readonly string[] }
  /** A name stands for what is absent, and a manifest without a name lies there. */
  | { do: "name-orphan"; location: string; name: string; digest: string }
  | { do: "choose-image" | "convert-layers" | "convert-inline-cache" | "drop-missing" }
  /** A cache in another shape is refused at `HOST/REPOSITORY:TAG`. */
  | { do: "write-image-manifest"; target: string };

/** What can stand beside the message of an error. */
export interface ErrorDetails {
  /** What to do next: one sentence, or what the edge makes one of. */
  hint?: string | Remedy | undefined;
  /** A server refused it, so that the exit code is that of a refusal whatever the code. */
  refused?: boolean | undefined;
  /** The failure below this one. */
  cause?: unknown;
}

/**
 * A failure that a user can meet. The message is one sentence without a final
 * full stop: `Cannot <verb> <thing> "<value>": <reason>`.
 */
export class CacheportError extends Error {
  override readonly name = "CacheportError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly remedy: Remedy | undefined;
  /** True where a server has refused what a code with another meaning says. */
  readonly refused: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, "cause" in details ? { cause: details.cause } : undefined);
    this.code = code;
    const { hint, refused = false } = details;
    this.refused = refused;
    this.hint = typeof hint === "string" ? hint : undefined;
    this.remedy = typeof hint === "string" ? undefined : hint;
  }

  /** The exit code of a command that ends with this error. */
  get exitCode(): number {
    return this.refused ? EXIT_CODES.REGISTRY_DENIED : EXIT_CODES[this.code];
  }
}

/** Tells whether a value is a {@link CacheportError}, optionally one of certain codes. */
export function isCacheportError(value: unknown, ...codes: ErrorCode[]): value is CacheportError {
  return value instanceof CacheportError && (codes.length === 0 || codes.includes(value.code));
}

/** The operating system's code of a failed call (`ENOENT`), or undefined. */
export function systemCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}

const SYSTEM_REASONS: Record<string, [ErrorCode, string]> = {
  ENOENT: ["IO_FAILED", "no such file or directory"],
  ENOTDIR: ["IO_FAILED", "a part of the path is not a directory"],
  EISDIR: ["IO_FAILED", "it is a directory"],
  EACCES: ["PERMISSION_DENIED", "permission denied"],
  EPERM: ["PERMISSION_DENIED", "operation not permitted"],
  EROFS: ["PERMISSION_DENIED", "the file system is read-only"],
  ENOSPC: ["NO_SPACE", "no space left on the device"],
  EDQUOT: ["NO_SPACE", "the disk quota is exceeded"],
  EMFILE: ["IO_FAILED", "too many open files"],
  ENAMETOOLONG: ["IO_FAILED", "the name is too long"],
  ELOOP: ["IO_FAILED", "it is a symbolic link, or there are too many of them"],
  EXDEV: ["IO_FAILED", "its folders are on different file systems"],
  EPIPE: ["IO_FAILED", "the reader closed the pipe"],
};

/**
 * Turns a failed system call into a coded error; a {@link CacheportError} passes
 * through unchanged.
 *
 * @param action The start of the sentence: `Cannot write blob "sha256:..."`.
 * @param error What was thrown.
 */
export function systemError(action: string, error: unknown): CacheportError {
  if (error instanceof CacheportError) return error;
  if (error instanceof Error && error.name === "AbortError") return interrupted();
  const code = systemCode(error);
  const [kind, reason] = (code && SYSTEM_REASONS[code]) || [
    "IO_FAILED" as const,
    code ?? (error instanceof Error ? error.message : String(error)),
  ];
  const hint = kind === "NO_SPACE" ? "Free some space or choose another place" : undefined;
  return new CacheportError(kind, `${action}: ${reason}`, {
    hint,
    cause: error,
  });
}

/** The error of an operation that was ended by the user. */
export function interrupted(): CacheportError {
  return new CacheportError("INTERRUPTED", "Interrupted");
}
