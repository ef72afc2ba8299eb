import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { digestOf } from "../src/digest.ts";
import { acquireLock } from "../src/layout-lock.ts";
import { hasLayoutMarker, readIndexFile, readIndexForUpdate } from "../src/layout-index-file.ts";
import { updateIndexFile } from "../src/layout-index-update.ts";
import { applyNames, removeEntries } from "../src/layout-index.ts";
import type { LayoutIndex } from "../src/layout-index.ts";
import { OCI_MANIFEST } from "../src/media-types.ts";
import { failure } from "./helpers/errors.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { isRoot } from "./helpers/machine.ts";

const SOURCE = join(import.meta.dir, "..", "src");
const MARKER = `{"imageLayoutVersion":"1.0.0"}`;

/** A change that names some content that need not be there. */
const naming =
  (refName: string) =>
  (index: LayoutIndex): LayoutIndex =>
    applyNames(
      index,
      [
        {
          descriptor: {
            mediaType: OCI_MANIFEST,
            digest: digestOf(refName),
            size: 2,
          },
          bytes: new Uint8Array(),
          names: [{ kind: "set", name: { refName } }],
        },
      ],
      "layout",
    );

const namesOf = (index: LayoutIndex) => index.entries.map((entry) => entry.refName);
const unchanged = (index: LayoutIndex) => index;

describe("readIndexFile", () => {
  test("reads what BuildKit wrote", async () => {
    const index = await readIndexFile(fixture("grown"));
    expect(namesOf(index).toSorted()).toEqual(["feature", "main"]);
  });

  test("tells a missing folder from a missing file", async () => {
    const folder = tempFolder();
    expect((await failure(() => readIndexFile(join(folder, "none")))).code).toBe(
      "LOCATION_NOT_FOUND",
    );
    const error = await failure(() => readIndexFile(folder, "./cache"));
    expect(error.code).toBe("LAYOUT_INVALID");
    expect(error.message).toBe('Cannot read layout "./cache": it has no index.json');
  });

  test("says that an empty file is empty; for a writer it is an index without entries", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "index.json"), "");
    const error = await failure(() => readIndexFile(folder));
    expect(error.code).toBe("DOCUMENT_INVALID");
    expect(error.message).toEndWith("the file is empty");
    expect((await readIndexForUpdate(folder)).entries).toEqual([]);
  });

  test("calls a file damaged that stays torn", async () => {
    const folder = fixtureCopy("grown");
    const whole = readFileSync(join(folder, "index.json"), "utf8");
    writeFileSync(join(folder, "index.json"), whole.slice(0, -5));
    expect((await failure(() => readIndexFile(folder))).code).toBe("DOCUMENT_INVALID");
  });

  test("reads a file again that is torn for a moment", async () => {
    const folder = fixtureCopy("grown");
    const path = join(folder, "index.json");
    const whole = readFileSync(path);
    writeFileSync(path, Buffer.concat([whole, whole.subarray(-100)]));
    const reading = readIndexFile(folder);
    await Bun.sleep(20);
    writeFileSync(path, whole);
    expect((await reading).entries).toHaveLength(2);
  });

  test("sees a whole index while a program rewrites it in place", async () => {
    const folder = fixtureCopy("grown");
    const script = `
      import { openSync, writeSync, ftruncateSync, readFileSync } from "node:fs";
      const whole = readFileSync(process.argv[1], "utf8");
      const { manifests, ...rest } = JSON.parse(whole);
      const short = JSON.stringify({ ...rest, manifests: manifests.slice(0, 1) });
      const fd = openSync(process.argv[1], "r+");
      for (;;) for (const text of [whole, short]) {
        const half = text.length >> 1;
        writeSync(fd, text.slice(0, half), 0);
        writeSync(fd, text.slice(half), half);
        ftruncateSync(fd, text.length);
        Bun.sleepSync(1);
      }`;
    const child = Bun.spawn([process.execPath, "-e", script, join(folder, "index.json")]);
    try {
      for (let round = 0; round < 100; round++) {
        const { entries } = await readIndexFile(folder);
        expect([1, 2]).toContain(entries.length);
        await Bun.sleep(1);
      }
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  });

  test("does not follow a symbolic link or wait for a pipe", async () => {
    const folder = tempFolder();
    symlinkSync(fixture("grown/index.json"), join(folder, "index.json"));
    expect((await failure(() => readIndexFile(folder))).message).toContain("symbolic link");
    unlinkSync(join(folder, "index.json"));
    expect(Bun.spawnSync(["mkfifo", join(folder, "index.json")]).exitCode).toBe(0);
    expect((await failure(() => readIndexFile(folder))).message).toContain("not a regular file");
  });

  test("refuses what is over the limit without reading it", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "index.json"), "");
    truncateSync(join(folder, "index.json"), 65 * 1024 * 1024);
    expect((await failure(() => readIndexFile(folder))).code).toBe("DOCUMENT_TOO_LARGE");
  });
});

