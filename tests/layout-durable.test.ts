import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  readRegularFile,
  streamRegularFile,
  syncFolder,
  writeDurably,
} from "../src/layout-durable.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";

const toError = (error: unknown) => error as Error;

test("writeDurably() makes a new file with the mode that is asked for", async () => {
  const path = join(tempFolder(), "file");
  await writeDurably(path, Buffer.from("abc"), 0o444);
  await syncFolder(join(path, ".."));
  expect(readFileSync(path, "utf8")).toBe("abc");
  expect(statSync(path).mode & 0o777).toBe(0o444);
  await expect(writeDurably(path, Buffer.from("x"), 0o644)).rejects.toMatchObject({
    code: "EEXIST",
  });
  expect(readFileSync(path, "utf8")).toBe("abc");
});

describe("readRegularFile", () => {
  test("gives all bytes up to the limit", async () => {
    const path = join(tempFolder(), "file");
    writeFileSync(path, "abc");
    const { bytes, stable } = await readRegularFile(path, 3, "it");
    expect(Buffer.from(bytes).toString()).toBe("abc");
    expect(stable).toBe(true);
    const error = await failure(() => readRegularFile(path, 2, "it"));
    expect(error.code).toBe("DOCUMENT_TOO_LARGE");
  });

  test("refuses links, folders, pipes and devices without waiting", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "file"), "abc");
    symlinkSync(join(folder, "file"), join(folder, "link"));
    await expect(readRegularFile(join(folder, "link"), 9, "it")).rejects.toMatchObject({
      code: "ELOOP",
    });
    expect((await failure(() => readRegularFile(folder, 9, "it"))).message).toContain(
      "not a regular file",
    );
    if (existsSync("/dev/zero")) await failure(() => readRegularFile("/dev/zero", 9, "it"));
  });
});

describe("streamRegularFile", () => {
  test("gives the bytes as they are, over several chunks", async () => {
    const path = join(tempFolder(), "file");
    const bytes = crypto.getRandomValues(new Uint8Array(60_000));
    writeFileSync(path, Buffer.concat(Array.from({ length: 30 }, () => bytes)));
    const read = await new Response(streamRegularFile(path, "it", toError)).bytes();
    expect(Buffer.compare(read, readFileSync(path))).toBe(0);
  });

  test("fails when the file is gone", async () => {
    const stream = streamRegularFile(join(tempFolder(), "none"), "it", toError);
    await expect(stream.getReader().read()).rejects.toMatchObject({
      code: "ENOENT",
    });
  });
});
