import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { writeOutputFile } from "../src/cli-file.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("writeOutputFile()", () => {
  test("makes a file that others may read, and leaves nothing beside it", async () => {
    const folder = tempFolder();
    await writeOutputFile(join(folder, "a.html"), bytes("new"));
    expect(readdirSync(folder)).toEqual(["a.html"]);
    expect(readFileSync(join(folder, "a.html"), "utf8")).toBe("new");
    expect(statSync(join(folder, "a.html")).mode & 0o777).toBe(0o644);
  });

  test("replaces a file by another one that keeps its mode", async () => {
    const path = join(tempFolder(), "a.html");
    writeFileSync(path, "old and longer");
    chmodSync(path, 0o600);
    const before = statSync(path).ino;
    await writeOutputFile(path, bytes("new"));
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(path).ino).not.toBe(before);
  });

  test("a symbolic link stays, what it leads to is replaced", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "real"), "old");
    symlinkSync("real", join(folder, "link"));
    await writeOutputFile(join(folder, "link"), bytes("new"));
    expect(readlinkSync(join(folder, "link"))).toBe("real");
    expect(readFileSync(join(folder, "real"), "utf8")).toBe("new");
  });

  test("a pipe gets the bytes and stays a pipe", async () => {
    const path = join(tempFolder(), "pipe");
    Bun.spawnSync(["mkfifo", path]);
    const reader = Bun.spawn(["cat", path], { stdout: "pipe" });
    await writeOutputFile(path, bytes("new"));
    expect(await new Response(reader.stdout).text()).toBe("new");
    expect(statSync(path).isFIFO()).toBe(true);
  });

  test.each([
    ["a folder that is not there", "none/a.html", "no such file or directory"],
    ["a folder", "folder", "it is a directory"],
    ["a file as a folder", "file/a.html", "a part of the path"],
  ])("%s: one sentence, nothing left behind", async (_, name, reason) => {
    const folder = tempFolder();
    mkdirSync(join(folder, "folder"));
    writeFileSync(join(folder, "file"), "old");
    const error = await failure(() => writeOutputFile(join(folder, name), bytes("new")));
    expect(error.code).toBe("IO_FAILED");
    expect(error.message).toStartWith(
      `Cannot write file ${JSON.stringify(join(folder, name))}: ${reason}`,
    );
    expect(readdirSync(folder).toSorted()).toEqual(["file", "folder"]);
    expect(existsSync(join(folder, "none"))).toBe(false);
  });
});
