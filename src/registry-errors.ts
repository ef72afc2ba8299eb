/**
 * What registries say when they refuse, turned into one clear sentence.
 *
 * Sources: OCI distribution-spec, "Error Codes"; the refusals of index-shaped
 * caches collected in moby/buildkit issue 2251 and its duplicates; the words of
 * Amazon ECR, Harbor, Quay and Nexus for immutable tags and quotas.
 */
import { CacheportError } from "./errors.ts";
import type { ErrorCode, Remedy } from "./errors.ts";
import { isJsonObject } from "./go-json.ts";
import { DOCKER_LIST, isDocumentType, isIndexType } from "./media-types.ts";

/** One fault in a registry's answer. */
export interface RegistryFault {
  /** For example `MANIFEST_UNKNOWN`; empty when there is none. */
  readonly code: string;
  readonly message: string;
}

/** The part of an answer that a refusal is read from. */
export interface Refusal {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array;
}

/** What was asked for when a registry refused. */
export interface RefusalContext {
  /** The start of the sentence: `Cannot read manifest "host/app:1"`. */
  readonly action: string;
  /** Host and repository. */
  readonly location: string;
  /** The repository is known to be there. */
  readonly exists?: boolean | undefined;
  /** The code of the error when the thing is not there. */
  readonly missing?: ErrorCode | undefined;
  /** A further word on why credentials may be wrong. */
  readonly credentials?: string | undefined;
  /** True when credentials were there to be sent. */
  readonly authenticated?: boolean | undefined;
  /** The document that was refused. */
  readonly document?: RefusedDocument | undefined;
  /** Takes secrets out of the server's text. */
  readonly redact: (text: string) => string;
}

/** A document on its way into a registry. */
export interface RefusedDocument {
  readonly mediaType: string;
  /** A tag or a digest. */
  readonly name: string;
  /** True when it is an index that lists blobs, as a cache in index shape does. */
  readonly listsBlobs: boolean;
}

const MAX_TEXT = 300;

/** Reads the faults in an error answer; an empty list for what is no such document. */
export function parseFaults(body: Uint8Array): RegistryFault[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(body));
  } catch {
    return [];
  }
  if (!isJsonObject(value) || !Array.isArray(value["errors"])) return [];
  return value["errors"].filter(isJsonObject).map((fault) => ({
    code: typeof fault["code"] === "string" ? fault["code"] : "",
    message: [fault["message"], fault["detail"]]
      .filter((text) => typeof text === "string" && text !== "")
      .join(": "),
  }));
}

/** Makes a server's text fit for a terminal: one line, no control characters, not too long. */
export function cleanText(text: string): string {
  const line = text
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ")
    .replace(/\s+/g, " ")
    .trim()
    .replace(/\.+$/, "");
  return line.length > MAX_TEXT ? `${line.slice(0, MAX_TEXT)}...` : line;
}

/**
 * What a server says outside of the form for errors: the message of another JSON
 * document, the text of a page, or plain text.
 */
