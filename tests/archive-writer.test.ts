import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync, zstdDecompressSync } from "node:zlib";
import { extract } from "tar-stream";
import type { Store } from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { digestOf } from "../src/digest.ts";
import { LayoutArchive } from "../src/archive-reader.ts";
import { LayoutArchiveWriter } from "../src/archive-writer.ts";
import type { LayoutArchiveWriterOptions } from "../src/archive-writer.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "../src/layout-directory.ts";
import { OCI_MANIFEST } from "../src/media-types.ts";
import { copyAll } from "./helpers/archives.ts";
import { failure } from "./helpers/errors.ts";
import { blobNames, fixture, tempFolder } from "./helpers/temp.ts";

const LIMIT = 4 * 1024 * 1024;

/** Copies a store into an archive and gives the archive's bytes. */
async function archiveOf(
  source: Store,
  path: string,
  options: LayoutArchiveWriterOptions = { mode: "create" },
): Promise<Buffer> {
  const writer = await LayoutArchiveWriter.open({ path }, options);
  try {
    await copyAll(source, writer);
  } finally {
    await writer.close();
  }
  return readFileSync(path);
}

/** A document that is named for itself, with no children. */
function document(text: string): { descriptor: Descriptor; bytes: Uint8Array } {
  const bytes = new TextEncoder().encode(
    JSON.stringify({ schemaVersion: 2, config: null, layers: [], text }),
  );
  const digest = digestOf(bytes);
  return {
    descriptor: { mediaType: OCI_MANIFEST, digest, size: bytes.length },
    bytes,
  };
}

/** Publishes a document under a name. */
async function publish(writer: LayoutArchiveWriter, text: string, refName: string): Promise<void> {
  const names = [{ kind: "set" as const, name: { refName } }];
  await writer.publish([{ ...document(text), names }]);
}

async function add(
  path: string,
  text: string,
  refName: string,
  mode: "append" | "rewrite" = "append",
): Promise<void> {
  const writer = await LayoutArchiveWriter.open({ path }, { mode });
  try {
    await publish(writer, text, refName);
  } finally {
    await writer.close();
  }
}

async function namesIn(path: string): Promise<(string | undefined)[]> {
  const archive = await LayoutArchive.open(path);
  try {
    for (const { descriptor } of await archive.list()) await archive.read(descriptor, LIMIT);
    return (await archive.list()).map((entry) => entry.refName);
  } finally {
    await archive.close();
  }
}

const FOLDERS = readdirSync(fixture("")).filter((name) =>
  existsSync(join(fixture(name), "index.json")),
);

