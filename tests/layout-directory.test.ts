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
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Root } from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { blobPath, digestOf } from "../src/digest.ts";
import { readIndexFile } from "../src/layout-index-file.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "../src/layout-directory.ts";
import { OCI_MANIFEST } from "../src/media-types.ts";
import { failure } from "./helpers/errors.ts";
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { canMount, smallDisk } from "./helpers/machine.ts";

const SOURCE = join(import.meta.dir, "..", "src");
const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

function describing(bytes: Uint8Array, mediaType = "text/plain"): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

/** A manifest under a name; the layers need not be there. */
function rootOf(refName: string, value: object = { refName }): Root {
  const bytes = encode({ schemaVersion: 2, layers: [], ...value });
  return {
    descriptor: describing(bytes, OCI_MANIFEST),
    bytes,
    names: [{ kind: "set", name: { refName } }],
  };
}

async function readAll(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function writing(
  path: string,
  use: (writer: LayoutDirectoryWriter) => Promise<void>,
): Promise<void> {
  const writer = await LayoutDirectoryWriter.open(path, { create: true });
  try {
    await use(writer);
  } finally {
    await writer.close();
  }
}

describe("LayoutDirectory.open", () => {
  test("needs a folder with an oci-layout or an index.json", async () => {
    const folder = tempFolder();
    const open = () => LayoutDirectory.open(folder, { location: "./cache" });
    const error = await failure(open);
    expect(error.code).toBe("LAYOUT_INVALID");
    expect(error.message).toContain('"./cache"');
    writeFileSync(join(folder, "index.json"), "{}");
    await open();
    writeFileSync(join(folder, "oci-layout"), "");
    await open();
    writeFileSync(join(folder, "oci-layout"), `{"imageLayoutVersion":"0.9"}`);
    expect((await failure(open)).code).toBe("LAYOUT_INVALID");
  });

  test("needs a folder", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "file"), "");
    for (const name of ["none", "file"]) {
      const error = await failure(() => LayoutDirectory.open(join(folder, name)));
      expect(error.code).toBe("LOCATION_NOT_FOUND");
    }
  });
});

describe("names", () => {
  test("are listed in the order of the index", async () => {
    const layout = await LayoutDirectory.open(fixture("grown"));
    const raw = JSON.parse(readFileSync(fixture("grown/index.json"), "utf8"));
    const entries = await layout.list();
    expect(entries.map((entry) => entry.descriptor.digest)).toEqual(
      raw.manifests.map((entry: Descriptor) => entry.digest),
    );
  });

  test("resolve to the descriptor of their entry", async () => {
    const layout = await LayoutDirectory.open(fixture("grown"));
    const { descriptor, entry } = await layout.resolve({ name: "main" });
    expect(entry?.refName).toBe("main");
    expect(await layout.stat(descriptor)).toBe(descriptor.size);
    expect((await layout.resolve({ digest: descriptor.digest })).entry?.refName).toBe("main");
    expect((await failure(() => layout.resolve({ name: "none" }))).code).toBe("NAME_NOT_FOUND");
  });

  test("a digest without an entry resolves to the blob, its type told from the content", async () => {
    const path = join(tempFolder(), "layout");
    const manifest = encode({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [] });
    const config = encode({ config: {}, rootfs: {} });
    const text = new TextEncoder().encode("plain");
    await writing(path, async (writer) => {
      for (const bytes of [manifest, config, text]) await writer.put(describing(bytes), { bytes });
      await writer.publish([rootOf("v1")]);
    });
    const layout = await LayoutDirectory.open(path);
    const typeOf = async (bytes: Uint8Array) =>
      (await layout.resolve({ digest: digestOf(bytes) })).descriptor.mediaType;
    expect(await typeOf(manifest)).toBe(OCI_MANIFEST);
    expect(await typeOf(config)).toBe("application/octet-stream");
    expect(await typeOf(text)).toBe("application/octet-stream");
    const none = await failure(() => layout.resolve({ digest: digestOf("none") }));
    expect(none.code).toBe("BLOB_NOT_FOUND");
  });
});

