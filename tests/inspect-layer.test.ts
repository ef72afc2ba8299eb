import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import * as tar from "tar-stream";
import type { ContentReader } from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { digestOf } from "../src/digest.ts";
import { listLayer } from "../src/inspect-layer.ts";
import type { LayerFile } from "../src/inspect-layer.ts";
import { LayoutDirectory } from "../src/layout-directory.ts";
import { failure } from "./helpers/errors.ts";
import { readDocument, readIndex } from "./helpers/layout.ts";
import { fixture } from "./helpers/temp.ts";

/** A store that has one blob, whatever is asked for. */
function readerOf(bytes: Uint8Array): ContentReader {
  return {
    location: "memory",
    stat: async () => bytes.length,
    read: async () => bytes,
    open: async () => streamOf(bytes),
    locate: async () => undefined,
  };
}

const streamOf = (bytes: Uint8Array): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start(controller) {
      controller.enqueue(bytes);
      controller.close();
    },
  });

const describeBytes = (bytes: Uint8Array): Descriptor => ({
  mediaType: "application/vnd.oci.image.layer.v1.tar",
  digest: digestOf(bytes),
  size: bytes.length,
});

function list(
  bytes: Uint8Array,
  descriptor = describeBytes(bytes),
  signal?: AbortSignal,
): Promise<LayerFile[]> {
  return Array.fromAsync(listLayer(readerOf(bytes), descriptor, { signal }));
}

/** A tar of entries, without content or with zeros as content. */
async function tarOf(
  entries: (Partial<tar.Header> & { name: string; pax?: object })[],
): Promise<Buffer> {
  const pack = tar.pack();
  for (const entry of entries) {
    const content = Buffer.alloc(entry.type === undefined ? (entry.size ?? 0) : 0);
    pack.entry(entry as tar.Header, content);
  }
  pack.finalize();
  return Buffer.concat((await Array.fromAsync(pack)) as Buffer[]);
}

const tarBytes = await tarOf([{ name: "a", size: 5000 }, { name: "b" }]);

describe("listLayer", () => {
  test("lists every kind of entry", async () => {
    const mtime = new Date("2024-05-06T07:08:09Z");
    const common = { mode: 0o644, uid: 5, gid: 6, mtime };
    const bytes = await tarOf([
      { ...common, name: "./", type: "directory", mode: 0o755 },
      { ...common, name: "./bin/", type: "directory", mode: 0o1777 },
      { ...common, name: "bin/sh", size: 1234, mode: 0o4755 },
      { ...common, name: "/bin/bash", type: "symlink", linkname: "sh" },
      { ...common, name: "bin/dash", type: "link", linkname: "bin/sh" },
      { ...common, name: "dev/null", type: "character-device" },
      { ...common, name: "dev/sda", type: "block-device" },
      { ...common, name: "pipe", type: "fifo" },
      { ...common, name: "etc/.wh.passwd" },
      { ...common, name: "var/.wh..wh..opq" },
      { ...common, name: ".wh.opt" },
      { ...common, name: ".wh..wh.plnk" },
      { ...common, name: `${"long/".repeat(60)}name`, size: 3 },
    ]);
    const files = await list(bytes);
    expect(
      files.map(({ path, type, size, mode, link }) => [type, path, size, mode.toString(8), link]),
    ).toEqual([
      ["directory", ".", 0, "755", undefined],
      ["directory", "bin", 0, "1777", undefined],
      ["file", "bin/sh", 1234, "4755", undefined],
      ["symlink", "bin/bash", 0, "644", "sh"],
      ["hardlink", "bin/dash", 0, "644", "bin/sh"],
      ["character-device", "dev/null", 0, "644", undefined],
      ["block-device", "dev/sda", 0, "644", undefined],
      ["fifo", "pipe", 0, "644", undefined],
      ["whiteout", "etc/passwd", 0, "644", undefined],
      ["opaque", "var", 0, "644", undefined],
      ["whiteout", "opt", 0, "644", undefined],
      ["other", ".wh..wh.plnk", 0, "644", undefined],
      ["file", `${"long/".repeat(60)}name`, 3, "644", undefined],
    ]);
    for (const { uid, gid, mtime: time } of files) expect([uid, gid, time]).toEqual([5, 6, mtime]);
  });

  test("PAX numbers and times go before the header's", async () => {
    const bytes = await tarOf([
      {
        name: "a",
        pax: { uid: "3000000", gid: "4000000", mtime: "1700000000.5" },
      },
    ]);
    const [file] = await list(bytes);
    expect(file).toMatchObject({
      uid: 3_000_000,
      gid: 4_000_000,
      mtime: new Date(1_700_000_000_500),
    });
  });

  test("reads gzip and zstd, and an empty tar", async () => {
    const bytes = await tarOf([{ name: "a" }, { name: "b", size: 100_000 }]);
    for (const packed of [bytes, gzipSync(bytes), Bun.zstdCompressSync(bytes)])
      expect((await list(packed)).map(({ path }) => path)).toEqual(["a", "b"]);
    expect(await list(await tarOf([]))).toEqual([]);
    expect(await list(new Uint8Array())).toEqual([]);
  });

  test.each(["app-image-manifest", "app-zstd-image-manifest", "app-uncompressed"])(
    "lists what BuildKit wrote: %s",
    async (name) => {
      const store = await LayoutDirectory.open(fixture(name));
      const [top] = readIndex(fixture(name)).manifests;
      const paths: string[] = [];
      for (const layer of readDocument(fixture(name), top.digest).layers)
        for await (const file of listLayer(store, layer)) paths.push(file.path);
      expect(paths).toContain("bin/busybox");
      expect(paths).toContain("deps/60");
      expect(paths).toContain("src/main.txt");
    },
  );

  const BAD: [string, string, Uint8Array, Descriptor | undefined][] = [
    ["text", "ARCHIVE_INVALID", Buffer.from("no tar ".repeat(200)), undefined],
    ["a truncated tar", "ARCHIVE_INVALID", tarBytes.subarray(0, 3000), undefined],
    ["a truncated gzip", "COMPRESSION_INVALID", gzipSync(tarBytes).subarray(0, -4), undefined],
    [
      "bytes with another digest",
      "DIGEST_MISMATCH",
      tarBytes,
      { ...describeBytes(tarBytes), digest: digestOf("other") },
    ],
    [
      "a blob that was cut short",
      "SIZE_MISMATCH",
      tarBytes.subarray(0, 512 * 12),
      describeBytes(tarBytes),
    ],
  ];
  test.each(BAD)("refuses %s: %s", async (_title, code, bytes, descriptor) => {
    const error = await failure(() => list(bytes, descriptor));
    expect(error.code as string).toBe(code);
  });

  test("ends when it is interrupted and when its reader stops early", async () => {
    const error = await failure(() => list(tarBytes, undefined, AbortSignal.abort()));
    expect(error.code).toBe("INTERRUPTED");

    const cancelled = Promise.withResolvers<void>();
    const reader = readerOf(tarBytes);
    reader.open = async () =>
      new ReadableStream<Uint8Array>({
        pull: (controller) => controller.enqueue(tarBytes.slice(0, 512)),
        cancel: () => cancelled.resolve(),
      });
    const endless = { ...describeBytes(tarBytes), size: 1e12 };
    for await (const file of listLayer(reader, endless)) {
      expect(file.path).toBe("a");
      break;
    }
    await cancelled.promise;
  });
});
