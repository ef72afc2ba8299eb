/** Where content goes: nothing is written to a place that nobody meant. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { readIndex } from "./helpers/layout.ts";
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
