import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { BlobWriter } from "../src/layout-writer.ts";
import type { BlobLocation, ContentReader } from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { blobPath, digestOf } from "../src/digest.ts";
import type { Digest } from "../src/digest.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";
import { canMount, smallDisk } from "./helpers/machine.ts";

/** Bytes that differ from seed to seed. */
function content(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = i * 31 + (i >> 8) + seed;
  return bytes;
}

function describing(bytes: Uint8Array, algorithm?: "sha512"): Descriptor {
  return {
    mediaType: "text/plain",
    digest: digestOf(bytes, algorithm),
    size: bytes.length,
  };
}

/** A store with one content, that lies in a file or comes as a stream. */
function storeOf(parts: { location?: BlobLocation; chunks?: Uint8Array[] }): ContentReader {
  return {
    location: "test",
    stat: async () => undefined,
    read: async () => new Uint8Array(),
    locate: async () => parts.location,
    open: async () =>
      new ReadableStream({
        start(controller) {
          for (const chunk of parts.chunks ?? []) controller.enqueue(chunk);
          controller.close();
        },
      }),
  };
}

function chunked(bytes: Uint8Array, size: number): Uint8Array[] {
  const chunks = [];
  for (let i = 0; i < bytes.length; i += size) chunks.push(bytes.slice(i, i + size));
  return chunks;
}

async function withWriter<T>(root: string, use: (writer: BlobWriter) => Promise<T>): Promise<T> {
  const writer = new BlobWriter(root, { jobs: 4 });
  try {
    return await use(writer);
  } finally {
    await writer.close();
  }
}

/** All files and folders below a folder. */
const everything = (root: string) =>
  existsSync(root) ? readdirSync(root, { recursive: true }).map(String).toSorted() : [];

const SIZES = [0, 1, 1000, 1024 * 1024, 1024 * 1024 + 1, 3_333_333];

/** A temporary file with some bytes in front of and behind the content. */
function inFile(bytes: Uint8Array, rest: Partial<BlobLocation> = {}): BlobLocation {
  const path = join(tempFolder(), "file");
  const offset = rest.offset ?? 0;
  const tail = offset > 0 ? 100 : 0;
  writeFileSync(path, Buffer.concat([content(offset, 9), bytes, content(tail, 9)]));
  return { path, offset, size: bytes.length, disposable: false, ...rest };
}

/** Every way in which bytes can come, right or wrong. */
const SOURCES = [
  ["bytes", (bytes: Uint8Array) => ({ bytes })],
  ["a file", (bytes: Uint8Array) => ({ store: storeOf({ location: inFile(bytes) }) })],
  [
    "a disposable file",
    (bytes: Uint8Array) => ({
      store: storeOf({ location: inFile(bytes, { disposable: true }) }),
    }),
  ],
  [
    "a part of a file",
    (bytes: Uint8Array) => ({
      store: storeOf({ location: inFile(bytes, { offset: 512 }) }),
    }),
  ],
  [
    "a stream of small chunks",
    (bytes: Uint8Array) => ({
      store: storeOf({ chunks: chunked(bytes, 10_007) }),
    }),
  ],
  ["a stream of one chunk", (bytes: Uint8Array) => ({ store: storeOf({ chunks: [bytes] }) })],
] as const;

