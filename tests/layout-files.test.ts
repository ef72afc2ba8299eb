import { expect, test } from "bun:test";
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { HeldFolder } from "../src/layout-folder.ts";
import { listLayoutFiles } from "../src/layout-files.ts";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";

test("a held folder that was removed has nothing in it", async () => {
  const path = join(tempFolder(), "folder");
  mkdirSync(path);
  const folder = HeldFolder.open(path);
  try {
    rmdirSync(path);
    expect(await folder.list()).toEqual([]);
    expect(await folder.names()).toEqual([]);
  } finally {
    folder.close();
  }
});

test("folders in ingest that come and go while they are listed are no failure", async () => {
  const layout = fixtureCopy("app-oci-index");
  // As BuildKit does it for each blob of an export: a folder with files in it.
  const script = `
    const { mkdirSync, rmSync, writeFileSync } = require("node:fs");
    for (let n = 0; ; n++) {
      const path = process.argv[1] + "/" + (n % 4);
      mkdirSync(path + "/deeper", { recursive: true });
      writeFileSync(path + "/ref", "");
      rmSync(path, { recursive: true });
    }`;
  const child = Bun.spawn([process.execPath, "-e", script, join(layout, "ingest")], {
    stdout: "ignore",
    stderr: "inherit",
  });
  try {
    // Long enough to meet the other one, however slow the machine is.
    let met = 0;
    for (let round = 0; round < 100_000 && met < 500; round++) {
      const { blobs, leftovers } = await listLayoutFiles(layout);
      expect(blobs.length).toBeGreaterThan(0);
      met += leftovers.length > 0 ? 1 : 0;
    }
    expect(met).toBeGreaterThan(0);
  } finally {
    child.kill();
    await child.exited;
  }
}, 60_000);