describe("blobs", () => {
  test("are read whole, streamed and located", async () => {
    const layout = await LayoutDirectory.open(fixture("grown"));
    for (const name of blobNames(fixture("grown"))) {
      const bytes = readFileSync(fixture(`grown/blobs/sha256/${name}`));
      const descriptor = describing(bytes);
      expect(await layout.stat(descriptor)).toBe(bytes.length);
      expect(Buffer.compare(await layout.read(descriptor, 1e9), bytes)).toBe(0);
      expect(Buffer.compare(await readAll(await layout.open(descriptor)), bytes)).toBe(0);
      expect(await layout.locate(descriptor)).toEqual({
        path: fixture(`grown/blobs/sha256/${name}`),
        offset: 0,
        size: bytes.length,
        disposable: false,
      });
    }
  });

  test("that are absent", async () => {
    const layout = await LayoutDirectory.open(fixture("grown"));
    const descriptor = describing(encode("none"));
    expect(await layout.stat(descriptor)).toBeUndefined();
    expect(await layout.locate(descriptor)).toBeUndefined();
    expect((await failure(() => layout.read(descriptor, 100))).code).toBe("BLOB_MISSING");
    expect((await failure(() => layout.open(descriptor))).code).toBe("BLOB_MISSING");
  });

  test("that are wrong are refused when they are read whole", async () => {
    const path = fixtureCopy("app-oci-index");
    const layout = await LayoutDirectory.open(path);
    const { descriptor } = await layout.resolve({});
    const read = (changed: object, limit = 1e6) =>
      failure(() => layout.read({ ...descriptor, ...changed }, limit));
    expect((await read({}, descriptor.size - 1)).code).toBe("DOCUMENT_TOO_LARGE");
    expect((await read({ size: descriptor.size + 1 })).code).toBe("SIZE_MISMATCH");
    const blob = join(path, blobPath(descriptor.digest));
    const bytes = readFileSync(blob);
    chmodSync(blob, 0o644);
    bytes[10]! ^= 1;
    writeFileSync(blob, bytes);
    expect((await read({})).code).toBe("DIGEST_MISMATCH");
    writeFileSync(blob, Buffer.alloc(5_000_000));
    expect((await read({})).code).toBe("DOCUMENT_TOO_LARGE");
  });

  test("a symbolic link or a folder is no blob", async () => {
    const path = fixtureCopy("app-oci-index");
    const layout = await LayoutDirectory.open(path);
    const { descriptor } = await layout.resolve({});
    const blob = join(path, blobPath(descriptor.digest));
    unlinkSync(blob);
    symlinkSync(fixture(join("app-oci-index", blobPath(descriptor.digest))), blob);
    expect(await layout.stat(descriptor)).toBeUndefined();
    expect(await layout.locate(descriptor)).toBeUndefined();
    expect((await failure(() => layout.read(descriptor, 1e6))).message).toContain("symbolic link");
    await failure(() => layout.open(descriptor));
    unlinkSync(blob);
    mkdirSync(blob);
    expect(await layout.stat(descriptor)).toBeUndefined();
    await failure(() => layout.read(descriptor, 1e6));
  });

  test("a stream ends when the signal fires", async () => {
    const layout = await LayoutDirectory.open(fixture("grown"));
    const { descriptor } = await layout.resolve({ name: "main" });
    const abort = new AbortController();
    const stream = await layout.open(descriptor, abort.signal);
    abort.abort();
    expect((await failure(() => readAll(stream))).code).toBe("INTERRUPTED");
  });
});