describe("hasLayoutMarker", () => {
  test.each([
    [MARKER, true],
    [`{"imageLayoutVersion":"1.0.0","more":1}\n`, true],
    ["", false],
    ["{", false],
    ["[]", false],
  ])("%j gives %p", async (text, expected) => {
    const folder = tempFolder();
    writeFileSync(join(folder, "oci-layout"), text);
    expect(await hasLayoutMarker(folder)).toBe(expected);
  });

  test("refuses another version", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "oci-layout"), `{"imageLayoutVersion":"2.0.0"}`);
    expect((await failure(() => hasLayoutMarker(folder))).code).toBe("LAYOUT_INVALID");
  });
});

describe("updateIndexFile", () => {
  test("makes index.json and oci-layout where they are missing, and leaves nothing else", async () => {
    const folder = tempFolder();
    await updateIndexFile(folder, naming("v1"));
    expect(readdirSync(folder).toSorted()).toEqual(["index.json", "oci-layout"]);
    expect(readFileSync(join(folder, "oci-layout"), "utf8")).toBe(MARKER);
    expect(statSync(join(folder, "index.json")).mode & 0o777).toBe(0o644);
    expect(namesOf(await readIndexFile(folder))).toEqual(["v1"]);
  });

  test.each(["", "{"])("repairs an empty index and an oci-layout of %j", async (marker) => {
    const folder = tempFolder();
    writeFileSync(join(folder, "index.json"), "");
    writeFileSync(join(folder, "oci-layout"), marker);
    await updateIndexFile(folder, naming("v1"));
    expect(readFileSync(join(folder, "oci-layout"), "utf8")).toBe(MARKER);
    expect(namesOf(await readIndexFile(folder))).toEqual(["v1"]);
  });

  test("keeps unknown fields, annotations and the order of entries", async () => {
    const folder = tempFolder();
    const digest = digestOf("z");
    const entry = (refName: string) => ({
      mediaType: OCI_MANIFEST,
      "x-unknown": { b: 1, a: 2 },
      digest,
      size: 1,
      annotations: {
        zebra: "1",
        "org.opencontainers.image.ref.name": refName,
        alpha: "<&>",
      },
    });
    const before = {
      schemaVersion: 2,
      manifests: [entry("b"), entry("a")],
      annotations: { k: "v" },
      "x-more": [null, 1.5],
    };
    writeFileSync(join(folder, "index.json"), JSON.stringify(before, null, 3));
    await updateIndexFile(folder, naming("new"));
    const after = JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));
    expect(after.manifests.slice(0, 2)).toEqual(before.manifests);
    expect(after.manifests[2].annotations["org.opencontainers.image.ref.name"]).toBe("new");
    expect(after["x-more"]).toEqual([null, 1.5]);
    expect(after.annotations).toEqual({ k: "v" });
  });

  test("writes nothing when nothing changes", async () => {
    const folder = fixtureCopy("grown");
    const before = statSync(join(folder, "index.json"));
    await updateIndexFile(folder, unchanged);
    await updateIndexFile(folder, (index) => removeEntries(index, () => false));
    const after = statSync(join(folder, "index.json"));
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
  });

  test.skipIf(!isRoot)("keeps mode and owner of the file that it replaces", async () => {
    const folder = fixtureCopy("grown");
    const path = join(folder, "index.json");
    chmodSync(path, 0o664);
    chownSync(path, 1234, 2345);
    await updateIndexFile(folder, naming("v1"));
    const { mode, uid, gid } = statSync(path);
    expect([mode & 0o777, uid, gid]).toEqual([0o664, 1234, 2345]);
  });

  test("a failing change leaves everything as it is", async () => {
    const folder = fixtureCopy("grown");
    const before = readFileSync(join(folder, "index.json"));
    await expect(
      updateIndexFile(folder, () => {
        throw new Error("no");
      }),
    ).rejects.toThrow("no");
    expect(readFileSync(join(folder, "index.json"))).toEqual(before);
    expect(readdirSync(folder).toSorted()).toEqual(readdirSync(fixture("grown")).toSorted());
  });

  test("does not write over a damaged index or into a layout of another version", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "index.json"), "{damaged");
    expect((await failure(() => updateIndexFile(folder, naming("v1")))).code).toBe(
      "DOCUMENT_INVALID",
    );
    expect(readFileSync(join(folder, "index.json"), "utf8")).toBe("{damaged");
    const other = tempFolder();
    writeFileSync(join(other, "oci-layout"), `{"imageLayoutVersion":"2.0.0"}`);
    expect((await failure(() => updateIndexFile(other, naming("v1")))).code).toBe("LAYOUT_INVALID");
    expect(readdirSync(other)).toEqual(["oci-layout"]);
  });

  test("waits for BuildKit's lock, no longer than told", async () => {
    const folder = fixtureCopy("grown");
    const lock = await acquireLock(join(folder, "index.json.lock"));
    const error = await failure(() => updateIndexFile(folder, naming("v1"), { lockTimeout: 20 }));
    expect(error.code).toBe("LOCK_TIMEOUT");
    const update = updateIndexFile(folder, naming("v1"));
    await Bun.sleep(10);
    await lock.release();
    expect(namesOf(await update)).toContain("v1");
  });

  // Before the lock is taken, while it is held, and while it is held and the lock file goes:
  // BuildKit removes that after use, whoever holds a lock on it by then.
  test.each(["before", "under", "beside"] as const)(
    "begins anew when another program changes the index (%s the lock)",
    async (when) => {
      const folder = fixtureCopy("grown");
      let calls = 0;
      const interfere = (): void => {
        if (calls > 1) return;
        if (when === "beside") unlinkSync(join(folder, "index.json.lock"));
        if (when !== "under") {
          copyFileSync(fixture("image-dir/index.json"), join(folder, "index.json"));
        }
      };
      await updateIndexFile(
        folder,
        (index) => {
          calls++;
          if (when === "before") interfere();
          return naming("v1")(index);
        },
        { check: when === "before" ? undefined : interfere },
      );
      expect(calls).toBe(when === "under" ? 1 : 2);
      const { entries } = await readIndexFile(fixture(when === "under" ? "grown" : "image-dir"));
      expect((await readIndexFile(folder)).entries).toHaveLength(entries.length + 1);
      expect(readdirSync(folder).filter((name) => name.includes("cacheport"))).toEqual([]);
    },
  );

  test("a change of the same size in the same instant is seen", async () => {
    const folder = fixtureCopy("grown");
    const path = join(folder, "index.json");
    const old = readFileSync(path, "utf8");
    const { atime, mtime } = statSync(path);
    const other = old.replace('"main"', '"MAIN"');
    let calls = 0;
    await updateIndexFile(folder, (index) => {
      if (calls++ === 0) {
        writeFileSync(path, other);
        utimesSync(path, atime, mtime);
      }
      return naming("v1")(index);
    });
    expect(calls).toBe(2);
    expect(namesOf(await readIndexFile(folder))).toContain("MAIN");
  });

  test("what check() throws leaves everything as it is", async () => {
    const folder = fixtureCopy("grown");
    const before = readFileSync(join(folder, "index.json"));
    const names = readdirSync(folder).toSorted();
    const check = (): void => {
      throw new Error("no");
    };
    await expect(updateIndexFile(folder, naming("v1"), { check })).rejects.toThrow("no");
    expect(readFileSync(join(folder, "index.json"))).toEqual(before);
    expect(readdirSync(folder).toSorted()).toEqual(names);
  });

  test("removes what a run that died under the lock has left", async () => {
    const folder = fixtureCopy("grown");
    writeFileSync(join(folder, "index.json.cacheport-1"), "{");
    writeFileSync(join(folder, "oci-layout.cacheport-2"), "{");
    writeFileSync(join(folder, "index.json.other"), "{");
    await updateIndexFile(folder, naming("v1"));
    expect(existsSync(join(folder, "index.json.cacheport-1"))).toBe(false);
    expect(existsSync(join(folder, "oci-layout.cacheport-2"))).toBe(false);
    expect(existsSync(join(folder, "index.json.other"))).toBe(true);
  });

  test("a missing folder is an error and is not made", async () => {
    const folder = join(tempFolder(), "none");
    expect((await failure(() => updateIndexFile(folder, naming("v1")))).code).toBe(
      "LOCATION_NOT_FOUND",
    );
    expect(existsSync(folder)).toBe(false);
  });

  test("many updates at once in one process lose no name", async () => {
    const folder = tempFolder();
    const names = Array.from({ length: 20 }, (_, i) => `n${i}`);
    await Promise.all(names.map((name) => updateIndexFile(folder, naming(name))));
    expect(namesOf(await readIndexFile(folder)).toSorted()).toEqual(names.toSorted());
  });

  test("eight processes at once lose no name", async () => {
    const folder = tempFolder();
    mkdirSync(join(folder, "layout"));
    const layout = join(folder, "layout");
    const script = join(folder, "writer.ts");
    writeFileSync(
      script,
      `import { updateIndexFile } from ${JSON.stringify(join(SOURCE, "layout-index-update.ts"))};
       import { applyNames } from ${JSON.stringify(join(SOURCE, "layout-index.ts"))};
       import { digestOf } from ${JSON.stringify(join(SOURCE, "digest.ts"))};
       for (let round = 0; round < 5; round++) {
         const refName = process.argv[3] + "-" + round;
         const descriptor = { mediaType: ${JSON.stringify(OCI_MANIFEST)}, digest: digestOf(refName), size: 1 };
         const root = { descriptor, bytes: new Uint8Array(), names: [{ kind: "set", name: { refName } }] };
         await updateIndexFile(process.argv[2], (index) => applyNames(index, [root], "layout"));
       }`,
    );
    const children = Array.from({ length: 8 }, (_, i) =>
      Bun.spawn([process.execPath, script, layout, `p${i}`], {
        stderr: "inherit",
      }),
    );
    for (const child of children) expect(await child.exited).toBe(0);
    expect((await readIndexFile(layout)).entries).toHaveLength(40);
    expect(readdirSync(layout).toSorted()).toEqual(["index.json", "oci-layout"]);
    rmSync(layout, { recursive: true });
  });
});
