/** What object stores say when they refuse, turned into one clear sentence. */
import { CacheportError } from "./errors.ts";
import type { ErrorCode } from "./errors.ts";
import type { ObjectReply } from "./object-http.ts";
import { xmlText } from "./object-xml.ts";

/** What a store said: a code of its own and a sentence. */
export interface StoreFault {
  readonly code: string;
  readonly message: string;
}

const MAX_TEXT = 300;

/** Reads an error answer in XML (S3, Azure) or in JSON (GitHub). */
export function readFault({ headers, body }: ObjectReply): StoreFault {
  const text = new TextDecoder().decode(body.subarray(0, 65_536));
  if (text.trimStart().startsWith("{")) {
    try {
      const value = JSON.parse(text) as Record<string, unknown>;
      const code = value["typeKey"] ?? value["code"] ?? value["error"] ?? "";
      const message = value["msg"] ?? value["message"] ?? value["error_description"] ?? "";
      return { code: String(code), message: clean(String(message)) };
    } catch {
      return { code: "", message: "" };
    }
  }
  return {
    code: headers.get("x-ms-error-code") ?? xmlText(text, "Code") ?? "",
    message: clean(xmlText(text, "Message") ?? ""),
  };
}

/** A server's sentence on one line, without signatures and at a length that can be read. */
function clean(text: string): string {
  const line = text
    .replace(/\s+/g, " ")
    .replace(/[\p{Cc}\p{Cf}]/gu, "")
    .replace(/(sig|signature|token)=[^&\s]+/gi, "$1=***")
    .trim();
  return line.length > MAX_TEXT ? `${line.slice(0, MAX_TEXT)}...` : line;
}

/** How a refusal is to be told. */
export interface RefusalWords {
  /** The start of the sentence: `Cannot read blob "sha256:..." of "type=s3,..."`. */
  readonly action: string;
  /** The code when the thing itself is not there. */
  readonly missing?: ErrorCode | undefined;
  readonly hint?: string | undefined;
}

/** The error for an answer that is no success. */
export function refusal(
  reply: ObjectReply,
  { action, missing, hint }: RefusalWords,
): CacheportError {
  const { status } = reply;
  const { code, message } = readFault(reply);
  const said = [code, message].filter((part) => part !== "").join(": ");
  const reason = said === "" ? `it answered ${status}` : `${said.replace(/\.$/, "")} (${status})`;
  if (status === 404 && missing !== undefined)
    return new CacheportError(missing, `${action}: it is not there`, { hint });
  const isDenied =
    status === 401 ||
    status === 403 ||
    /^(?:InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken)/.test(code);
  return new CacheportError(isDenied ? "STORE_DENIED" : "STORE_FAILED", `${action}: ${reason}`, {
    hint: hint ?? (isDenied ? "Check the credentials and what they permit" : undefined),
  });
}
