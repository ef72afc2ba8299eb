import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { blobPath, digestOf } from "../src/digest.ts";
import { CacheportError, isCacheportError } from "../src/errors.ts";
import { LayoutArchive } from "../src/archive-reader.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "../src/layout-directory.ts";
import { archiveFileFormat } from "../src/archive-format.ts";
import { openLayoutStream } from "../src/archive-unpacked.ts";
import { copyAll, makeTar, paxRecords } from "./helpers/archives.ts";
import type { TestMember } from "./helpers/archives.ts";
import { failure } from "./helpers/errors.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const IMAGE = readFileSync(fixture("image.tar"));
const LIMIT = 4 * 1024 * 1024;

/** A stream in pieces of one size. */
function streamOf(bytes: Uint8Array, piece: number = 64 * 1024): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.subarray(at, (at += piece)));
    },
  });
}

/** Opens a stream in a folder of its own, which must be empty again after a failure. */
async function openIn(
  source: ReadableStream<Uint8Array>,
  tempRoot: string = tempFolder(),
): Promise<LayoutArchive> {
  try {
    return await openLayoutStream(source, { tempRoot });
  } catch (error) {
    expect(readdirSync(tempRoot)).toEqual([]);
    throw error;
  }
}

async function refNames(bytes: Uint8Array): Promise<(string | undefined)[]> {
  const stream = await openIn(streamOf(bytes));
  try {
    return (await stream.list()).map((entry) => entry.refName);
  } finally {
    await stream.close();
  }
}

const index = (name: string): TestMember => ({
  name: "index.json",
  content: JSON.stringify({
    schemaVersion: 2,
    manifests: [
      {
        mediaType: "x/y",
        digest: digestOf("blob"),
        size: 4,
        annotations: { "org.opencontainers.image.ref.name": name },
      },
    ],
  }),
});
const BLOB: TestMember = { name: blobPath(digestOf("blob")), content: "blob" };
const DESCRIPTOR = { mediaType: "x/y", digest: digestOf("blob"), size: 4 };

describe("openLayoutStream", () => {
  test.each([
    ["not compressed", IMAGE],
    ["gzip", gzipSync(IMAGE)],
    [
      "gzip of several members",
      Buffer.concat([gzipSync(IMAGE.subarray(0, 9999)), gzipSync(IMAGE.subarray(9999))]),
    ],
    ["zstd", zstdCompressSync(IMAGE)],
  ])("reads what is %s, in pieces of any size", async (_title, bytes) => {
    for (const piece of [1, 511, 4096, 1 << 24]) {
      const tempRoot = tempFolder();
      const stream = await openIn(streamOf(bytes, piece), tempRoot);
      const { descriptor } = await stream.resolve({ name: "1.0" });
      await stream.read(descriptor, LIMIT);
      expect(stream.blobs().size).toBe(4);
      for (const [digest, size] of stream.blobs()) {
        const blob = { mediaType: "", digest, size };
        expect(await stream.stat(blob)).toBe(size);
        const found = await stream.locate(blob);
        expect(found).toMatchObject({ offset: 0, size, disposable: true });
        expect(digestOf(readFileSync(found?.path ?? ""))).toBe(digest);
        const opened = await stream.open(blob);
        expect(digestOf(await new Response(opened).bytes())).toBe(digest);
      }
      await stream.close();
      await stream.close();
      expect(readdirSync(tempRoot)).toEqual([]);
    }
  });

  test("lets a folder take its blobs away without a copy", async () => {
    const root = tempFolder();
    const target = join(root, "layout");
    const stream = await openIn(streamOf(IMAGE), root);
    const writer = await LayoutDirectoryWriter.open(target, { create: true });
    await copyAll(stream, writer);
    await writer.close();
    await stream.close();
    const layout = await LayoutDirectory.open(target);
    const archive = await LayoutArchive.open(fixture("image.tar"));
    expect(await layout.list()).toEqual(await archive.list());
    await archive.close();
    expect(readdirSync(root)).toEqual(["layout"]);
  });

  test("reads the same forms as a file that is read in place", async () => {
    const long = `${"d".repeat(150)}/file`;
    const extended = makeTar([
      { name: "g", typeflag: "g", content: paxRecords({ comment: "git" }) },
      { name: "./", typeflag: "5" },
      { name: "x", typeflag: "x", content: paxRecords({ path: long }) },
      { name: "short", content: "hello" },
      { name: "././@LongLink", typeflag: "L", content: `${long}2\0` },
      { name: long.slice(0, 100), content: "hello" },
      { name: "x", typeflag: "x", content: paxRecords({ size: "4" }) },
      { ...BLOB, size: 0, name: `./${BLOB.name}` },
      { ...index("v1"), name: "./index.json", magic: "", typeflag: "\0" },
    ]);
    expect(await refNames(extended)).toEqual(["v1"]);
  });

  test("takes the last of two members, of blobs too", async () => {
    const bytes = makeTar([{ ...BLOB, content: "BLOB" }, index("old"), BLOB, index("new")]);
    expect(await refNames(bytes)).toEqual(["new"]);
    const stream = await openIn(streamOf(bytes));
    expect(await stream.read(DESCRIPTOR, LIMIT)).toHaveLength(4);
    await stream.close();
  });

  test("stops at the end mark, behind which a crash may have left something", async () => {
    const bytes = Buffer.concat([
      makeTar([BLOB, index("old")]),
      makeTar([index("new")]),
      Buffer.from("and no tar at all ".repeat(100)),
    ]);
    expect(await refNames(bytes)).toEqual(["old"]);
  });

  test("checks what it reads", async () => {
    const bytes = makeTar([{ ...BLOB, content: "BLOB" }, index("v1")]);
    const stream = await openIn(streamOf(bytes));
    const error = await failure(() => stream.read(DESCRIPTOR, LIMIT));
    expect(error.code).toBe("DIGEST_MISMATCH");
    await stream.close();
  });
});

