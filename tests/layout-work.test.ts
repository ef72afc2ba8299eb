import { describe, expect, test } from "bun:test";
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { acquireLock } from "../src/layout-lock.ts";
import {
  againIfRemoved,
  isInUse,
  lockBeside,
  makeFolder,
  RunFolder,
  TEMPORARIES,
  temporaryKind,
} from "../src/layout-work.ts";
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

/** A run folder as a run leaves it that was killed. */
function deadRun(folder: string, locked = true): string {
  const path = join(folder, `.cacheport-run-${crypto.randomUUID()}`);
  mkdirSync(join(path, "blobs", "sha256"), { recursive: true });
  writeFileSync(join(path, "blobs", "sha256", "half"), "x");
  if (locked) writeFileSync(join(path, "lock"), "");
  return path;
}

describe("RunFolder.within", () => {
  test("makes a folder beside what it is for, and removes there what dead runs left", async () => {
    const folder = tempFolder();
    const kept = [".cacheport-run-notes", "file", `.other-run-${crypto.randomUUID()}`];
    for (const name of kept) writeFileSync(join(folder, name), "");
    deadRun(folder);
    deadRun(folder, false);
    await (await RunFolder.within(folder)).close();
    expect(readdirSync(folder).toSorted()).toEqual(kept.toSorted());
    const living = await RunFolder.within(folder);
    expect(dirname(living.path)).toBe(folder);
    const next = await RunFolder.within(folder);
    await next.close();
    expect(readdirSync(folder).toSorted()).toEqual(
      [...kept, living.path.slice(folder.length + 1)].toSorted(),
    );
    await living.close();
    expect(readdirSync(folder).toSorted()).toEqual(kept.toSorted());
  });

  test("makes one in a layout where the layout's own runs are", async () => {
    const layout = tempFolder();
    mkdirSync(join(layout, "blobs"));
    const run = await RunFolder.within(layout);
    expect(dirname(run.path)).toBe(join(layout, ".cacheport"));
    await run.close();
    expect(readdirSync(layout)).toEqual(["blobs"]);
  });

  test("follows no link and removes nothing behind one", async () => {
    const folder = tempFolder();
    const outside = tempFolder();
    writeFileSync(join(outside, "lock"), "mine");
    writeFileSync(join(outside, "file"), "mine");
    const link = `.cacheport-run-${crypto.randomUUID()}`;
    symlinkSync(outside, join(folder, link));
    const dead = deadRun(folder);
    symlinkSync(outside, join(dead, "elsewhere"));
    await (await RunFolder.within(folder)).close();
    expect(readdirSync(folder)).toEqual([link]);
    expect(readdirSync(outside).toSorted()).toEqual(["file", "lock"]);
  });

  test.skipIf(process.getuid?.() !== 0)("leaves alone what another user's run left", async () => {
    const folder = tempFolder();
    const other = deadRun(folder);
    chownSync(other, 12_345, 12_345);
    await (await RunFolder.within(folder)).close();
    expect(existsSync(join(other, "blobs"))).toBe(true);
  });

  test("says that a folder is missing, and makes none", async () => {
    const missing = join(tempFolder(), "none");
    const error = await failure(() => RunFolder.within(missing));
    expect(error.code).toBe("IO_FAILED");
    expect(error.message).toContain(missing);
    expect(existsSync(missing)).toBe(false);
  });
});

test("a run in a layout removes what dead runs left beside the layout", async () => {
  const parent = tempFolder();
  deadRun(parent);
  await (await RunFolder.open(join(parent, "layout"))).close();
  expect(readdirSync(parent)).toEqual(["layout"]);
});

describe("lockBeside", () => {
  test("is removed by the next run when its own run died, and is nobody else's file", async () => {
    const folder = tempFolder();
    const path = lockBeside(join(folder, "x.tar"));
    const lock = await acquireLock(path, { own: true });
    const left = readFileSync(path);
    const other = lockBeside(join(folder, "other.tar"));
    await (await RunFolder.within(folder)).close();
    expect(existsSync(path)).toBe(true);
    await lock.release();
    expect(readdirSync(folder)).toEqual([]);
    writeFileSync(path, left);
    writeFileSync(other, "written by hand");
    await (await RunFolder.within(folder)).close();
    expect(existsSync(path)).toBe(false);
    const held = await acquireLock(other, { own: true });
    await held.release();
    expect(readFileSync(other, "utf8")).toBe("written by hand");
    writeFileSync(other, "");
    await (await acquireLock(other, { own: true })).release();
    expect(readFileSync(other, "utf8")).toBe("");
  });
});

describe("TEMPORARIES", () => {
  test("every kind knows its own names, and no name of the field", () => {
    for (const kind of TEMPORARIES) {
      expect(kind.pattern.test(kind.newName())).toBe(true);
      if (kind.place !== "work")
        expect(temporaryKind(kind.newName(), "layout")?.place).toBe(kind.place);
      for (const name of ["index.json", "index.json.lock", "blobs", "ingest", ".git", "x.tar.lock"])
        expect(kind.pattern.test(name)).toBe(false);
    }
  });

  test("isInUse tells a living run from a dead one without touching it", async () => {
    const folder = tempFolder();
    const dead = deadRun(folder);
    const bare = deadRun(folder, false);
    expect(await isInUse(dead)).toBe(false);
    expect(await isInUse(bare)).toBe(false);
    expect(existsSync(join(dead, "lock"))).toBe(true);
    const living = await RunFolder.open(join(folder, "layout"));
    expect(await isInUse(living.path)).toBe(true);
    await living.close();
    expect(await isInUse(living.path)).toBe(false);
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
