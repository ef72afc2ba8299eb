/** Ranges of blobs: `Range: bytes=...` of one range, as clients of registries send it. */
import { readChunks } from "./blob-check.ts";
import type { ServedBlob } from "./serve-repository.ts";

/** From the first byte up to the one before `end`. */
export interface ByteRange {
  start: number;
  end: number;
}

/**
 * Reads a Range header.
 *
 * @param size Bytes of the whole.
 * @returns Undefined for the whole: without a header, for several ranges and for any other
 *   unit, which a server may pass over (RFC 9110, 14.2).
 */
export function parseRange(
  header: string | null,
  size: number,
): ByteRange | "unsatisfiable" | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? "");
  if (!match) return undefined;
  const [, first = "", last = ""] = match;
  if (first === "") {
    if (last === "") return undefined;
    const count = Number(last);
    if (count === 0 || size === 0) return "unsatisfiable";
    return { start: Math.max(0, size - count), end: size };
  }
  const start = Number(first);
  if (last !== "" && Number(last) < start) return undefined;
  if (start >= size) return "unsatisfiable";
  return { start, end: last === "" ? size : Math.min(size, Number(last) + 1) };
}

/** The answer to a request for a blob or a part of it. */
export async function rangeResponse(
  blob: ServedBlob,
  range: ByteRange | undefined,
  isHead: boolean,
  headers: Record<string, string>,
): Promise<Response> {
  const { start, end } = range ?? { start: 0, end: blob.size };
  const all = {
    ...headers,
    "content-length": String(end - start),
    ...(range && { "content-range": `bytes ${start}-${end - 1}/${blob.size}` }),
  };
  const status = range ? 206 : 200;
  if (isHead || end === start) return new Response(null, { status, headers: all });
  const { location } = blob;
  const body = location
    ? Bun.file(location.path).slice(location.offset + start, location.offset + end)
    : partOf(await blob.open(), start, end);
  return new Response(body, { status, headers: all });
}

/** A part of a stream. */
function partOf(
  stream: ReadableStream<Uint8Array>,
  start: number,
  end: number,
): ReadableStream<Uint8Array> {
  const chunks = readChunks(stream);
  let at = 0;
  return new ReadableStream({
    async pull(controller) {
      while (at < end) {
        const { done, value } = await chunks.next();
        if (done) throw new Error("the blob ended early");
        const from = Math.max(0, start - at);
        const piece = value.subarray(from, Math.max(from, end - at));
        at += value.length;
        if (piece.length === 0) continue;
        controller.enqueue(piece);
        if (at < end) return;
      }
      controller.close();
      await chunks.return();
    },
    async cancel() {
      await chunks.return();
    },
  });
}