const WRONG: [string, Uint8Array, string][] = [
  ["nothing", Buffer.alloc(0), "ARCHIVE_INVALID"],
  ["less than a block", Buffer.from("hello"), "ARCHIVE_INVALID"],
  ["text", Buffer.from("hello ".repeat(500)), "ARCHIVE_INVALID"],
  ["zeros", Buffer.alloc(4096), "LAYOUT_INVALID"],
  ["a tar without a layout", makeTar([{ name: "a" }]), "LAYOUT_INVALID"],
  ["xz", Buffer.from("fd377a585a000000", "hex"), "NOT_SUPPORTED"],
  ["bzip2", Buffer.from("BZh91AY&SY"), "NOT_SUPPORTED"],
  ["zip", Buffer.from("PK\u0003\u0004...."), "NOT_SUPPORTED"],
  ["truncated gzip", gzipSync(IMAGE).subarray(0, 5000), "COMPRESSION_INVALID"],
  ["truncated zstd", zstdCompressSync(IMAGE).subarray(0, 5000), "COMPRESSION_INVALID"],
  ["damaged gzip", gzipSync(IMAGE).fill(0x55, 3000, 3100), "COMPRESSION_INVALID"],
  ["gzip within gzip", gzipSync(gzipSync(IMAGE)), "ARCHIVE_INVALID"],
  [
    "a member above the root",
    makeTar([index("v1"), { name: "../../etc/passwd" }]),
    "ARCHIVE_INVALID",
  ],
  ["an absolute member", makeTar([index("v1"), { name: "/etc/passwd" }]), "ARCHIVE_INVALID"],
  [
    "a hard link as index.json",
    makeTar([BLOB, { name: "index.json", typeflag: "1", linkname: "x" }]),
    "ARCHIVE_INVALID",
  ],
  [
    "an index.json over the limit",
    makeTar([{ name: "index.json", content: " ".repeat(LIMIT + 1) }]),
    "DOCUMENT_TOO_LARGE",
  ],
  [
    "an index.json that is no JSON",
    makeTar([{ name: "index.json", content: "{" }]),
    "DOCUMENT_INVALID",
  ],
];

