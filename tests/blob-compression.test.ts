import { describe, expect, test } from "bun:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { compressionLevel, decompressStream, detectCompression } from "../src/blob-compression.ts";
import { compressStream } from "../src/blob-pack.ts";
import { failure } from "./helpers/errors.ts";
import { has } from "./helpers/machine.ts";

const MIB = 1024 * 1024;

/** Bytes that compress, the same each time. */
function sample(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = 1;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[at] = at % 3 === 0 ? state >>> 24 : at >>> 8;
  }
  return bytes;
}

const join = (...parts: Uint8Array[]): Uint8Array => Buffer.concat(parts);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** A stream in chunks of a size; `onCancel` is told when nobody wants the rest. */
function streamOf(
  bytes: Uint8Array,
  chunk: number,
  onCancel?: () => void,
): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + chunk));
      at += chunk;
    },
    ...(onCancel ? { cancel: onCancel } : {}),
  });
}

async function collect(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const pack = (
  bytes: Uint8Array,
  kind: "gzip" | "zstd",
  level?: number,
  chunk = 100_000,
): Promise<Buffer> =>
  collect(compressStream(streamOf(bytes, chunk), kind, compressionLevel(kind, level)));

const unpack = (bytes: Uint8Array, chunk: number): Promise<Buffer> =>
  collect(decompressStream(streamOf(bytes, chunk), undefined, "layer"));

const HELLO = text("hello ".repeat(200));
const GZIP = gzipSync(HELLO);
const ZSTD = Bun.zstdCompressSync(HELLO);
/** A zstd frame that is to be skipped, with 4 bytes in it. */
const SKIPPABLE = Uint8Array.of(0x53, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4);

describe("detectCompression", () => {
  test.each([
    ["gzip", GZIP, "gzip"],
    ["zstd", ZSTD, "zstd"],
    ["zstd that begins with a skippable frame", SKIPPABLE, "zstd"],
    ["nothing", new Uint8Array(), "uncompressed"],
    ["text", HELLO, "uncompressed"],
    ["a gzip mark alone", Uint8Array.of(0x1f, 0x8b), "uncompressed"],
    ["another method than deflate", Uint8Array.of(0x1f, 0x8b, 7, 0), "uncompressed"],
    ["half a zstd mark", Uint8Array.of(0x28, 0xb5, 0x2f), "uncompressed"],
    ["P and no skippable frame", text("P*M?"), "uncompressed"],
  ] as const)("%s", (_title, bytes, expected) => {
    expect(detectCompression(bytes)).toBe(expected);
  });
});

describe("compressionLevel", () => {
  test("has BuildKit's ranges and defaults", () => {
    expect(compressionLevel("gzip", undefined)).toBe(6);
    expect(compressionLevel("gzip", 0)).toBe(0);
    expect(compressionLevel("gzip", 9)).toBe(9);
    expect(compressionLevel("zstd", undefined)).toBe(3);
    expect(compressionLevel("zstd", 0)).toBe(3);
    expect(compressionLevel("zstd", 22)).toBe(22);
  });

  test.each([
    ["gzip", 10],
    ["gzip", -1],
    ["zstd", 23],
    ["zstd", 1.5],
  ] as const)("refuses %s %p", async (kind, level) => {
    const error = await failure(() => compressionLevel(kind, level));
    expect(error.code).toBe("USAGE");
  });
});

describe("decompressStream", () => {
  const GOOD: [string, Uint8Array, number][] = [
    ["gzip", GZIP, 1],
    ["gzip of two members", join(GZIP, GZIP), 2],
    ["gzip with zeros after it", join(GZIP, new Uint8Array(512)), 1],
    ["gzip of two members with zeros after them", join(GZIP, GZIP, new Uint8Array(1)), 2],
    ["gzip of nothing with zeros after it", join(gzipSync(""), new Uint8Array(70_000)), 0],
    ["zstd", ZSTD, 1],
    ["zstd of two frames", join(ZSTD, ZSTD), 2],
    ["zstd after a skippable frame", join(SKIPPABLE, ZSTD), 1],
    ["zstd around a skippable frame", join(ZSTD, SKIPPABLE, ZSTD), 2],
    ["zstd before a skippable frame", join(ZSTD, SKIPPABLE), 1],
    ["uncompressed", HELLO, 1],
    ["nothing", new Uint8Array(), 0],
  ];
  const BAD: [string, Uint8Array][] = [
    ["truncated gzip", GZIP.subarray(0, -1)],
    ["gzip without its trailer", GZIP.subarray(0, -8)],
    ["a gzip header alone", GZIP.subarray(0, 10)],
    ["a truncated second gzip member", join(GZIP, GZIP.subarray(0, 12))],
    ["gzip with junk after it", join(GZIP, text("junk"))],
    ["gzip with junk behind zeros", join(GZIP, new Uint8Array(9000), text("junk"))],
    ["gzip with a member after zeros", join(GZIP, new Uint8Array(3), GZIP)],
    ["gzip with a wrong checksum", flipped(GZIP, GZIP.length - 8)],
    ["gzip with a wrong length", flipped(GZIP, GZIP.length - 1)],
    ["truncated zstd", ZSTD.subarray(0, -1)],
    ["a zstd mark alone", ZSTD.subarray(0, 4)],
    ["a truncated second zstd frame", join(ZSTD, ZSTD.subarray(0, 10))],
    ["a truncated skippable frame", join(ZSTD, SKIPPABLE.subarray(0, 9))],
    ["zstd with junk after it", join(ZSTD, text("junk"))],
    ["zstd with zeros after it", join(ZSTD, new Uint8Array(512))],
    ["zstd with a reserved bit set", flipped(ZSTD, 4, 0x08)],
  ];
  const CHUNKS = [1, 7, 45, MIB];

  test.each(GOOD)("unpacks %s", async (_title, bytes, times) => {
    const expected = Buffer.concat(Array<Uint8Array>(times).fill(HELLO));
    for (const chunk of CHUNKS) expect((await unpack(bytes, chunk)).equals(expected)).toBe(true);
  });

  test.each(BAD)("refuses %s, however it arrives", async (_title, bytes) => {
    for (const chunk of CHUNKS) {
      const error = await failure(() => unpack(bytes, chunk));
      expect(error.code).toBe("COMPRESSION_INVALID");
      expect(error.message).toStartWith("Cannot decompress layer: it is no valid");
    }
  });

  test("believes the caller who says what the stream is", async () => {
    const read = (bytes: Uint8Array, kind: "gzip" | "zstd") =>
      collect(decompressStream(streamOf(bytes, 10), kind, "layer"));
    expect((await read(GZIP, "gzip")).equals(HELLO)).toBe(true);
    for (const [bytes, kind] of [
      [HELLO, "gzip"],
      [ZSTD, "gzip"],
      [GZIP, "zstd"],
      [new Uint8Array(), "gzip"],
      [new Uint8Array(), "zstd"],
    ] as const) {
      const error = await failure(() => read(bytes, kind));
      expect(error.code).toBe("COMPRESSION_INVALID");
    }
  });

  test.each([GZIP, ZSTD, HELLO])("fails with the source's own error", async (bytes) => {
    let sent = false;
    const source = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (sent) throw new Error("cable cut");
        sent = true;
        controller.enqueue(bytes.slice(0, 20));
      },
    });
    await expect(collect(decompressStream(source, undefined, "layer"))).rejects.toThrow(
      "cable cut",
    );
  });

  test.each([
    ["gzip", gzipSync(sample(4 * MIB))],
    ["zstd", Bun.zstdCompressSync(sample(4 * MIB))],
    ["uncompressed", sample(4 * MIB)],
  ] as const)("a reader who stops early ends the source: %s", async (_title, bytes) => {
    for (const chunks of [0, 1]) {
      const cancelled = Promise.withResolvers<void>();
      const stream = decompressStream(
        streamOf(bytes, 1000, () => cancelled.resolve()),
        undefined,
        "layer",
      );
      const reader = stream.getReader();
      for (let i = 0; i < chunks; i++) await reader.read();
      await reader.cancel();
      await cancelled.promise;
    }
  });

  test("random damage is never an error of another kind, nor wrong bytes with a good checksum", async () => {
    let state = 42;
    const random = (below: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let round = 0; round < 300; round++) {
      const whole = round % 2 === 0 ? GZIP : ZSTD;
      const bytes = flipped(whole, random(whole.length), 1 << random(8));
      const cut = bytes.subarray(0, 4 + random(bytes.length - 3));
      try {
        await unpack(round % 3 === 0 ? cut : bytes, 1 + random(50));
      } catch (error) {
        expect((error as { code: string }).code).toBe("COMPRESSION_INVALID");
      }
    }
  });
});

