import { describe, expect, test } from "bun:test";
import { readFileSync, realpathSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Descriptor } from "../src/descriptor.ts";
import { blobPath, digestOf } from "../src/digest.ts";
import { isCacheportError } from "../src/errors.ts";
import { LayoutArchive } from "../src/archive-reader.ts";
import { makeTar } from "./helpers/archives.ts";
import type { TestMember } from "./helpers/archives.ts";
import { failure } from "./helpers/errors.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const folder = tempFolder();
const LIMIT = 4 * 1024 * 1024;

function tarFile(bytes: Uint8Array): string {
  const path = join(folder, `${crypto.randomUUID()}.tar`);
  writeFileSync(path, bytes);
  return path;
}

const BLOB = "some content";
const DIGEST = digestOf(BLOB);
const DESCRIPTOR: Descriptor = {
  mediaType: "application/octet-stream",
  digest: DIGEST,
  size: BLOB.length,
};
const blob = (more: Partial<TestMember> = {}): TestMember => ({
  name: blobPath(DIGEST),
  content: BLOB,
  ...more,
});
const index = (name = "v1"): TestMember => ({
  name: "index.json",
  content: JSON.stringify({
    schemaVersion: 2,
    manifests: [
      {
        ...DESCRIPTOR,
        annotations: { "org.opencontainers.image.ref.name": name },
      },
    ],
  }),
});