describe("create", () => {
  test.each([
    ["image.tar", false],
    ["image-docker.tar", true],
  ])("gives %s the bytes that BuildKit gave it", async (name, docker) => {
    const source = await LayoutArchive.open(fixture(name));
    const path = join(tempFolder(), name);
    const bytes = await archiveOf(source, path, { mode: "create", docker });
    await source.close();
    expect(bytes.equals(readFileSync(fixture(name)))).toBe(true);
  });

  test.each(FOLDERS)("%s comes back from a tar as it was", async (name) => {
    const folder = tempFolder();
    const source = await LayoutDirectory.open(fixture(name));
    const first = await archiveOf(source, join(folder, "1.tar"));
    const second = await archiveOf(source, join(folder, "2.tar"));
    expect(second.equals(first)).toBe(true);

    const archive = await LayoutArchive.open(join(folder, "1.tar"));
    const copy = join(folder, "copy");
    const writer = await LayoutDirectoryWriter.open(copy, { create: true });
    await copyAll(archive, writer);
    await writer.close();
    expect([...archive.blobs().keys()].map((digest) => digest.slice(7))).toEqual(blobNames(copy));
    await archive.close();
    for (const blob of blobNames(copy)) {
      const path = join("blobs", "sha256", blob);
      expect(readFileSync(join(copy, path)).equals(readFileSync(join(fixture(name), path)))).toBe(
        true,
      );
    }
    expect(await (await LayoutDirectory.open(copy)).list()).toEqual(await source.list());
  });

  test("writes members that an independent reader takes, sorted, without times", async () => {
    const folder = tempFolder();
    const source = await LayoutDirectory.open(fixture("grown"));
    const bytes = await archiveOf(source, join(folder, "a.tar"));
    const parser = extract();
    parser.write(bytes);
    parser.end(null);
    const paths: string[] = [];
    for await (const entry of parser) {
      const { header } = entry;
      paths.push(header.name);
      expect(header.mtime.getTime()).toBe(0);
      expect([header.uid, header.gid, header.uname]).toEqual([0, 0, ""]);
      const mode = header.name.endsWith("/") ? 0o755 : header.name === "index.json" ? 0o644 : 0o444;
      expect(header.mode).toBe(mode);
      for await (const _ of entry);
    }
    expect(paths).toEqual(paths.toSorted());
    expect(paths).toContain("oci-layout");
  });

  test("writes blobs of more than a window and of sha512", async () => {
    const path = join(tempFolder(), "a.tar");
    const large = Buffer.alloc(3 * 1024 * 1024 + 5, "large");
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "create" });
    const blobs = (["sha256", "sha512"] as const).map((algorithm) => ({
      mediaType: "",
      digest: digestOf(large, algorithm),
      size: large.length,
    }));
    for (const blob of blobs) await writer.put(blob, { bytes: large });
    await publish(writer, "root", "v1");
    await writer.close();
    const archive = await LayoutArchive.open(path);
    for (const blob of blobs)
      expect(large.equals(await archive.read(blob, large.length))).toBe(true);
    await archive.close();
  });

  test("replaces a file only when all is well, and leaves nothing behind", async () => {
    const folder = tempFolder();
    const path = join(folder, "a.tar");
    writeFileSync(path, "old");
    chmodSync(path, 0o600);
    const source = await LayoutDirectory.open(fixture("image-dir"));
    const { descriptor } = (await source.list())[0] as {
      descriptor: Descriptor;
    };
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "create" });
    await writer.put({ ...descriptor, size: 1 }, { store: source });
    const error = await failure(() => publish(writer, "root", "v1"));
    await writer.close();
    expect(error.code).toBe("SIZE_MISMATCH");
    expect(readFileSync(path, "utf8")).toBe("old");
    await archiveOf(source, path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(["a.tar"]);
  });

  test("keeps a symbolic link to the archive", async () => {
    const folder = tempFolder();
    const path = join(folder, "link.tar");
    symlinkSync(join(folder, "real.tar"), path);
    writeFileSync(join(folder, "real.tar"), "old");
    await archiveOf(await LayoutDirectory.open(fixture("image-dir")), path);
    expect(lstatSync(path).isSymbolicLink()).toBe(true);
    expect(await namesIn(join(folder, "real.tar"))).toContain("1.0");
  });

  test("writes to a device and does not replace it", async () => {
    await archiveOf(await LayoutDirectory.open(fixture("image-dir")), "/dev/null");
    expect(lstatSync("/dev/null").isCharacterDevice()).toBe(true);
  });

  test("ends at once when the signal fires", async () => {
    const folder = tempFolder();
    const signal = AbortSignal.abort();
    const path = join(folder, "a.tar");
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "create", signal });
    const error = await failure(() => publish(writer, "root", "v1"));
    await writer.close();
    expect(error.code).toBe("INTERRUPTED");
    expect(readdirSync(folder)).toEqual([]);
  });

  test("checks bytes when they are put, and a root", async () => {
    const path = join(tempFolder(), "a.tar");
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "create" });
    const { descriptor } = document("one");
    const { bytes } = document("two");
    expect((await failure(() => writer.put(descriptor, { bytes }))).code).toBe("DIGEST_MISMATCH");
    const root = { descriptor, bytes, names: [] };
    expect((await failure(() => writer.publish([root]))).code).toBe("DIGEST_MISMATCH");
    await writer.close();
  });
});

