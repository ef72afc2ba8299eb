import { describe, expect, test } from "bun:test";
import { copyFileSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { hintOf } from "../src/cli-hints.ts";
import { openOldArchive, reopenOldArchive } from "../src/archive-old.ts";
import type { OldArchive } from "../src/archive-old.ts";
import { failure } from "./helpers/errors.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const IMAGE = readFileSync(fixture("image.tar"));
const APPEND = { mode: "append", location: "x.tar" } as const;
const REWRITE = { mode: "rewrite", location: "x.tar" } as const;

/** Writes an archive and gives its path. */
function archive(bytes: Uint8Array): string {
  const path = join(tempFolder(), "x.tar");
  writeFileSync(path, bytes);
  return path;
}

describe("openOldArchive", () => {
  test("opens a tar in place, whatever is to be done with it", async () => {
    for (const options of [APPEND, REWRITE]) {
      const old = await openOldArchive(archive(IMAGE), options);
      expect(old?.compression).toBe("uncompressed");
      expect(old?.content.index.entries).toHaveLength(1);
      expect(old?.content.hasMember("oci-layout")).toBe(true);
      expect(old?.content.hasMember("manifest.json")).toBe(false);
      await old?.content.close();
    }
  });

  test("finds nothing in an empty file and where there is none", async () => {
    const path = archive(new Uint8Array(0));
    expect(await openOldArchive(path, APPEND)).toBeUndefined();
    expect(await openOldArchive(`${path}.no`, REWRITE)).toBeUndefined();
  });

  test("unpacks a compressed one beside it to write it anew, and refuses to add to it", async () => {
    const path = archive(gzipSync(IMAGE));
    const error = await failure(() => openOldArchive(path, APPEND));
    expect(error.code).toBe("NOT_SUPPORTED");
    expect(hintOf(error)).toContain("cacheport copy --all x.tar NEW.tar");
    const old = await openOldArchive(path, REWRITE);
    expect(old?.compression).toBe("gzip");
    expect(old?.content.blobs().size).toBe(4);
    expect(readdirSync(dirname(path))).toHaveLength(2);
    await old?.content.close();
    expect(readdirSync(dirname(path))).toEqual(["x.tar"]);
  });

  test("refuses what is no archive", async () => {
    const path = archive(Buffer.from("a diary"));
    const error = await failure(() => openOldArchive(path, REWRITE));
    expect(error.code).toBe("ARCHIVE_INVALID");
  });
});

describe("reopenOldArchive", () => {
  test("keeps a compressed one until its file is another", async () => {
    const path = archive(gzipSync(IMAGE));
    const old = (await openOldArchive(path, REWRITE)) as OldArchive;
    expect(await reopenOldArchive(old, path, REWRITE)).toBe(old);
    copyFileSync(path, `${path}.new`);
    renameSync(`${path}.new`, path);
    const other = await reopenOldArchive(old, path, REWRITE);
    expect(other).not.toBe(old);
    expect(readdirSync(dirname(path))).toHaveLength(2);
    await other?.content.close();
  });

  test("reads a plain one anew, which may have been added to in place", async () => {
    const path = archive(IMAGE);
    const old = (await openOldArchive(path, APPEND)) as OldArchive;
    const other = await reopenOldArchive(old, path, APPEND);
    expect(other).not.toBe(old);
    await other?.content.close();
  });

  test("finds one that was made meanwhile, and none where it was removed", async () => {
    const path = archive(IMAGE);
    const made = await reopenOldArchive(undefined, path, APPEND);
    expect(made?.content.index.entries).toHaveLength(1);
    renameSync(path, `${path}.gone`);
    expect(await reopenOldArchive(made, path, APPEND)).toBeUndefined();
  });
});