describe("LayoutDirectoryWriter", () => {
  test("writes a layout that holds all that was put, and nothing else", async () => {
    const path = join(tempFolder(), "a", "layout");
    const bytes = encode("a layer");
    await writing(path, async (writer) => {
      expect(existsSync(path)).toBe(false);
      await writer.put(describing(bytes), { bytes });
      expect(existsSync(join(path, "index.json"))).toBe(false);
      await writer.publish([rootOf("v1"), rootOf("v2")]);
    });
    expect(readdirSync(path).toSorted()).toEqual(["blobs", "index.json", "oci-layout"]);
    expect(blobNames(path)).toHaveLength(3);
    const layout = await LayoutDirectory.open(path);
    for (const name of ["v1", "v2"]) {
      const { descriptor } = await layout.resolve({ name });
      await layout.read(descriptor, 1e6);
    }
  });

  test("copies a whole layout of BuildKit's", async () => {
    const source = await LayoutDirectory.open(fixture("grown"));
    const path = join(tempFolder(), "layout");
    await writing(path, async (writer) => {
      for (const name of blobNames(fixture("grown"))) {
        const bytes = readFileSync(fixture(`grown/blobs/sha256/${name}`));
        expect(await writer.put(describing(bytes), { store: source })).toBe("copied");
      }
      const { descriptor } = await source.resolve({ name: "main" });
      const bytes = await source.read(descriptor, 1e6);
      await writer.publish([
        {
          descriptor,
          bytes,
          names: [{ kind: "set", name: { refName: "main" } }],
        },
      ]);
    });
    expect(blobNames(path)).toEqual(blobNames(fixture("grown")));
  });

  test("refuses a missing folder unless it may make it, and another version", async () => {
    const path = join(tempFolder(), "layout");
    expect((await failure(() => LayoutDirectoryWriter.open(path))).code).toBe("LOCATION_NOT_FOUND");
    mkdirSync(path);
    writeFileSync(join(path, "oci-layout"), `{"imageLayoutVersion":"2.0.0"}`);
    expect((await failure(() => LayoutDirectoryWriter.open(path))).code).toBe("LAYOUT_INVALID");
  });

  test("leaves nothing when the first blob is bad", async () => {
    const parent = tempFolder();
    await writing(join(parent, "layout"), async (writer) => {
      const bytes = encode("x");
      await failure(() => writer.put({ ...describing(bytes), size: 2 }, { bytes }));
    });
    expect(readdirSync(parent)).toEqual([]);
  });

  test("makes an empty layout when nothing is published", async () => {
    const path = join(tempFolder(), "layout");
    await writing(path, (writer) => writer.publish([]));
    expect(await (await LayoutDirectory.open(path)).list()).toEqual([]);
    expect(existsSync(join(path, "blobs"))).toBe(true);
  });

  test("tells a conflict of names before anything is written", async () => {
    const path = fixtureCopy("image-dir");
    const before = readdirSync(path, { recursive: true }).toSorted();
    const [entry] = await (await LayoutDirectory.open(path)).list();
    const root = rootOf("x");
    const gone = {
      ...entry!,
      descriptor: { ...entry!.descriptor, digest: digestOf("gone") },
    };
    await writing(path, async (writer) => {
      await writer.checkNames([root]);
      const error = await failure(() =>
        writer.checkNames([{ ...root, names: [{ kind: "replace", entry: gone }] }]),
      );
      expect(error.code).toBe("NAME_CHANGED");
    });
    expect(readdirSync(path, { recursive: true }).toSorted()).toEqual(before);
  });

  test("does not name what another program has removed meanwhile", async () => {
    const path = fixtureCopy("grown");
    const before = readFileSync(join(path, "index.json"));
    await writing(path, async (writer) => {
      const file = join(path, "blobs", "sha256", blobNames(path)[0] as string);
      const bytes = readFileSync(file);
      expect(await writer.put(describing(bytes), { bytes })).toBe("skipped");
      rmSync(file);
      expect((await failure(() => writer.publish([rootOf("v1")]))).code).toBe("BLOB_MISSING");
    });
    expect(readFileSync(join(path, "index.json"))).toEqual(before);
  });

  test("gives and removes names", async () => {
    const path = fixtureCopy("grown");
    const layout = await LayoutDirectory.open(path);
    const { descriptor } = await layout.resolve({ name: "main" });
    await writing(path, async (writer) => {
      await writer.setNames(descriptor, [{ refName: "stable" }]);
      expect((await layout.resolve({ name: "stable" })).descriptor.digest).toBe(descriptor.digest);
      const removed = await writer.removeNames((entry) => entry.refName === "stable");
      expect(removed.map((entry) => entry.refName)).toEqual(["stable"]);
      expect(await writer.removeNames(() => false)).toEqual([]);
      const absent = describing(encode("absent"));
      expect((await failure(() => writer.setNames(absent, [{ refName: "x" }]))).code).toBe(
        "BLOB_MISSING",
      );
      const wrong = { ...descriptor, size: descriptor.size + 1 };
      expect((await failure(() => writer.setNames(wrong, [{ refName: "x" }]))).code).toBe(
        "SIZE_MISMATCH",
      );
    });
    expect(readFileSync(join(path, "index.json"), "utf8")).toBe(
      readFileSync(fixture("grown/index.json"), "utf8"),
    );
    expect((await layout.list()).map((entry) => entry.refName)).not.toContain("stable");
  });

  test.skipIf(!canMount)("a full disk leaves the old index and its blobs", async () => {
    using disk = smallDisk("1m");
    const { path } = disk;
    await writing(path, (writer) => writer.publish([rootOf("v1")]));
    const before = readFileSync(join(path, "index.json"));
    await writing(path, async (writer) => {
      for (let n = 0; ; n++) {
        const bytes = new Uint8Array(100_000).fill(n);
        const put = writer.put(describing(bytes), { bytes });
        if (
          n < 20 &&
          (await put.then(
            () => true,
            (error) => error.code !== "NO_SPACE",
          ))
        )
          continue;
        break;
      }
      writeFileSync(join(path, "filler"), "");
      try {
        for (;;)
          writeFileSync(join(path, "filler"), new Uint8Array(4096), {
            flag: "a",
          });
      } catch {}
      expect((await failure(() => writer.publish([rootOf("v2")]))).code).toBe("NO_SPACE");
    });
    expect(readFileSync(join(path, "index.json"))).toEqual(before);
    expect(readdirSync(path).toSorted()).toEqual(["blobs", "filler", "index.json", "oci-layout"]);
  });

  test.skipIf(!canMount)("a read-only file system is said to be one", async () => {
    const path = fixtureCopy("grown");
    expect(Bun.spawnSync(["mount", "--bind", path, path]).exitCode).toBe(0);
    try {
      expect(Bun.spawnSync(["mount", "-o", "remount,bind,ro", path]).exitCode).toBe(0);
      await writing(path, async (writer) => {
        const bytes = encode("x");
        const put = await failure(() => writer.put(describing(bytes), { bytes }));
        expect(put.code).toBe("PERMISSION_DENIED");
        expect(put.message).toContain("read-only");
        expect((await failure(() => writer.removeNames(() => true))).code).toBe(
          "PERMISSION_DENIED",
        );
      });
      expect(await (await LayoutDirectory.open(path)).list()).toHaveLength(2);
    } finally {
      Bun.spawnSync(["umount", "--lazy", path]);
    }
  });
});

