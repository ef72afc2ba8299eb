/** Where content goes: nothing is written to a place that nobody meant. */
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import type { Digest } from "../src/digest.ts";
import { chooseDigest } from "../src/location-digest.ts";
import { readDocument, readIndex, writeLayout } from "./helpers/layout.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const IMAGE = fixture("image.tar");

/** The names in a tar's index.json, read with tar. */
async function namesInTar(file: string): Promise<string[]> {
  const tar = Bun.spawn(["tar", "xOf", file, "index.json"], { stdout: "pipe" });
  const { manifests } = JSON.parse(await new Response(tar.stdout).text());
  return manifests.map((entry: any) => entry.annotations["io.containerd.image.name"]);
}

describe("a new target is what stands before its first colon", () => {
  test.each([
    ["oci-archive:new.tar:busybox:latest", "docker.io/library/busybox:latest"],
    ["new.tar:team/app:1.0", "docker.io/team/app:1.0"],
    ["new.tar:localhost:5000/app:1.0", "localhost:5000/app:1.0"],
  ])("archive %p", async (target, name) => {
    const cwd = tempFolder();
    const run = await cacheport(["copy", IMAGE, target], { cwd });
    expect(run.code).toBe(0);
    expect(readdirSync(cwd)).toEqual(["new.tar"]);
    expect(await namesInTar(join(cwd, "new.tar"))).toEqual([name]);
    // The same text reads it again.
    expect((await cacheport(["resolve", target], { cwd })).code).toBe(0);
  });

  test.each([
    ["new:busybox:1.0", "docker.io/library/busybox:1.0"],
    ["oci:new:team/app:1.0", "docker.io/team/app:1.0"],
  ])("folder %p", async (target, name) => {
    const cwd = tempFolder();
    expect((await cacheport(["copy", IMAGE, target], { cwd })).code).toBe(0);
    expect(readdirSync(cwd)).toEqual(["new"]);
    const [entry] = readIndex(join(cwd, "new")).manifests;
    expect(entry.annotations["io.containerd.image.name"]).toBe(name);
    expect((await cacheport(["resolve", target], { cwd })).code).toBe(0);
  });
});

describe("what nobody can have meant is refused, and nothing is made", () => {
  test.each([
    "oci:new:@0",
    "new.tar:@0",
    "127.0.0.1:5055",
    "localhost:5055",
    "ghcr.io:1",
    "registry.example",
    "new.tar.xz",
    "new.zip:v1",
    "notes.txt",
    "ci.yml",
    "localhost:999999/x",
    "[1::2::3]/x",
    "127.256.0.1/x",
  ])("%p", async (target) => {
    const cwd = tempFolder();
    const run = await cacheport(["copy", IMAGE, target], { cwd });
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(target);
    expect(readdirSync(cwd)).toEqual([]);
  });
});

describe("a folder that exists", () => {
  test("with other things in it is refused, unless it is called a layout", async () => {
    const cwd = tempFolder();
    writeFileSync(join(cwd, "main.go"), "package main\n");
    for (const target of [".", ".:v1", cwd]) {
      const run = await cacheport(["copy", IMAGE, target], { cwd });
      expect(run.code).toBe(2);
      expect(run.stderr).toContain(`oci:${target} `);
      expect(readdirSync(cwd)).toEqual(["main.go"]);
    }
    expect((await cacheport(["copy", IMAGE, "oci:."], { cwd })).code).toBe(0);
    expect(existsSync(join(cwd, "index.json"))).toBe(true);
    // Now it is a layout.
    expect((await cacheport(["copy", IMAGE, ".:again"], { cwd })).code).toBe(0);
  });

  test.each([[[]], [["lost+found"]], [[".gitignore"]], [["blobs"]]])(
    "with %p in it is taken",
    async (entries: string[]) => {
      const cwd = tempFolder();
      for (const entry of entries) mkdirSync(join(cwd, entry));
      expect((await cacheport(["copy", IMAGE, cwd])).code).toBe(0);
    },
  );
});

test("a link that leads nowhere is told as that, and nothing is made behind it", async () => {
  const cwd = tempFolder();
  const nowhere = join(cwd, "nowhere");
  symlinkSync(nowhere, join(cwd, "link"));
  symlinkSync("loop", join(cwd, "loop"));
  for (const target of ["link", "link:v1", "link/sub", "link/new.tar", "loop"]) {
    const run = await cacheport(["copy", IMAGE, target], { cwd });
    expect(run.code).toBe(3);
    expect(run.stderr).toContain("is a symbolic link to");
    expect(readdirSync(cwd).toSorted()).toEqual(["link", "loop"]);
  }
  mkdirSync(nowhere);
  expect((await cacheport(["copy", IMAGE, "link"], { cwd })).code).toBe(0);
  expect(existsSync(join(nowhere, "index.json"))).toBe(true);
});

