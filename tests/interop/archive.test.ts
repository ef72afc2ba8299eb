import { describe, expect, test } from "bun:test";
import { copyFileSync, chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Descriptor } from "../../src/descriptor.ts";
import { LayoutArchive } from "../../src/archive-reader.ts";
import { LayoutArchiveWriter } from "../../src/archive-writer.ts";
import type { LayoutArchiveWriterOptions } from "../../src/archive-writer.ts";
import { LayoutDirectory } from "../../src/layout-directory.ts";
import { copyAll } from "../helpers/archives.ts";
import { ended } from "../helpers/output.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";

const PEERS_RUN = process.env["PEERS_RUN"];

/** Runs a program and gives its standard output; fails when the program does. */
async function run(...command: string[]): Promise<string> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe" });
  const { code, stdout, stderr } = await ended(child);
  if (code !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
  return stdout;
}

const peer = (...command: string[]): Promise<string> => run(PEERS_RUN ?? "false", ...command);

/** Writes fixtures into one archive, one after the other, and gives its path. */
async function archiveOf(
  names: string[],
  options: Partial<LayoutArchiveWriterOptions> = {},
): Promise<string> {
  const path = join(tempFolder(), "a.tar");
  for (const name of names) {
    const source = await LayoutDirectory.open(fixture(name));
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "append", ...options });
    try {
      await copyAll(source, writer);
    } finally {
      await writer.close();
    }
  }
  return path;
}

async function rootOf(name: string, tag: string = "1.0"): Promise<Descriptor> {
  const layout = await LayoutDirectory.open(fixture(name));
  return (await layout.resolve({ name: tag })).descriptor;
}

describe("GNU tar", () => {
  test("unpacks what was created and what was added to", async () => {
    const path = await archiveOf(["image-dir", "grown"]);
    const folder = tempFolder();
    await run("tar", "-C", folder, "-xf", path);
    const archive = await LayoutArchive.open(path);
    const layout = await LayoutDirectory.open(folder);
    expect(await layout.list()).toEqual(await archive.list());
    for (const [digest, size] of archive.blobs())
      await layout.read({ mediaType: "", digest, size }, size);
    await archive.close();
  });

  test("packs a folder that is then read", async () => {
    for (const format of ["gnu", "pax", "ustar", "v7"]) {
      const path = join(tempFolder(), "a.tar");
      const folder = fixture("image-dir");
      await run("tar", "-C", folder, `--format=${format}`, "-cf", path, ".");
      const archive = await LayoutArchive.open(path);
      const { descriptor } = await archive.resolve({ name: "1.0" });
      expect(descriptor.digest).toBe((await rootOf("image-dir")).digest);
      await archive.read(descriptor, 4 * 1024 * 1024);
      await archive.close();
    }
  });
});

describe.skipIf(!PEERS_RUN)("peers", () => {
  test("skopeo copies an image out of an archive, after adding to it too", async () => {
    for (const names of [["image-dir"], ["grown", "image-dir"]]) {
      const path = await archiveOf(names);
      const target = join(tempFolder(), "out");
      await peer(
        "skopeo",
        "copy",
        "--preserve-digests",
        `oci-archive:${path}:1.0`,
        `oci:${target}:1.0`,
      );
      const layout = await LayoutDirectory.open(target);
      const { descriptor } = await layout.resolve({ name: "1.0" });
      expect(descriptor.digest).toBe((await rootOf("image-dir")).digest);
    }
  });

  test("oras copies an image and a cache out of an archive", async () => {
    const path = await archiveOf(["image-dir", "grown"]);
    for (const [name, tag] of [
      ["image-dir", "1.0"],
      ["grown", "main"],
    ] as const) {
      const target = join(tempFolder(), "out");
      mkdirSync(target);
      await peer(
        "oras",
        "cp",
        "--from-oci-layout",
        "--to-oci-layout",
        `${path}:${tag}`,
        `${target}:copied`,
      );
      const layout = await LayoutDirectory.open(target);
      const { descriptor } = await layout.resolve({ name: "copied" });
      expect(descriptor.digest).toBe((await rootOf(name, tag)).digest);
    }
  });

  test("umoci reads an archive that was unpacked", async () => {
    const path = await archiveOf(["image-dir"]);
    const folder = tempFolder();
    await run("tar", "-C", folder, "-xf", path);
    const text = await peer("umoci", "ls", "--layout", folder);
    expect(text.trim().split("\n")).toContain("1.0");
    await peer("umoci", "stat", "--image", `${folder}:1.0`);
  });

  test("docker loads an archive, with and without manifest.json, compressed too", async () => {
    for (const options of [
      { docker: true },
      {},
      { compress: "gzip" as const },
      { compress: "zstd" as const },
    ]) {
      const path = await archiveOf(["image-dir"], {
        ...options,
        mode: "create",
      });
      const text = await peer("docker", "load", "-i", path);
      expect(text).toMatch(/Loaded image/);
    }
  });

  test("skopeo takes what was added to BuildKit's own archive", async () => {
    const path = join(tempFolder(), "a.tar");
    copyFileSync(fixture("image-docker.tar"), path);
    chmodSync(path, 0o644);
    const source = await LayoutDirectory.open(fixture("multi-image"));
    const writer = await LayoutArchiveWriter.open({ path }, { mode: "append" });
    await copyAll(source, writer);
    await writer.close();
    const archive = await LayoutArchive.open(path);
    expect((await archive.list()).length).toBeGreaterThan(1);
    await archive.close();
    const raw = await peer("skopeo", "inspect", "--raw", `oci-archive:${path}:1.0`);
    expect(JSON.parse(raw).schemaVersion).toBe(2);
  });
});
