/** How a served registry says no: status and code of the OCI distribution specification. */
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError, systemError } from "./errors.ts";

/** A problem as the specification names it. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  readonly headers: Record<string, string>;

  constructor(status: number, code: string, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

/** @throws {Refusal} for what is no digest */
export function digestIn(text: string | null): Digest {
  if (isDigest(text)) return text;
  throw new Refusal(400, "DIGEST_INVALID", `${text ?? ""} is no digest`);
}

/** What a failure is called in the specification. */
const CODES: Record<string, readonly [status: number, code: string]> = {
  BLOB_MISSING: [400, "MANIFEST_BLOB_UNKNOWN"],
  DIGEST_MISMATCH: [400, "DIGEST_INVALID"],
  SIZE_MISMATCH: [400, "SIZE_INVALID"],
  DOCUMENT_INVALID: [400, "MANIFEST_INVALID"],
  DOCUMENT_UNKNOWN: [400, "MANIFEST_INVALID"],
  DOCUMENT_TOO_LARGE: [413, "SIZE_INVALID"],
  INDEX_TOO_DEEP: [400, "MANIFEST_INVALID"],
  NOT_A_CACHE: [400, "MANIFEST_INVALID"],
  CACHE_INVALID: [400, "MANIFEST_INVALID"],
  NOT_SUPPORTED: [400, "UNSUPPORTED"],
  NAME_AMBIGUOUS: [409, "NAME_INVALID"],
  REGISTRY_DENIED: [403, "DENIED"],
  NO_SPACE: [507, "UNKNOWN"],
};

/**
 * The answer for a failure.
 *
 * @param onFault Is told of what is no refusal: a fault of the location behind the registry.
 */
export function failureResponse(
  error: unknown,
  onFault: ((line: string) => void) | undefined,
): Response {
  if (error instanceof Refusal) {
    const { status, code, message, headers } = error;
    return Response.json({ errors: [{ code, message }] }, { status, headers });
  }
  const known = isCacheportError(error) ? error : systemError("Cannot answer", error);
  const [status, code] = CODES[known.code] ?? [500, "UNKNOWN"];
  onFault?.(known.message);
  return Response.json({ errors: [{ code, message: known.message }] }, { status });
}