describe.each(SOURCES)("write() from %s", (_, sourceOf) => {
  test.each(SIZES)("writes %d bytes, read-only, and leaves nothing else", async (size) => {
    const root = join(tempFolder(), "layout");
    const bytes = content(size);
    const descriptor = describing(bytes);
    let told = 0;
    await withWriter(root, async (writer) => {
      const onBytes = (count: number) => (told += count);
      expect(await writer.write(descriptor, sourceOf(bytes), { onBytes })).toBe("copied");
      expect(await writer.write(descriptor, sourceOf(bytes))).toBe("skipped");
      await writer.syncFolders();
      writer.assertPresent();
    });
    const path = join(root, blobPath(descriptor.digest));
    expect(Buffer.compare(readFileSync(path), bytes)).toBe(0);
    expect(statSync(path).mode & 0o777).toBe(0o444);
    expect(told).toBe(size);
    expect(everything(root)).toEqual(
      ["blobs", "blobs/sha256", blobPath(descriptor.digest)].toSorted(),
    );
  });

  test("writes SHA-512", async () => {
    const root = tempFolder();
    const bytes = content(2_000_000);
    await withWriter(root, async (writer) => {
      await writer.write(describing(bytes, "sha512"), sourceOf(bytes));
      await writer.syncFolders();
    });
    expect(readdirSync(join(root, "blobs", "sha512"))).toHaveLength(1);
  });

  test.each([10, 2_000_000])("refuses %d wrong bytes and leaves nothing", async (size) => {
    const parent = tempFolder();
    const root = join(parent, "a", "layout");
    const bytes = content(size);
    const wrong: [Descriptor, string][] = [
      [{ ...describing(bytes), digest: digestOf("other") }, "DIGEST_MISMATCH"],
      [{ ...describing(bytes), size: size - 1 }, "SIZE_MISMATCH"],
      [{ ...describing(bytes), size: size + 1 }, "SIZE_MISMATCH"],
    ];
    await withWriter(root, async (writer) => {
      for (const [descriptor, code] of wrong) {
        const error = await failure(() => writer.write(descriptor, sourceOf(bytes)));
        expect(error.code).toBe(code as never);
      }
    });
    expect(everything(parent)).toEqual([]);
  });

  test("is ended by the signal", async () => {
    const root = join(tempFolder(), "layout");
    const bytes = content(2_000_000);
    await withWriter(root, async (writer) => {
      const error = await failure(() =>
        writer.write(describing(bytes), sourceOf(bytes), {
          signal: AbortSignal.abort(),
        }),
      );
      expect(error.code).toBe("INTERRUPTED");
    });
    expect(existsSync(root)).toBe(false);
  });

  test.skipIf(!canMount)("says which blob when the disk is full", async () => {
    using disk = smallDisk("1m");
    const bytes = content(3_000_000);
    const root = join(disk.path, "layout");
    await withWriter(root, async (writer) => {
      const error = await failure(() => writer.write(describing(bytes), sourceOf(bytes)));
      expect(error.code).toBe("NO_SPACE");
      expect(error.message).toContain(digestOf(bytes));
      await writer.write(describing(content(1000)), { bytes: content(1000) });
      await writer.syncFolders();
    });
    expect(readdirSync(join(root, "blobs", "sha256"))).toHaveLength(1);
  });
});

test("a disposable file is moved, any other stays", async () => {
  const root = tempFolder();
  const bytes = content(2_000_000);
  const disposable = inFile(bytes, { disposable: true });
  const inode = statSync(disposable.path).ino;
  await withWriter(root, (writer) =>
    writer.write(describing(bytes), {
      store: storeOf({ location: disposable }),
    }),
  );
  expect(existsSync(disposable.path)).toBe(false);
  expect(statSync(join(root, blobPath(digestOf(bytes)))).ino).toBe(inode);
  const kept = inFile(content(5000, 2));
  await withWriter(root, (writer) =>
    writer.write(describing(content(5000, 2)), {
      store: storeOf({ location: kept }),
    }),
  );
  expect(existsSync(kept.path)).toBe(true);
});

test.skipIf(!canMount)("a disposable file of another file system is copied", async () => {
  using disk = smallDisk("1m");
  const bytes = content(5000);
  const path = join(disk.path, "file");
  writeFileSync(path, bytes);
  const location = { path, offset: 0, size: bytes.length, disposable: true };
  const root = tempFolder();
  let told = 0;
  await withWriter(root, async (writer) => {
    await writer.write(
      describing(bytes),
      { store: storeOf({ location }) },
      { onBytes: (n) => (told += n) },
    );
    await writer.syncFolders();
  });
  const copy = readFileSync(join(root, blobPath(digestOf(bytes))));
  expect(Buffer.compare(copy, bytes)).toBe(0);
  expect(told).toBe(5000);
});