/** A program that writes images under names for ever, or as many as it is told. */
function writerProgram(folder: string): string {
  const script = join(folder, "writer.ts");
  const from = (file: string) => JSON.stringify(join(SOURCE, file));
  writeFileSync(
    script,
    `import { LayoutDirectoryWriter } from ${from("layout-directory.ts")};
     import { digestOf } from ${from("digest.ts")};
     const [, , path, who, count] = process.argv;
     const describing = (bytes, mediaType) => ({ mediaType, digest: digestOf(bytes), size: bytes.length });
     for (let n = 0; n < Number(count); n++) {
       const writer = await LayoutDirectoryWriter.open(path, { create: true });
       const layer = new Uint8Array(200_000).fill(n);
       layer.set(new TextEncoder().encode(who));
       const layers = [describing(layer, "application/vnd.oci.image.layer.v1.tar")];
       await writer.put(layers[0], { bytes: layer });
       const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, layers }));
       const names = [{ kind: "set", name: { refName: who + "-" + n } }];
       await writer.publish([{ descriptor: describing(bytes, ${JSON.stringify(OCI_MANIFEST)}), bytes, names }]);
       await writer.close();
       console.log(n);
     }`,
  );
  return script;
}

/** Checks that every name of a layout leads to whole content; gives the number of names. */
async function checkLayout(path: string): Promise<number> {
  const layout = await LayoutDirectory.open(path);
  const entries = await layout.list();
  for (const { descriptor } of entries) {
    const manifest = JSON.parse(Buffer.from(await layout.read(descriptor, 1e6)).toString());
    for (const layer of manifest.layers) await layout.read(layer, 1e6);
  }
  for (const name of blobNames(path)) {
    const blob = readFileSync(join(path, "blobs", "sha256", name));
    expect(digestOf(blob)).toBe(`sha256:${name}` as never);
    expect(statSync(join(path, "blobs", "sha256", name)).mode & 0o777).toBe(0o444);
  }
  return entries.length;
}

test("eight programs at once lose no name and no blob", async () => {
  const folder = tempFolder();
  const path = join(folder, "layout");
  const script = writerProgram(folder);
  const children = Array.from({ length: 8 }, (_, i) =>
    Bun.spawn([process.execPath, script, path, `p${i}`, "3"], {
      stdout: "ignore",
      stderr: "inherit",
    }),
  );
  for (const child of children) expect(await child.exited).toBe(0);
  expect(await checkLayout(path)).toBe(24);
  expect(readdirSync(path).toSorted()).toEqual(["blobs", "index.json", "oci-layout"]);
});

test("a program that is killed at any instant leaves a whole layout, and the next one cleans up", async () => {
  const folder = tempFolder();
  const path = join(folder, "layout");
  const script = writerProgram(folder);
  await writing(path, (writer) => writer.publish([rootOf("first")]));
  let before = 1;
  let left = 0;
  // A fixed seed; where it hits depends on the machine all the same.
  let seed = 42;
  for (let round = 0; round < 30; round++) {
    const child = Bun.spawn([process.execPath, script, path, `r${round}`, "1000"], {
      stdout: "pipe",
      stderr: "inherit",
    });
    await child.stdout.getReader().read();
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    await Bun.sleep((seed % 2000) / 100);
    child.kill("SIGKILL");
    await child.exited;
    const names = (await readIndexFile(path)).entries.length;
    expect(names).toBeGreaterThan(before);
    before = names;
    if (existsSync(join(path, ".cacheport"))) left++;
  }
  expect(left).toBeGreaterThan(0);
  await checkLayout(path);
  await writing(path, (writer) => writer.publish([rootOf("last")]));
  expect(await checkLayout(path)).toBe(before + 1);
  expect(readdirSync(path).toSorted()).toEqual(["blobs", "index.json", "oci-layout"]);
}, 60_000);