describe("a stream", () => {
  async function streamOf(source: Store, compress?: "gzip" | "zstd"): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    const sink = async (bytes: Uint8Array): Promise<void> => {
      chunks.push(Buffer.from(bytes));
    };
    const writer = await LayoutArchiveWriter.open({ sink }, { mode: "create", compress });
    await copyAll(source, writer);
    await writer.close();
    return Buffer.concat(chunks);
  }

  test("has the bytes of a file, compressed or not, every time", async () => {
    const folder = tempFolder();
    const source = await LayoutDirectory.open(fixture("grown"));
    const plain = await archiveOf(source, join(folder, "a.tar"));
    expect((await streamOf(source)).equals(plain)).toBe(true);
    for (const compress of ["gzip", "zstd"] as const) {
      const packed = await streamOf(source, compress);
      const unpacked = compress === "gzip" ? gunzipSync(packed) : zstdDecompressSync(packed);
      expect(unpacked.equals(plain)).toBe(true);
      const path = join(folder, `a.tar.${compress}`);
      const file = await archiveOf(source, path, { mode: "create", compress });
      expect(file.equals(packed)).toBe(true);
    }
  });

  test("waits for its reader", async () => {
    let waiting = 0;
    const sink = async (): Promise<void> => {
      expect(++waiting).toBe(1);
      await Bun.sleep(0);
      waiting--;
    };
    const writer = await LayoutArchiveWriter.open({ sink }, { mode: "create" });
    await copyAll(await LayoutDirectory.open(fixture("image-dir")), writer);
    await writer.close();
  });

  test("cannot be added to", async () => {
    const sink = async (): Promise<void> => {};
    for (const mode of ["append", "rewrite"] as const) {
      const error = await failure(() => LayoutArchiveWriter.open({ sink }, { mode }));
      expect(error.code).toBe("NOT_SUPPORTED");
    }
  });
});

describe("append", () => {
  function copyOf(name: string): string {
    const path = join(tempFolder(), name);
    copyFileSync(fixture(name), path);
    chmodSync(path, 0o644);
    return path;
  }

  test("adds names and keeps the old bytes where they are", async () => {
    const path = copyOf("image.tar");
    const before = readFileSync(path);
    await add(path, "one", "v1");
    await add(path, "two", "v2");
    expect(await namesIn(path)).toEqual(["1.0", "v1", "v2"]);
    const end = before.length - 1024;
    const after = readFileSync(path);
    expect(after.subarray(0, end).equals(before.subarray(0, end))).toBe(true);
    expect(readdirSync(join(path, ".."))).toEqual(["image.tar"]);
  });

  test("writes nothing when there is nothing new", async () => {
    const path = copyOf("image.tar");
    const source = await LayoutArchive.open(fixture("image.tar"));
    const { descriptor } = await source.resolve({});
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "append" });
    expect(await writer.put(descriptor, { store: source })).toBe("skipped");
    const bytes = await source.read(descriptor, LIMIT);
    await writer.publish([{ descriptor, bytes, names: [{ kind: "list" }] }]);
    await writer.close();
    await source.close();
    expect(readFileSync(path).equals(readFileSync(fixture("image.tar")))).toBe(true);
  });

  test("makes an archive that is not there", async () => {
    const folder = tempFolder();
    await add(join(folder, "appended.tar"), "one", "v1");
    await add(join(folder, "rewritten.tar"), "one", "v1", "rewrite");
    const bytes = readFileSync(join(folder, "appended.tar"));
    expect(bytes.equals(readFileSync(join(folder, "rewritten.tar")))).toBe(true);
    expect(await namesIn(join(folder, "appended.tar"))).toEqual(["v1"]);
  });

  test("leaves the old archive when a blob is damaged", async () => {
    const path = copyOf("image.tar");
    const before = readFileSync(path);
    const source = await LayoutDirectory.open(fixture("grown"));
    const [entry] = await source.list();
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "append" });
    const descriptor = entry?.descriptor as Descriptor;
    await writer.put({ ...descriptor, size: 7 }, { store: source });
    const error = await failure(() => publish(writer, "root", "v1"));
    await writer.close();
    expect(error.code).toBe("SIZE_MISMATCH");
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("loses no name of eight writers at once", async () => {
    const path = copyOf("image.tar");
    await Promise.all(Array.from({ length: 8 }, (_, at) => add(path, `text ${at}`, `v${at}`)));
    const names = await namesIn(path);
    expect(names.toSorted()).toEqual(
      ["1.0", ...Array.from({ length: 8 }, (_, at) => `v${at}`)].toSorted(),
    );
  });

  test("refuses a compressed archive", async () => {
    const path = join(tempFolder(), "a.tar.gz");
    writeFileSync(path, gzipSync(readFileSync(fixture("image.tar"))));
    const error = await failure(() => LayoutArchiveWriter.open({ path }, { mode: "append" }));
    expect(error.code).toBe("NOT_SUPPORTED");
    expect(error.message).toContain("gzip");
  });

  test("sees when what it relies on was removed meanwhile", async () => {
    const path = copyOf("image.tar");
    const source = await LayoutArchive.open(fixture("image.tar"));
    const { descriptor } = await source.resolve({});
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "append" });
    expect(await writer.put(descriptor, { store: source })).toBe("skipped");
    await source.close();
    const other = await LayoutArchiveWriter.open({ path }, { mode: "create" });
    await publish(other, "other", "other");
    await other.close();
    const error = await failure(() => publish(writer, "root", "v1"));
    await writer.close();
    expect(error.code).toBe("BLOB_MISSING");
    expect(await namesIn(path)).toEqual(["other"]);
  });

  test("rewriting compacts to what creating would have written", async () => {
    const path = copyOf("image.tar");
    await add(path, "one", "v1");
    await add(path, "two", "v1");
    await add(path, "three", "v3", "rewrite");
    expect(await namesIn(path)).toEqual(["1.0", "v1", "v3"]);
    const compact = readFileSync(path);
    const archive = await LayoutArchive.open(path);
    const old = document("one").descriptor;
    expect(await archive.stat(old)).toBe(old.size);
    const copy = await archiveOf(archive, join(tempFolder(), "b.tar"), {
      mode: "create",
    });
    // What no name reaches is the one difference.
    expect(compact.length - copy.length).toBe(1024);
    await archive.close();
  });

  test("rewriting leaves out what is not to be kept", async () => {
    const path = copyOf("image-docker.tar");
    const writer = await LayoutArchiveWriter.open(
      { path },
      {
        mode: "rewrite",
        async keeps(reader, roots) {
          const digests = roots.map(({ digest }) => digest);
          for (const root of roots) await reader.read(root, LIMIT);
          return new Set(digests);
        },
      },
    );
    await publish(writer, "one", "v1");
    await writer.close();
    const archive = await LayoutArchive.open(path);
    expect(archive.blobs().size).toBe(2);
    // Neither is an image any more: one has lost its config, the other never had one.
    expect(archive.content.members.has("manifest.json")).toBe(false);
    await archive.close();
  });

  test("rewriting keeps the manifest.json of a single image", async () => {
    const path = copyOf("image-docker.tar");
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "rewrite" });
    await writer.publish([]);
    await writer.close();
    expect(readFileSync(path).equals(readFileSync(fixture("image-docker.tar")))).toBe(true);
  });
});