test("a file that is longer than its location says is copied up to there, and never moved", async () => {
  const bytes = content(2_000_000);
  const descriptor = describing(bytes.subarray(0, 1_500_000));
  const write = (disposable: boolean, root: string) => {
    const location = { ...inFile(bytes), size: descriptor.size, disposable };
    return withWriter(root, (writer) => writer.write(descriptor, { store: storeOf({ location }) }));
  };
  const root = tempFolder();
  expect((await failure(() => write(true, root))).code).toBe("SIZE_MISMATCH");
  expect(everything(root)).toEqual([]);
  await write(false, root);
  const { size } = statSync(join(root, blobPath(descriptor.digest)));
  expect(size).toBe(descriptor.size);
});

test("a blob of the right size is skipped unread, one of a wrong size is replaced", async () => {
  const root = tempFolder();
  const bytes = content(100);
  const descriptor = describing(bytes);
  const path = join(root, blobPath(descriptor.digest));
  mkdirSync(join(root, "blobs", "sha256"), { recursive: true });
  writeFileSync(path, "x".repeat(100), { mode: 0o444 });
  utimesSync(path, 0, 0);
  await withWriter(root, async (writer) => {
    expect(await writer.write(descriptor, { bytes })).toBe("skipped");
  });
  // It is young again, so that gc leaves it to whoever is about to name it.
  expect(Date.now() - statSync(path).mtimeMs).toBeLessThan(60_000);
  chmodSync(path, 0o644);
  writeFileSync(path, "x".repeat(99));
  chmodSync(path, 0o444);
  await withWriter(root, async (writer) => {
    expect(await writer.write(descriptor, { bytes })).toBe("copied");
    await writer.syncFolders();
  });
  expect(Buffer.compare(readFileSync(path), bytes)).toBe(0);
});

test.each(["sha256:../../../../etc/passwd", "sha256:AB", "md5:00", ""])(
  "the digest %p never becomes a path",
  async (digest) => {
    const root = join(tempFolder(), "layout");
    const descriptor = { mediaType: "a/b", digest: digest as Digest, size: 0 };
    await withWriter(root, async (writer) => {
      const error = await failure(() => writer.write(descriptor, { bytes: new Uint8Array() }));
      expect(error.code).toBe("DIGEST_INVALID");
    });
    expect(existsSync(root)).toBe(false);
  },
);

describe("a symbolic link in the target is not followed:", () => {
  const bytes = content(100);
  const descriptor = describing(bytes);
  test.each(["blobs", "blobs/sha256", blobPath(descriptor.digest), ".cacheport"])(
    "%s",
    async (link) => {
      const root = tempFolder();
      const elsewhere = tempFolder();
      writeFileSync(join(elsewhere, "victim"), bytes);
      mkdirSync(join(root, link, ".."), { recursive: true });
      symlinkSync(
        link.endsWith("256") || !link.includes("/") ? elsewhere : join(elsewhere, "victim"),
        join(root, link),
      );
      await withWriter(root, async (writer) => {
        const error = await failure(() => writer.write(descriptor, { bytes }));
        expect(error.code).toBe("LAYOUT_INVALID");
        expect(error.message).toContain("symbolic link");
      });
      expect(everything(elsewhere)).toEqual(["victim"]);
    },
  );
});

test("a blob that another program removed is noticed before it is named", async () => {
  const root = tempFolder();
  const bytes = content(100);
  await withWriter(root, async (writer) => {
    await writer.write(describing(bytes), { bytes });
    await writer.syncFolders();
    writer.assertPresent();
    rmSync(join(root, blobPath(digestOf(bytes))));
    expect((await failure(() => writer.assertPresent())).code).toBe("BLOB_MISSING");
  });
});