describe("LayoutArchive", () => {
  test.each(["image.tar", "image-docker.tar"])(
    "reads %s, which BuildKit wrote, in place",
    async (name) => {
      const path = fixture(name);
      const archive = await LayoutArchive.open(path);
      try {
        const { descriptor, entry } = await archive.resolve({ name: "1.0" });
        expect(entry?.imageName).toBe("reg.example/team/app:1.0");
        const bytes = await archive.read(descriptor, LIMIT);
        expect(digestOf(bytes)).toBe(descriptor.digest);
        for (const [digest, size] of archive.blobs()) {
          const blob = { mediaType: "", digest, size };
          expect(await archive.stat(blob)).toBe(size);
          const stream = await archive.open(blob);
          expect(digestOf(await new Response(stream).bytes())).toBe(digest);
          const found = await archive.locate(blob);
          expect(found).toMatchObject({ size, disposable: false });
          expect(realpathSync(found?.path ?? "")).toBe(realpathSync(path));
          const start = found?.offset ?? 0;
          const range = readFileSync(path).subarray(start, start + size);
          expect(digestOf(range)).toBe(digest);
        }
      } finally {
        await archive.close();
        await archive.close();
      }
    },
  );

  test("finds a blob by a digest that the index does not name, and tells its type", async () => {
    const archive = await LayoutArchive.open(fixture("image.tar"));
    const { descriptor: manifest } = await archive.resolve({});
    const { config } = JSON.parse(Buffer.from(await archive.read(manifest, LIMIT)).toString());
    const found = await archive.resolve({ digest: config.digest });
    expect(found).toEqual({
      descriptor: { ...config, mediaType: "application/octet-stream" },
      entry: undefined,
    });
    const error = await failure(() => archive.resolve({ digest: DIGEST }));
    expect(error.code).toBe("BLOB_NOT_FOUND");
    await archive.close();
  });

  test("reads index.json wherever it stands, and the last of two", async () => {
    const first = await LayoutArchive.open(tarFile(makeTar([index(), blob()])));
    expect((await first.resolve({ name: "v1" })).descriptor.digest).toBe(DIGEST);
    await first.close();
    const last = await LayoutArchive.open(tarFile(makeTar([index("old"), blob(), index("new")])));
    expect((await last.list()).map((entry) => entry.refName)).toEqual(["new"]);
    await last.close();
  });

  test("reads an empty archive's streams and empty blobs", async () => {
    const empty = digestOf("");
    const archive = await LayoutArchive.open(
      tarFile(makeTar([{ name: blobPath(empty) }, index()])),
    );
    const descriptor = { mediaType: "", digest: empty, size: 0 };
    expect(await archive.read(descriptor, 0)).toHaveLength(0);
    const stream = await archive.open(descriptor);
    expect(await new Response(stream).bytes()).toHaveLength(0);
    await archive.close();
  });

  test("checks what it reads, before it reads more than the limit", async () => {
    const other = blob({ content: "SOME CONTENT" });
    const archive = await LayoutArchive.open(tarFile(makeTar([other, index()])));
    const codeOf = async (descriptor: Descriptor, limit: number) =>
      (await failure(() => archive.read(descriptor, limit))).code;
    expect(await codeOf(DESCRIPTOR, LIMIT)).toBe("DIGEST_MISMATCH");
    expect(await codeOf({ ...DESCRIPTOR, size: 3 }, LIMIT)).toBe("SIZE_MISMATCH");
    expect(await codeOf(DESCRIPTOR, 11)).toBe("DOCUMENT_TOO_LARGE");
    const absent = { ...DESCRIPTOR, digest: digestOf("absent") };
    expect(await codeOf(absent, LIMIT)).toBe("BLOB_MISSING");
    expect(await archive.stat(absent)).toBeUndefined();
    expect(await archive.locate(absent)).toBeUndefined();
    await archive.close();
  });

  const WRONG_KINDS: [string, Partial<TestMember>, string][] = [
    ["a symbolic link", { typeflag: "2", linkname: "/etc/passwd" }, "a link"],
    ["a hard link", { typeflag: "1", linkname: "index.json" }, "a link"],
    ["a directory", { typeflag: "5" }, "a directory"],
    ["a device", { typeflag: "3" }, "a special file"],
    ["a sparse file", { typeflag: "S", magic: "ustar  \0" }, "a sparse file"],
  ];

  test.each(WRONG_KINDS)(
    "refuses %s in the place of a blob when it is asked for",
    async (_title, kind, word) => {
      const archive = await LayoutArchive.open(
        tarFile(makeTar([blob({ content: "", ...kind }), index()])),
      );
      expect(await archive.list()).toHaveLength(1);
      for (const ask of [
        () => archive.read(DESCRIPTOR, LIMIT),
        () => archive.stat(DESCRIPTOR),
        () => archive.locate(DESCRIPTOR),
        () => archive.open(DESCRIPTOR),
      ]) {
        const error = await failure(ask);
        expect(error.code).toBe("ARCHIVE_INVALID");
        expect(error.message).toContain(`is ${word} and no plain file`);
      }
      await archive.close();
    },
  );

  test("refuses a link in the place of index.json", async () => {
    const link = { name: "index.json", typeflag: "2", linkname: "/etc/passwd" };
    const error = await failure(() => LayoutArchive.open(tarFile(makeTar([blob(), link]))));
    expect(error.code).toBe("ARCHIVE_INVALID");
  });

  const NO_LAYOUTS: [string, TestMember[], string, RegExp][] = [
    ["no index.json", [{ name: "a" }], "LAYOUT_INVALID", /^$/],
    [
      "an archive of images without one",
      [{ name: "manifest.json", content: "[]" }],
      "LAYOUT_INVALID",
      /^$/,
    ],
    [
      "an index.json in a folder of the archive, and nothing else",
      [{ name: "cache/index.json", content: "{}" }],
      "LAYOUT_INVALID",
      /tar -C cache -cf/,
    ],
    [
      "another version of the layout",
      [index(), { name: "oci-layout", content: '{"imageLayoutVersion":"2.0.0"}' }],
      "LAYOUT_INVALID",
      /^$/,
    ],
    [
      "an index.json that is no JSON",
      [{ name: "index.json", content: "{" }],
      "DOCUMENT_INVALID",
      /^$/,
    ],
    [
      "an index.json over the limit",
      [{ name: "index.json", content: " ".repeat(LIMIT + 1) }],
      "DOCUMENT_TOO_LARGE",
      /./,
    ],
  ];

  test.each(NO_LAYOUTS)("refuses %s", async (_title, members, code, hint) => {
    const error = await failure(() => LayoutArchive.open(tarFile(makeTar(members))));
    expect(error.code).toBe(code as never);
    expect(error.hint ?? error.remedy?.do ?? "").toMatch(hint);
  });

  test("names what is not there, and a folder", async () => {
    const missing = await failure(() => LayoutArchive.open(join(folder, "missing.tar")));
    expect(missing.code).toBe("LOCATION_NOT_FOUND");
    const isFolder = await failure(() => LayoutArchive.open(folder));
    expect(isFolder.code).toBe("IO_FAILED");
  });

  test("reads through a symbolic link to the archive itself", async () => {
    const link = join(folder, "link.tar");
    symlinkSync(fixture("image.tar"), link);
    const archive = await LayoutArchive.open(link);
    expect(await archive.list()).toHaveLength(1);
    await archive.close();
  });

  test("truncated at any block it says so, or has all that it names", async () => {
    const bytes = readFileSync(fixture("image.tar"));
    for (let size = 0; size < bytes.length; size += 512) {
      try {
        const archive = await LayoutArchive.open(tarFile(bytes.subarray(0, size)));
        expect(archive.content.isComplete).toBe(size >= bytes.length - 512);
        const { descriptor } = await archive.resolve({});
        await archive.read(descriptor, LIMIT);
        await archive.close();
      } catch (error) {
        if (!isCacheportError(error)) throw error;
        expect(error.code).toBe(size === 0 ? "LAYOUT_INVALID" : "ARCHIVE_INVALID");
        if (size > 0) expect(error.message).toContain("truncated");
      }
    }
  });

  test("any bit of any header may be flipped", async () => {
    const bytes = readFileSync(fixture("image.tar"));
    const whole = await LayoutArchive.open(fixture("image.tar"));
    const starts = [...whole.content.members.values()].map((m) => m.offset - 512);
    await whole.close();
    for (const start of starts) {
      for (let bit = start % 7; bit < 512 * 8; bit += 61) {
        const broken = Buffer.from(bytes);
        const at = start + (bit >> 3);
        broken[at] = (broken[at] as number) ^ (1 << (bit & 7));
        try {
          const archive = await LayoutArchive.open(tarFile(broken));
          const { descriptor } = await archive.resolve({});
          await archive.read(descriptor, LIMIT);
          await archive.close();
        } catch (error) {
          expect(error).toMatchObject({ code: "ARCHIVE_INVALID" });
        }
      }
    }
  });
});

test("a file that is written anew while it is read is read to its end as it was", async () => {
  const path = join(folder, "replaced.tar");
  writeFileSync(path, makeTar([index(), blob()]));
  const archive = await LayoutArchive.open(path);
  const other = `${path}.new`;
  writeFileSync(other, makeTar([{ name: "elsewhere", content: "x".repeat(5000) }, index("v2")]));
  renameSync(other, path);
  const found = await archive.locate(DESCRIPTOR);
  const held = readFileSync(found?.path ?? "");
  const start = found?.offset ?? 0;
  expect(digestOf(held.subarray(start, start + BLOB.length))).toBe(DIGEST);
  expect(digestOf(await archive.read(DESCRIPTOR, LIMIT))).toBe(DIGEST);
  const stream = await archive.open(DESCRIPTOR);
  expect(digestOf(await new Response(stream).bytes())).toBe(DIGEST);
  await archive.close();
});
