import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { againIfRemoved, makeFolder, RunFolder } from "../src/layout-work.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";

describe("RunFolder", () => {
  test("makes its root, gives paths of its own and goes with all that is in it", async () => {
    const parent = tempFolder();
    const root = join(parent, "a", "b");
    const run = await RunFolder.open(root);
    expect(run.madeRoot).toBe(join(parent, "a"));
    const [one, two] = [run.temporaryPath(), run.temporaryPath()];
    expect(one).not.toBe(two);
    expect(dirname(one)).toStartWith(join(root, ".cacheport", "run-"));
    writeFileSync(one, "x");
    await run.close();
    await run.close();
    expect(readdirSync(root)).toEqual([]);
    expect((await RunFolder.open(root)).madeRoot).toBeUndefined();
  });

  test("removes dead runs, and leaves living ones and what is none", async () => {
    const root = tempFolder();
    const living = await RunFolder.open(root);
    const dead = join(root, ".cacheport", "run-dead");
    mkdirSync(dead);
    writeFileSync(join(dead, "lock"), "");
    writeFileSync(join(dead, "rest"), "");
    mkdirSync(join(root, ".cacheport", "run-before-it-was-locked"));
    const removed = join(root, ".cacheport", "run-while-it-was-removed");
    mkdirSync(removed);
    writeFileSync(join(removed, "rest"), "");
    mkdirSync(join(root, ".cacheport", "other"));
    const next = await RunFolder.open(root);
    const names = readdirSync(join(root, ".cacheport"));
    expect(names).toHaveLength(3);
    expect(names).toContain("other");
    expect(existsSync(dirname(living.temporaryPath()))).toBe(true);
    await next.close();
    await living.close();
    expect(readdirSync(join(root, ".cacheport"))).toEqual(["other"]);
  });

  test("many runs come and go without disturbing each other", async () => {
    const root = join(tempFolder(), "layout");
    await Promise.all(
      Array.from({ length: 30 }, async () => {
        const run = await RunFolder.open(root);
        const path = run.temporaryPath();
        writeFileSync(path, "x");
        await Bun.sleep(Math.random() * 5);
        expect(existsSync(path)).toBe(true);
        await run.close();
      }),
    );
    expect(readdirSync(root)).toEqual([]);
  });

  test("says where it cannot be made", async () => {
    const root = join(tempFolder(), "file");
    writeFileSync(root, "");
    const error = await failure(() => RunFolder.open(root));
    expect(error.code).toBe("IO_FAILED");
    expect(error.message).toContain(root);
  });
});

describe("makeFolder", () => {
  test("tells whether it made the folder", async () => {
    const path = join(tempFolder(), "folder");
    expect(await makeFolder(path)).toBe(true);
    expect(await makeFolder(path)).toBe(false);
  });

  test("refuses a symbolic link and a file", async () => {
    const folder = tempFolder();
    symlinkSync(tempFolder(), join(folder, "link"));
    writeFileSync(join(folder, "file"), "");
    for (const name of ["link", "file"]) {
      const error = await failure(() => makeFolder(join(folder, name)));
      expect(error.code).toBe("LAYOUT_INVALID");
    }
  });
});

test("againIfRemoved() gives up when the path stays missing", async () => {
  let runs = 0;
  const path = join(tempFolder(), "none", "folder");
  await expect(
    againIfRemoved(() => {
      runs++;
      return makeFolder(path);
    }),
  ).rejects.toMatchObject({ code: "ENOENT" });
  expect(runs).toBe(20);
});