describe("compressStream", () => {
  const SIZES = [0, 1, MIB, MIB + 1, 4 * MIB, 5 * MIB + 5];

  test.each(["gzip", "zstd"] as const)("%s of any size unpacks to the same bytes", async (kind) => {
    for (const size of SIZES) {
      const bytes = sample(size);
      const packed = await pack(bytes, kind);
      expect((await unpack(packed, 10_000)).equals(bytes)).toBe(true);
    }
  });

  test.each(["gzip", "zstd"] as const)(
    "%s does not depend on how the bytes arrive nor on what else is packed",
    async (kind) => {
      const bytes = sample(4 * MIB + 17);
      const packed = await Promise.all(
        [997, MIB, 16 * MIB].map((chunk) => pack(bytes, kind, undefined, chunk)),
      );
      for (const other of packed) expect(other.equals(packed[0] as Buffer)).toBe(true);
    },
  );

  test("gzip is one member with a fixed header, for readers that stop after the first", async () => {
    const bytes = sample(2 * MIB);
    const packed = await pack(bytes, "gzip");
    expect([...packed.subarray(0, 10)]).toEqual([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    expect(Buffer.from(Bun.gunzipSync(new Uint8Array(packed))).equals(bytes)).toBe(true);
    // Cutting the input into blocks costs next to nothing.
    expect(packed.length).toBeLessThan(gzipSync(bytes).length * 1.01);
  });

  test("a gzip block refers back to the one before it", async () => {
    const once = new Uint8Array(32 * 1024);
    for (let at = 0; at < once.length; at++) once[at] = Bun.hash.crc32(String(at));
    const before = new Uint8Array(MIB);
    before.set(once, MIB - once.length);
    const twice = await pack(join(before, once), "gzip");
    const alone = await pack(before, "gzip");
    expect(gunzipSync(twice).equals(join(before, once))).toBe(true);
    expect(twice.length - alone.length).toBeLessThan(1000);
  });

  test("a higher level packs tighter", async () => {
    const bytes = sample(MIB);
    for (const [kind, low, high] of [
      ["gzip", 1, 9],
      ["zstd", 1, 12],
    ] as const) {
      expect((await pack(bytes, kind, high)).length).toBeLessThan(
        (await pack(bytes, kind, low)).length,
      );
    }
    expect((await pack(bytes, "gzip", 0)).length).toBeGreaterThan(bytes.length);
  });

  for (const kind of ["gzip", "zstd"] as const)
    test.skipIf(!has(kind))(`${kind} is read by the program of that name`, async () => {
      const bytes = sample(5 * MIB);
      const child = Bun.spawn([kind, "-dc"], {
        stdin: await pack(bytes, kind),
        stdout: "pipe",
      });
      const unpacked = await new Response(child.stdout).bytes();
      expect(await child.exited).toBe(0);
      expect(Buffer.from(unpacked).equals(bytes)).toBe(true);
    });

  test.each(["gzip", "zstd"] as const)(
    "%s passes a failure of the source on and ends the source when its reader stops",
    async (kind) => {
      const broken = new ReadableStream<Uint8Array>({
        pull(controller) {
          controller.error(new Error("cable cut"));
        },
      });
      await expect(collect(compressStream(broken, kind, 1))).rejects.toThrow("cable cut");
      const cancelled = Promise.withResolvers<void>();
      const source = new ReadableStream<Uint8Array>({
        pull: (controller) => controller.enqueue(new Uint8Array(MIB)),
        cancel: () => cancelled.resolve(),
      });
      const reader = compressStream(source, kind, 1).getReader();
      await reader.read();
      await reader.cancel();
      await cancelled.promise;
    },
  );
});

/** A copy with some bits of one byte changed. */
function flipped(bytes: Uint8Array, at: number, bits = 1): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] as number) ^ bits;
  return copy;
}