describe("docker", () => {
  async function refusal(name: string): Promise<string> {
    const source = await LayoutDirectory.open(fixture(name));
    const folder = tempFolder();
    const error = await failure(() =>
      archiveOf(source, join(folder, "a.tar"), {
        mode: "create",
        docker: true,
      }),
    );
    expect(error.code).toBe("NOT_SUPPORTED");
    expect(readdirSync(folder)).toEqual([]);
    return error.message;
  }

  test("writes familiar names, each once", async () => {
    const path = join(tempFolder(), "a.tar");
    const source = await LayoutArchive.open(fixture("image-docker.tar"));
    const { descriptor } = await source.resolve({});
    const bytes = await source.read(descriptor, LIMIT);
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "create", docker: true });
    for (const [digest, size] of source.blobs())
      await writer.put({ mediaType: "", digest, size }, { store: source });
    const names = [
      { refName: "1", imageName: "docker.io/library/app:1" },
      { refName: "2", imageName: "docker.io/team/app:2" },
      { refName: "bare" },
      { refName: "quay.io/team/app:3" },
    ];
    await writer.publish([
      {
        descriptor,
        bytes,
        names: names.map((name) => ({ kind: "set" as const, name })),
      },
    ]);
    await writer.close();
    await source.close();
    const archive = await LayoutArchive.open(path);
    const member = archive.content.members.get("manifest.json");
    const start = member?.offset ?? 0;
    const text = readFileSync(path).subarray(start, start + (member?.size ?? 0));
    expect(JSON.parse(text.toString())[0].RepoTags).toEqual([
      "app:1",
      "team/app:2",
      "quay.io/team/app:3",
    ]);
    await archive.close();
  });

  test("refuses caches and an index of several images, with the reason", async () => {
    expect(await refusal("app-image-manifest")).toContain("is no image");
    expect(await refusal("app-oci-index")).toContain("manifest lists");
    expect(await refusal("multi-image")).toContain("manifest lists");
    expect(await refusal("grown")).toContain("is no image");
  });
});
