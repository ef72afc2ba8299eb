import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  checkArchiveFolder,
  followLinks,
  isArchiveDevice,
  replaceArchiveFile,
} from "../src/archive-file.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";

const UUID = "01234567-89ab-cdef-0123-456789abcdef";

describe("replaceArchiveFile", () => {
  test("puts a new file in the place of an old one and keeps its mode", async () => {
    const path = join(tempFolder(), "a.tar");
    await replaceArchiveFile(path, (file) => file.writeFile("one"));
    expect(statSync(path).mode & 0o7777).toBe(0o644 & ~process.umask());
    chmodSync(path, 0o640);
    await replaceArchiveFile(path, (file) => file.writeFile("two"));
    expect(readFileSync(path, "utf8")).toBe("two");
    expect(statSync(path).mode & 0o7777).toBe(0o640);
  });

  test("leaves the old one, and nothing else, when writing fails", async () => {
    const folder = tempFolder();
    const path = join(folder, "a.tar");
    writeFileSync(path, "old");
    const written = replaceArchiveFile(path, async (file) => {
      await file.writeFile("half");
      throw new Error("no more");
    });
    expect(written).rejects.toThrow("no more");
    await written.catch(() => {});
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["a.tar"]);
  });

  test("removes what a dead run left, and nobody else's files", async () => {
    const folder = tempFolder();
    const dead = join(folder, `.cacheport-run-${UUID}`);
    mkdirSync(dead);
    for (const name of ["lock", "half"]) writeFileSync(join(dead, name), "");
    const others = [`.b.tar.${UUID}.tmp`, ".cacheport-run-mine", ".a.tar.backup.tmp"];
    for (const name of others) writeFileSync(join(folder, name), "");
    await replaceArchiveFile(join(folder, "a.tar"), async () => {});
    expect(readdirSync(folder).toSorted()).toEqual(["a.tar", ...others].toSorted());
  });
});

test("checkArchiveFolder names the folder that is missing", async () => {
  const folder = tempFolder();
  await checkArchiveFolder(join(folder, "a.tar"), "a.tar");
  writeFileSync(join(folder, "file"), "");
  for (const missing of ["no", "file"]) {
    const path = join(folder, missing, "a.tar");
    const error = await failure(() => checkArchiveFolder(path, "no/a.tar"));
    expect(error.code).toBe("LOCATION_NOT_FOUND");
    expect(error.message).toContain(
      `Cannot write archive "no/a.tar": there is no folder "${join(folder, missing)}"`,
    );
  }
});

test("isArchiveDevice is true for a pipe and a device only", async () => {
  const folder = tempFolder();
  writeFileSync(join(folder, "file"), "");
  mkdirSync(join(folder, "folder"));
  expect(Bun.spawnSync(["mkfifo", join(folder, "pipe")]).exitCode).toBe(0);
  for (const [name, expected] of [
    ["file", false],
    ["folder", false],
    ["missing", false],
    ["pipe", true],
  ] as const)
    expect(await isArchiveDevice(join(folder, name))).toBe(expected);
  expect(await isArchiveDevice("/dev/null")).toBe(true);
});

test("followLinks leads to the file, and to where a missing one would be", async () => {
  const folder = tempFolder();
  writeFileSync(join(folder, "a.tar"), "");
  symlinkSync("a.tar", join(folder, "link"));
  expect(await followLinks(join(folder, "link"))).toBe(join(folder, "a.tar"));
  expect(await followLinks(join(folder, "new"))).toBe(join(folder, "new"));
});