describe("a digest by its start", () => {
  const layout = fixture("image-dir");
  const [entry] = readIndex(layout).manifests;
  const { layers } = readDocument(layout, entry.digest);
  const layer: string = layers[0].digest;

  test("is enough wherever a digest is taken", async () => {
    for (const start of [layer.slice(0, 14), layer.slice(7, 19), layer.slice(0, -1), layer]) {
      const run = await cacheport(["resolve", `${layout}@${start}`]);
      expect([run.code, run.stdout]).toEqual([0, `${layer}\n`]);
      expect((await cacheport(["cat", `${IMAGE}@${start}`])).code).toBe(0);
    }
    const manifest = await cacheport([
      "inspect",
      `oci:${layout}@${entry.digest.slice(7, 19)}`,
      "--json",
    ]);
    expect(manifest.json().manifest.digest).toBe(entry.digest);
    const cwd = tempFolder();
    const copied = await cacheport(["copy", `${layout}@${entry.digest.slice(0, 15)}`, "new"], {
      cwd,
    });
    expect(copied.code).toBe(0);
  });

  test("of nothing, of several things and for a target is an error", async () => {
    const none = await cacheport(["cat", `${layout}@0000000`]);
    expect([none.code, none.stdout]).toEqual([3, ""]);
    expect((await cacheport(["cat", `${layout}@${layer.slice(0, 13)}`])).code).toBe(2);
    const cwd = tempFolder();
    const target = await cacheport(["copy", IMAGE, `${layout}@${layer.slice(0, 20)}`], { cwd });
    expect(target.code).toBe(2);
    const fresh = await cacheport(["copy", IMAGE, "new@sha256:abcdef0"], { cwd });
    expect(fresh.code).toBe(2);
    expect(readdirSync(cwd)).toEqual([]);
    const one = `sha256:abcdef0${"1".repeat(57)}` as Digest;
    const other = `sha256:abcdef0${"2".repeat(57)}` as Digest;
    expect(chooseDigest([one, other, one], "abcdef01", "x")).toBe(one);
    expect(() => chooseDigest([one, other], "abcdef0", "x")).toThrow("2 digests");
  });

  test("names the layer that prune drops", async () => {
    const cache = fixture("app-oci-index");
    const { json } = await cacheport(["inspect", cache, "--json"]);
    const { digest } = json().layers[0];
    const prune = async (text: string) =>
      (await cacheport(["prune", cache, "--dry-run", "--json", "--drop-layer", text])).json();
    expect((await prune(digest.slice(7, 19))).digest).toBe((await prune(digest)).digest);
    expect((await prune(digest)).dropped.layers.length).toBeGreaterThan(0);
  });
});

test("an empty place says that nothing is there", async () => {
  const layout = join(tempFolder(), "empty");
  writeLayout(layout, []);
  const run = await cacheport(["ls", layout]);
  expect([run.code, run.stderr]).toEqual([0, `There are no names in ${layout}\n`]);
  expect((await cacheport(["ls", layout, "--json"])).json()).toEqual([]);
});

test.skipIf(process.getuid?.() !== 0 || Bun.which("setpriv") === null)(
  "a folder of another user is told with its owner",
  async () => {
    const layout = join(tempFolder(), "layout");
    expect((await cacheport(["copy", IMAGE, layout])).code).toBe(0);
    mkdirSync(join(layout, ".cacheport"), { mode: 0o755 });
    const binary = join(tempFolder(), "cacheport");
    copyFileSync(BINARY, binary);
    chmodSync(binary, 0o755);
    const other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary];
    for (const command of [
      ["copy", layout, `${layout}:x`],
      ["tag", layout, "x"],
    ]) {
      const child = Bun.spawnSync([...other, ...command], { env: { PATH: "/usr/bin:/bin" } });
      expect(child.exitCode).toBe(1);
      expect(child.stderr.toString()).toMatch(
        /hint: ".*layout.*" belongs to user 0 \(mode 755\) and you are .*\(65534\)/,
      );
    }
  },
);