describe("openLayoutStream refuses", () => {
  test.each(WRONG)("%s, and leaves nothing behind", async (_title, bytes, code) => {
    const error = await failure(() => openIn(streamOf(bytes)));
    expect(error.code).toBe(code as never);
    expect(error.message).toStartWith("Cannot ");
  });

  const sparse = paxRecords({ "GNU.sparse.major": "1" });
  test.each<[string, TestMember[]]>([
    ["a symbolic link", [{ name: BLOB.name, typeflag: "2", linkname: "/etc/passwd" }]],
    ["a hard link to what is not there", [{ name: BLOB.name, typeflag: "1", linkname: "x" }]],
    ["a directory", [{ name: BLOB.name, typeflag: "5" }]],
    ["a file with a slash at the end", [{ name: `${BLOB.name}/` }]],
    ["a sparse file", [{ name: "x", typeflag: "x", content: sparse }, BLOB]],
  ])("%s in the place of a blob when it is asked for, as a file does", async (_title, members) => {
    const stream = await openIn(streamOf(makeTar([...members, index("v1")])));
    for (const ask of [() => stream.read(DESCRIPTOR, LIMIT), () => stream.locate(DESCRIPTOR)]) {
      const error = await failure(ask);
      expect(error.code).toBe("ARCHIVE_INVALID");
      expect(error.message).toContain("no plain file");
    }
    await stream.close();
  });

  test("an archive that is truncated at any block, or has all that it names", async () => {
    for (let size = 512; size < IMAGE.length; size += 512) {
      try {
        expect(await refNames(IMAGE.subarray(0, size))).toEqual(["1.0"]);
      } catch (error) {
        if (!isCacheportError(error, "ARCHIVE_INVALID")) throw error;
        expect(error.message).toContain("truncated");
      }
    }
  });

  test("a header with a flipped bit, or reads it right", async () => {
    for (let bit = 0; bit < 512 * 8; bit += 37) {
      const broken = Buffer.from(IMAGE);
      // The header of index.json.
      const at = 26_112 + (bit >> 3);
      broken[at] = (broken[at] as number) ^ (1 << (bit & 7));
      try {
        expect(await refNames(broken)).toEqual(["1.0"]);
      } catch (error) {
        if (!isCacheportError(error, "ARCHIVE_INVALID")) throw error;
      }
    }
  });

  test("what fails on the way, with the source's own error", async () => {
    const own = new CacheportError("IO_FAILED", "Cannot read standard input");
    const source = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(IMAGE.subarray(0, 5000)),
      pull: (controller) => controller.error(own),
    });
    expect(await failure(() => openIn(source))).toBe(own);
  });

  test("to wait for the rest of a pipe that has shown to be no tar", async () => {
    let cancelled = false;
    const source = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(Buffer.alloc(1024, "no tar ")),
      // Says nothing more for ever.
      pull: () => new Promise(() => {}),
      cancel: () => void (cancelled = true),
    });
    const error = await failure(() => openIn(source));
    expect(error.code).toBe("ARCHIVE_INVALID");
    await Bun.sleep(0);
    expect(cancelled).toBe(true);
  });

  test("to go on after an interruption", async () => {
    const tempRoot = tempFolder();
    const abort = new AbortController();
    const source = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(IMAGE.subarray(0, 9000)),
      pull: () => new Promise(() => setTimeout(() => abort.abort(), 10)),
    });
    const { signal } = abort;
    const error = await failure(() => openLayoutStream(source, { tempRoot, signal }));
    expect(error.code).toBe("INTERRUPTED");
    expect(readdirSync(tempRoot)).toEqual([]);
  });

  test("a temporary folder that cannot be made", async () => {
    const tempRoot = join(tempFolder(), "missing");
    const error = await failure(() => openLayoutStream(streamOf(IMAGE), { tempRoot }));
    expect(error.code).toBe("IO_FAILED");
    expect(existsSync(tempRoot)).toBe(false);
  });
});

describe("bombs", () => {
  const zeros = Buffer.alloc(8 * 1024 * 1024);
  /** 8 MiB of zeros, of which any number make a bomb. */
  const member = gzipSync(zeros);

  /** A gzip of a start and then 10 GB of zeros; tells how far it was read. */
  function bomb(start: Uint8Array): {
    stream: ReadableStream<Uint8Array>;
    read: () => number;
  } {
    let at = 0;
    const stream = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          if (at > 1200) return controller.close();
          controller.enqueue(at++ === 0 ? gzipSync(start) : member);
        },
      },
      { highWaterMark: 0 },
    );
    return { stream, read: () => at };
  }

  test("10 GB of zeros behind an end mark are not read", async () => {
    const { stream, read } = bomb(makeTar([BLOB, index("v1")]));
    const layout = await openIn(stream);
    expect(await layout.list()).toHaveLength(1);
    await layout.close();
    expect(read()).toBeLessThan(20);
  });

  test("10 GB of zeros and nothing else are no layout", async () => {
    const { stream, read } = bomb(Buffer.alloc(512));
    expect((await failure(() => openIn(stream))).code).toBe("LAYOUT_INVALID");
    expect(read()).toBeLessThan(20);
  });

  test.each([BLOB.name, "junk"])("a member %s of 8 GB of zeros is given up early", async (name) => {
    const head = makeTar([{ name, size: 8 ** 11 - 1 }], { end: false });
    const { stream, read } = bomb(head);
    const error = await failure(() => openIn(stream));
    expect(error.code).toBe("COMPRESSION_INVALID");
    expect(error.message).toContain("fill disks");
    expect(read()).toBeLessThan(60);
  });
});

test("archiveFileFormat tells the format of a file", async () => {
  const folder = tempFolder();
  const formatOf = (bytes: Uint8Array): Promise<string> => {
    const path = join(folder, crypto.randomUUID());
    writeFileSync(path, bytes);
    return archiveFileFormat(path);
  };
  expect(await formatOf(IMAGE)).toBe("uncompressed");
  expect(await formatOf(gzipSync("x"))).toBe("gzip");
  expect(await formatOf(zstdCompressSync("x"))).toBe("zstd");
  expect(await formatOf(Buffer.from("502a4d1804000000", "hex"))).toBe("zstd");
  const missing = await failure(() => archiveFileFormat(join(folder, "none")));
  expect(missing.code).toBe("LOCATION_NOT_FOUND");
});