export function looseWords(body: Uint8Array): string {
  const text = new TextDecoder().decode(body.subarray(0, 16_384));
  try {
    return messages(JSON.parse(text)).join(": ");
  } catch {
    return text
      .replace(/<(script|style|head)\b[^]*?<\/\1\s*>/gi, " ")
      .replace(/<[^>]*>/g, " ")
      .replace(/&(?:nbsp|#160);/g, " ")
      .slice(0, 4 * MAX_TEXT);
  }
}

const MESSAGE_FIELDS = [
  "error",
  "code",
  "message",
  "msg",
  "title",
  "detail",
  "details",
  "error_description",
  "reason",
];

function messages(value: unknown, depth = 0): string[] {
  if (typeof value === "string") return value === "" ? [] : [value];
  if (Array.isArray(value)) return value.slice(0, 3).flatMap((one) => messages(one, depth + 1));
  if (!isJsonObject(value) || depth > 3) return [];
  return [
    ...new Set(["errors", ...MESSAGE_FIELDS].flatMap((field) => messages(value[field], depth + 1))),
  ];
}

/** The server's own words: `404 MANIFEST_UNKNOWN: manifest unknown`. */
function serverWords(refusal: Refusal, redact: RefusalContext["redact"]) {
  const words = parseFaults(refusal.body)
    .slice(0, 3)
    .map(({ code, message }) => [code, message].filter(Boolean).join(": "))
    .join("; ");
  const clean = cleanText(redact(words || looseWords(refusal.body)));
  return clean ? `${refusal.status} ${clean}` : `${refusal.status}`;
}

/**
 * The error for an answer that is no success.
 *
 * @returns REGISTRY_DENIED, REGISTRY_REJECTED, REGISTRY_FAILED, NO_SPACE,
 * LOCATION_NOT_FOUND, REGISTRY_UNSUPPORTED, or the code for what is missing
 */
export function refusalError(refusal: Refusal, context: RefusalContext): CacheportError {
  const { status } = refusal;
  const faults = parseFaults(refusal.body);
  const codes = new Set(faults.map(({ code }) => code.toUpperCase()));
  const words = serverWords(refusal, context.redact);
  const text = faults.map(({ message }) => message).join(" ");
  const fail = (code: ErrorCode, reason: string, hint?: string | Remedy) =>
    new CacheportError(code, `${context.action}: ${reason} (${words})`, {
      hint,
      refused: code === "NO_SPACE",
    });

  if (/immutab|cannot be overwritten/i.test(text)) {
    return fail(
      "REGISTRY_REJECTED",
      "the repository does not let a tag be overwritten",
      "Choose another tag, or allow this one to be overwritten in the registry's settings",
    );
  }
  if (
    status === 507 ||
    /quota|insufficient storage|no space left|limit of storage|storage limit/i.test(text)
  ) {
    return fail(
      "NO_SPACE",
      "the registry has no room left for it",
      "Delete what is no longer needed in the registry, or ask for a larger quota",
    );
  }
  if (status === 413) {
    return fail(
      "REGISTRY_REJECTED",
      "it is larger than the registry, or a proxy in front of it, accepts",
      "Raise the limit for request bodies there",
    );
  }
  if (status === 429 || codes.has("TOOMANYREQUESTS")) {
    const wait = refusal.headers.get("retry-after");
    return fail(
      "REGISTRY_FAILED",
      "the registry limits how much may be asked, and the limit is reached",
      wait && /^[\w ,:+-]{1,40}$/.test(wait)
        ? `Try again later: the registry says Retry-After: ${wait}`
        : { do: "ask-less" },
    );
  }
  if (status === 401 || status === 403 || codes.has("DENIED") || codes.has("UNAUTHORIZED")) {
    return fail("REGISTRY_DENIED", deniedReason(status, context), hintAtLogin(context));
  }
  return (
    documentRefusal(status, codes, context, fail) ?? otherRefusal(status, codes, context, fail)
  );
}

function deniedReason(status: number, { authenticated = false }: RefusalContext): string {
  if (status !== 401) return "the registry does not allow it";
  return authenticated ? "the registry does not accept the login" : "the registry wants a login";
}

function hintAtLogin({ credentials, authenticated }: RefusalContext): string | Remedy {
  if (credentials) return `Credentials were looked for, but ${credentials}`;
  return authenticated
    ? "Check the user name and the password, and what they permit; a missing repository may be reported in the same way"
    : { do: "log-in" };
}

type Fail = (code: ErrorCode, reason: string, hint?: string | Remedy) => CacheportError;

/** What a registry means by refusing a document; undefined when something else is wrong. */
function documentRefusal(
  status: number,
  codes: ReadonlySet<string>,
  { document, location }: RefusalContext,
  fail: Fail,
): CacheportError | undefined {
  if (!document) return undefined;
  if (document.listsBlobs) {
    const shape = document.mediaType === DOCKER_LIST ? "a Docker manifest list" : "an OCI index";
    return fail(
      "REGISTRY_REJECTED",
      `this registry does not take caches in the shape of ${shape}`,
      {
        do: "write-image-manifest",
        target: document.name.includes(":") ? location : `${location}:${document.name}`,
      },
    );
  }
  if (
    codes.has("MANIFEST_BLOB_UNKNOWN") ||
    codes.has("BLOB_UNKNOWN") ||
    (status !== 404 && codes.has("MANIFEST_UNKNOWN"))
  ) {
    return fail(
      "REGISTRY_REJECTED",
      "the registry misses content that the document names",
      "Copy the whole content again; the registry may have deleted a part of it meanwhile",
    );
  }
  if (status === 400 || status === 415 || status === 422) {
    return fail(
      "REGISTRY_REJECTED",
      `the registry does not take documents of the type ${document.mediaType} in this form`,
    );
  }
  return undefined;
}

function otherRefusal(
  status: number,
  codes: ReadonlySet<string>,
  context: RefusalContext,
  fail: Fail,
): CacheportError {
  if (status === 404) {
    if (context.missing && (context.exists || !codes.has("NAME_UNKNOWN")))
      return fail(context.missing, "the registry does not have it");
    if (context.exists)
      return fail(
        "REGISTRY_FAILED",
        "the registry does not find what it has begun to take",
        "Try again; where several servers are behind one name, each has to see what the others have",
      );
    if (context.missing) return fail(context.missing, "the registry has no such repository");
    return fail(
      "LOCATION_NOT_FOUND",
      "the registry has no such repository",
      "Create the repository first: some registries, Amazon ECR among them, do not create it on a push",
    );
  }
  if (status === 405 || codes.has("UNSUPPORTED"))
    return fail("REGISTRY_UNSUPPORTED", "the registry does not support it");
  if (codes.has("NAME_INVALID"))
    return fail(
      "REGISTRY_REJECTED",
      "the registry does not accept the repository's name",
      "Some registries want a project or a user before the name, or lower-case letters only",
    );
  return fail("REGISTRY_FAILED", "the registry failed");
}

/**
 * Tells whether an index lists blobs beside or instead of manifests, as a cache in
 * index shape does. Registries that follow the specification refuse that.
 */
export function listsBlobs(mediaType: string, bytes: Uint8Array): boolean {
  if (!isIndexType(mediaType)) return false;
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return false;
  }
  if (!isJsonObject(value) || !Array.isArray(value["manifests"])) return false;
  return value["manifests"].some(
    (entry) =>
      isJsonObject(entry) &&
      typeof entry["mediaType"] === "string" &&
      !isDocumentType(entry["mediaType"]),
  );
}
