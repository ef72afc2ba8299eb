/** What is read of layers for a page: within limits that no layer can exceed. */
import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import * as tar from "tar-stream";
import type { ContentReader } from "../src/content-store.ts";
import { digestOf } from "../src/digest.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { LARGEST_LIMITS, readLargest } from "../src/inspect-largest.ts";

async function tarOf(entries: Record<string, number>): Promise<Buffer> {
  const pack = tar.pack();
  for (const [name, size] of Object.entries(entries))
    pack.entry(name.endsWith("/") ? { name, type: "directory" } : { name }, Buffer.alloc(size));
  pack.finalize();
  return Buffer.concat((await Array.fromAsync(pack)) as Buffer[]);
}

/** A store of blobs that counts what is read from it. */
function storeOf(...blobs: Uint8Array[]) {
  const byDigest = new Map<string, Uint8Array>(blobs.map((blob) => [digestOf(blob), blob]));
  const opened: string[] = [];
  let pulled = 0;
  const reader: ContentReader = {
    location: "memory",
    stat: async ({ digest }) => byDigest.get(digest)?.length,
    read: async ({ digest }) => byDigest.get(digest) as Uint8Array,
    open: async ({ digest }) => {
      opened.push(digest);
      const bytes = byDigest.get(digest) as Uint8Array;
      let at = 0;
      return new ReadableStream({
        pull(controller) {
          const part = bytes.subarray(at, (at += 65_536));
          pulled += part.length;
          if (part.length > 0) controller.enqueue(part);
          else controller.close();
        },
      });
    },
    locate: async () => undefined,
  };
  const layers = blobs.map((blob): Descriptor => ({
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    digest: digestOf(blob),
    size: blob.length,
  }));
  return { reader, layers, opened, pulled: () => pulled };
}

describe("readLargest()", () => {
  test("lists what weighs most, folders are no files", async () => {
    const { reader, layers } = storeOf(
      gzipSync(await tarOf({ "usr/": 0, "usr/a": 10, "usr/b": 3000, "usr/.wh.c": 0 })),
    );
    const [found] = (await readLargest(reader, layers)).values();
    expect(found).toEqual({
      contents: { path: "usr", files: 3 },
      bytes: 3010,
      isWhole: true,
      largest: [
        { path: "usr/b", size: 3000, type: "file" },
        { path: "usr/a", size: 10, type: "file" },
        { path: "usr/c", size: 0, type: "whiteout" },
      ],
    });
  });

  test("keeps the largest of many, whatever their order", async () => {
    const sizes = Array.from({ length: 900 }, (_, at) => (at * 7919) % 900);
    const { reader, layers } = storeOf(
      await tarOf(Object.fromEntries(sizes.map((size) => [`f${size}`, size]))),
    );
    const [found] = (await readLargest(reader, layers)).values();
    expect(found?.contents?.files).toBe(900);
    expect(found?.largest.map(({ size }) => size)).toEqual(
      Array.from({ length: LARGEST_LIMITS.listed }, (_, at) => 899 - at),
    );
  });

  test("reads no layer that is too large, and no more than all may have", async () => {
    const blobs = await Promise.all(
      ["a", "b", "c"].map((name, at) => tarOf({ [name]: 1000 * (at + 1) })),
    );
    const { reader, layers, opened } = storeOf(...blobs);
    const total = (layers[0] as Descriptor).size;
    await readLargest(reader, layers, { ...LARGEST_LIMITS, total });
    expect(opened).toEqual([(layers[0] as Descriptor).digest]);
    expect(await readLargest(reader, layers, { ...LARGEST_LIMITS, layer: 100 })).toEqual(new Map());
  });

  test("what unpacks to too much is read no further than its header", async () => {
    const head = (await tarOf({ bomb: 0 })).subarray(0, 512);
    // The header of a file of 4 GiB less a byte, and then of zeros.
    head.write("37777777777\0", 124, "latin1");
    head.fill(" ", 148, 156);
    const sum = head.reduce((all, byte) => all + byte, 0);
    head.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    const { reader, layers, pulled } = storeOf(Buffer.concat([head, Buffer.alloc(30_000_000)]));
    const [found] = (await readLargest(reader, layers)).values();
    expect(found).toMatchObject({ isWhole: false, contents: { path: "bomb", files: 1 } });
    expect(pulled()).toBeLessThan(5_000_000);
  });

  test("more entries than are read are told as such", async () => {
    const { reader, layers } = storeOf(await tarOf({ a: 1, b: 1, c: 1 }));
    const found = await readLargest(reader, layers, { ...LARGEST_LIMITS, entries: 2 });
    expect([...found.values()]).toMatchObject([{ isWhole: false, contents: { files: 2 } }]);
  });

  test("a layer that is damaged or no tar takes nothing from the others", async () => {
    const good = await tarOf({ a: 1 });
    const { reader, layers } = storeOf(good, Buffer.alloc(700, 7), gzipSync(good).subarray(0, 60));
    expect([...(await readLargest(reader, layers)).keys()]).toEqual([digestOf(good)]);
  });
});