describe("many small blobs", () => {
  const COUNT = 40;
  const blobs = Array.from({ length: COUNT }, (_, i) => Buffer.from(`blob ${i}`));

  test("are written once each, and are at their names only together", async () => {
    const root = join(tempFolder(), "layout");
    await withWriter(root, async (writer) => {
      for (const bytes of blobs)
        expect(await writer.write(describing(bytes), { bytes })).toBe("copied");
      for (const bytes of blobs)
        expect(await writer.write(describing(bytes), { bytes })).toBe("skipped");
      expect(existsSync(join(root, blobPath(digestOf(blobs[0] as Buffer))))).toBe(false);
      await writer.syncFolders();
      writer.assertPresent();
      await writer.syncFolders();
    });
    for (const bytes of blobs) {
      const path = join(root, blobPath(digestOf(bytes)));
      expect(readFileSync(path).equals(bytes)).toBe(true);
      expect(statSync(path).mode & 0o777).toBe(0o444);
    }
    expect(readdirSync(root)).toEqual(["blobs"]);
  });

  test("a second descriptor with another size is refused, not skipped", async () => {
    const root = join(tempFolder(), "layout");
    const bytes = content(10);
    await withWriter(root, async (writer) => {
      await writer.write(describing(bytes), { bytes });
      const wrong = { ...describing(bytes), size: 11 };
      const error = await failure(() => writer.write(wrong, { bytes }));
      expect(error.code).toBe("SIZE_MISMATCH");
      await writer.syncFolders();
      writer.assertPresent();
    });
  });

  test("leave nothing when they are never named", async () => {
    const root = join(tempFolder(), "layout");
    await withWriter(root, async (writer) => {
      for (const bytes of blobs) await writer.write(describing(bytes), { bytes });
    });
    expect(existsSync(root)).toBe(false);
  });

  test("the same blob twice at once is one blob", async () => {
    const root = join(tempFolder(), "layout");
    const bytes = content(10);
    await withWriter(root, async (writer) => {
      await Promise.all(
        Array.from({ length: 8 }, () => writer.write(describing(bytes), { bytes })),
      );
      await writer.syncFolders();
    });
    expect(readdirSync(join(root, "blobs", "sha256"))).toHaveLength(1);
    expect(readdirSync(root)).toEqual(["blobs"]);
  });
});

test("several writers in one layout do not disturb each other", async () => {
  const root = join(tempFolder(), "layout");
  await Promise.all(
    Array.from({ length: 8 }, (_, i) =>
      withWriter(root, async (writer) => {
        // Every second one fails at its first blob and cleans up after itself.
        if (i % 2 === 0) {
          await failure(() =>
            writer.write({ ...describing(content(10)), size: 9 }, { bytes: content(10) }),
          );
          return;
        }
        for (let n = 0; n < 10; n++) {
          const bytes = content(1000 + n, i);
          await writer.write(describing(bytes), {
            store: storeOf({ chunks: [bytes] }),
          });
        }
        await writer.syncFolders();
        writer.assertPresent();
      }),
    ),
  );
  expect(readdirSync(root)).toEqual(["blobs"]);
  expect(readdirSync(join(root, "blobs", "sha256"))).toHaveLength(40);
});

test("the folder of a dead run is removed by the next, that of a living one is not", async () => {
  const root = tempFolder();
  const dead = join(root, ".cacheport", "run-dead");
  mkdirSync(dead, { recursive: true });
  writeFileSync(join(dead, "lock"), "");
  writeFileSync(join(dead, "half-a-blob"), "x");
  mkdirSync(join(root, ".cacheport", "run-empty"));
  await withWriter(root, async (living) => {
    await living.write(describing(content(1)), { bytes: content(1) });
    const before = readdirSync(join(root, ".cacheport"));
    expect(before).toHaveLength(1);
    await withWriter(root, (other) => other.write(describing(content(2)), { bytes: content(2) }));
    expect(readdirSync(join(root, ".cacheport"))).toEqual(before);
    await living.write(describing(content(3)), { bytes: content(3) });
  });
  expect(existsSync(join(root, ".cacheport"))).toBe(false);
});

test("nothing is written after close()", async () => {
  const root = join(tempFolder(), "layout");
  const writer = new BlobWriter(root, { jobs: 1 });
  await writer.close();
  await writer.close();
  const error = await failure(() => writer.write(describing(content(1)), { bytes: content(1) }));
  expect(error.code).toBe("INTERRUPTED");
  expect(existsSync(root)).toBe(false);
});
