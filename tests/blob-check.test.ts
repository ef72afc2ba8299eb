import { describe, expect, test } from "bun:test";
import { digestOf } from "../src/digest.ts";
import {
  checkedChunks,
  checkHashed,
  ContentCheck,
  readChunks,
  readWhole,
  verifiedStream,
} from "../src/blob-check.ts";
import { failure } from "./helpers/errors.ts";

const BYTES = new TextEncoder().encode("the bytes of a layer");
const EXPECTED = { digest: digestOf(BYTES), size: BYTES.length };

/** A stream of chunks that remembers whether it was cancelled. */
function streamOf(chunks: Uint8Array[]) {
  const rest = [...chunks];
  const state = { cancelled: false };
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      const chunk = rest.shift();
      if (chunk) controller.enqueue(chunk);
      else controller.close();
    },
    cancel() {
      state.cancelled = true;
    },
  });
  return { stream, state };
}

async function collect(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe("verifiedStream", () => {
  test.each([1, 3, 7, 100])("passes good content in chunks of %d", async (n) => {
    const chunks: Uint8Array[] = [];
    for (let i = 0; i < BYTES.length; i += n) chunks.push(BYTES.slice(i, i + n));
    const read = await collect(verifiedStream(streamOf(chunks).stream, EXPECTED));
    expect(new Uint8Array(read)).toEqual(BYTES);
  });

  test("passes empty content and SHA-512", async () => {
    const empty = new Uint8Array();
    const none = verifiedStream(streamOf([]).stream, { digest: digestOf(empty), size: 0 });
    expect(await collect(none)).toHaveLength(0);
    const wanted = { digest: digestOf(BYTES, "sha512"), size: BYTES.length };
    expect(await collect(verifiedStream(streamOf([BYTES]).stream, wanted))).toHaveLength(
      BYTES.length,
    );
  });

  test("fails at the end for other bytes", async () => {
    const other = Uint8Array.from(BYTES, (byte, i) => (i === 5 ? byte ^ 1 : byte));
    const error = await failure(() => collect(verifiedStream(streamOf([other]).stream, EXPECTED)));
    expect(error.code).toBe("DIGEST_MISMATCH");
  });

  test("fails at the end for too few bytes", async () => {
    const error = await failure(() =>
      collect(verifiedStream(streamOf([BYTES.slice(1)]).stream, EXPECTED)),
    );
    expect(error.code).toBe("SIZE_MISMATCH");
  });

  test("fails as soon as there are too many bytes, and gives up the source", async () => {
    const endless = streamOf(Array.from({ length: 1000 }, () => BYTES));
    const error = await failure(() => collect(verifiedStream(endless.stream, EXPECTED)));
    expect(error.code).toBe("SIZE_MISMATCH");
    expect(endless.state.cancelled).toBe(true);
  });

  test("passes on the failure of the source", async () => {
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        controller.error(new Error("connection lost"));
      },
    });
    await expect(collect(verifiedStream(stream, EXPECTED))).rejects.toThrow("connection lost");
  });
});

describe("readWhole", () => {
  test("gives all bytes up to the limit", async () => {
    const { stream } = streamOf([BYTES, BYTES]);
    const bytes = await readWhole(stream, 2 * BYTES.length, "it");
    expect(bytes).toHaveLength(2 * BYTES.length);
  });

  test("gives up beyond the limit", async () => {
    const { stream, state } = streamOf([BYTES, BYTES, BYTES]);
    const error = await failure(() => readWhole(stream, BYTES.length, "it"));
    expect(error.code).toBe("DOCUMENT_TOO_LARGE");
    expect(state.cancelled).toBe(true);
  });
});

describe("readChunks", () => {
  test("ends a stream that has stalled when the signal fires", async () => {
    const abort = new AbortController();
    const stalled = new ReadableStream<Uint8Array>({
      pull: () => new Promise(() => {}),
    });
    const reading = failure(() => readWhole(stalled, 10, "it", abort.signal));
    await Bun.sleep(1);
    abort.abort();
    expect((await reading).code).toBe("INTERRUPTED");
  });

  test("cancels the stream when its reader stops early", async () => {
    const { stream, state } = streamOf([BYTES, BYTES]);
    for await (const _ of readChunks(stream)) break;
    expect(state.cancelled).toBe(true);
  });
});

describe("ContentCheck", () => {
  const expected = { digest: digestOf("hello"), size: 5 };
  const pieces = (...texts: string[]): Uint8Array[] => texts.map((text) => Buffer.from(text));

  test.each([
    ["the right bytes, in any pieces", ["he", "", "llo"], undefined],
    ["too few", ["hell"], "SIZE_MISMATCH"],
    ["none", [], "SIZE_MISMATCH"],
    ["too many, at once", ["hello", "!"], "SIZE_MISMATCH"],
    ["others", ["hallo"], "DIGEST_MISMATCH"],
  ])("%s", async (_title, texts, code) => {
    const check = new ContentCheck(expected);
    const run = async (): Promise<void> => {
      for (const piece of pieces(...texts)) check.add(piece);
      check.finish();
    };
    if (code === undefined) await run();
    else expect((await failure(run)).code as string).toBe(code);
    expect(check.received).toBe(texts.join("").length);
  });

  test("checkedChunks() keeps the last chunk back until all of them are right", async () => {
    async function* source(...texts: string[]): AsyncGenerator<Uint8Array> {
      yield* pieces(...texts);
    }
    const seen: string[] = [];
    const take = async (...texts: string[]): Promise<void> => {
      seen.length = 0;
      for await (const chunk of checkedChunks(source(...texts), expected))
        seen.push(Buffer.from(chunk).toString());
    };
    await take("he", "llo");
    expect(seen).toEqual(["he", "llo"]);
    expect((await failure(() => take("ha", "llo"))).code).toBe("DIGEST_MISMATCH");
    expect(seen).toEqual(["ha"]);
    expect((await failure(() => take("he", "llo", "!"))).code).toBe("SIZE_MISMATCH");
    expect(seen).toEqual(["he"]);
  });

  test("checkHashed() names the size before the digest", async () => {
    checkHashed(expected, { ...expected });
    const other = digestOf("other");
    const size = await failure(async () => checkHashed(expected, { digest: other, size: 4 }));
    expect(size.code).toBe("SIZE_MISMATCH");
    const digest = await failure(async () => checkHashed(expected, { digest: other, size: 5 }));
    expect(digest.code).toBe("DIGEST_MISMATCH");
  });
});
