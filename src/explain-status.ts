/**
 * Reads the status log of a build record: which steps were cached and how long each
 * one took.
 *
 * Source: BuildKit api/services/control/control.proto (StatusResponse, Vertex);
 * solver/llbsolver/history.go (each message behind its length in 4 bytes, little
 * endian); Protocol Buffers, "Encoding".
 */
import { CacheportError } from "./errors.ts";
import type { StepOutcome } from "./explain-build.ts";

/** One field of a message: a number, or bytes. */
type Field = { number: number; value: bigint | Uint8Array };

/** Vertices that are kept; no build has as many. */
const MAX_VERTICES = 200_000;

/**
 * Reads a log.
 *
 * @param what What the bytes are, for messages.
 * @returns What happened, by the digest of the vertex.
 * @throws {CacheportError} DOCUMENT_INVALID for a length that leads out of the log
 */
export function readStatusLog(bytes: Uint8Array, what: string): Map<string, StepOutcome> {
  const outcomes = new Map<string, StepOutcome>();
  const fetched = new Set<string>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length;) {
    if (at + 4 > bytes.length) throw invalid(what, "it ends within a length");
    const length = view.getUint32(at, true);
    at += 4;
    if (length > bytes.length - at)
      throw invalid(what, `a message of ${length} bytes is longer than the rest of the log`);
    for (const { number, value } of readFields(bytes.subarray(at, at + length), what)) {
      if (!(value instanceof Uint8Array)) continue;
      if (number === 1) addVertex(outcomes, value, what);
      else if (number === 2) addFetched(fetched, value, what);
    }
    at += length;
  }
  // What is fetched is a result of a cache; that its layers are unpacked takes time too, so
  // that BuildKit does not always call it cached.
  for (const digest of fetched) {
    const outcome = outcomes.get(digest);
    if (outcome) outcome.cached = true;
  }
  return outcomes;
}

/** Notes the vertex of a status that tells of a layer: `extracting sha256:...`. */
function addFetched(fetched: Set<string>, bytes: Uint8Array, what: string): void {
  const [id = "", vertex = ""] = [1, 2].map((wanted) => {
    const value = readFields(bytes, what).findLast(({ number }) => number === wanted)?.value;
    return value instanceof Uint8Array ? new TextDecoder().decode(value) : "";
  });
  if (/^(?:extracting )?sha256:/.test(id)) fetched.add(vertex);
}

function addVertex(outcomes: Map<string, StepOutcome>, bytes: Uint8Array, what: string): void {
  const fields = readFields(bytes, what);
  const last = (wanted: number): Field["value"] | undefined =>
    fields.findLast(({ number }) => number === wanted)?.value;
  const text = (wanted: number): string => {
    const value = last(wanted);
    return value instanceof Uint8Array ? new TextDecoder().decode(value) : "";
  };
  const digest = text(1);
  const known = outcomes.get(digest);
  if (!known && outcomes.size >= MAX_VERTICES) throw invalid(what, "it has too many steps");
  const started = readTime(last(5), what);
  const completed = readTime(last(6), what);
  const took = started !== undefined && completed !== undefined ? completed - started : undefined;
  // A step may start several times, to ask for its cache and to run: the longest is the run.
  const longest = [known?.seconds, took]
    .filter((seconds): seconds is number => seconds !== undefined && seconds >= 0)
    .reduce<number | undefined>((a, b) => Math.max(a ?? 0, b), undefined);
  outcomes.set(digest, {
    name: text(3) || (known?.name ?? ""),
    cached: completed === undefined ? (known?.cached ?? false) : last(4) === 1n,
    seconds: longest,
    error: text(7) || known?.error,
  });
}

/** A google.protobuf.Timestamp in seconds. */
function readTime(value: Field["value"] | undefined, what: string): number | undefined {
  if (!(value instanceof Uint8Array)) return undefined;
  let seconds = 0;
  for (const field of readFields(value, what)) {
    if (typeof field.value !== "bigint") continue;
    const number = Number(BigInt.asIntN(64, field.value));
    if (field.number === 1) seconds += number;
    else if (field.number === 2) seconds += number / 1e9;
  }
  return seconds;
}

/** The fields of a message in their order. */
function readFields(bytes: Uint8Array, what: string): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw invalid(what, "a message ends within a number");
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw invalid(what, "a number is too long");
  };
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) throw invalid(what, "a field is longer than its message");
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const number = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        fields.push({ number, value: varint() });
        break;
      case 1:
        fields.push({ number, value: take(8) });
        break;
      case 2:
        fields.push({ number, value: take(Number(varint())) });
        break;
      case 5:
        fields.push({ number, value: take(4) });
        break;
      default:
        throw invalid(what, "a field has an unknown type");
    }
  }
  return fields;
}

function invalid(what: string, reason: string): CacheportError {
  return new CacheportError("DOCUMENT_INVALID", `Cannot read the log of ${what}: ${reason}`);
}
