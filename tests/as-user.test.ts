/**
 * The commands once more as a user without rights: root may write what is read-only and read
 * what is closed, so that tests as root alone do not see what fails for everybody else.
 */
import { expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { BINARY } from "./helpers/binary.ts";
import { has, isRoot } from "./helpers/machine.ts";
import { tempFolder } from "./helpers/temp.ts";

const ROOT = join(import.meta.dir, "..");
const NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

const FILES = [
  "command-archive",
  "command-convert",
  "command-copy",
  "command-expire",
  "command-gc",
  "command-merge",
  "command-prune",
  "command-serve",
  "command-tag",
  "command-verify",
  "layout-directory",
  "layout-writer",
  "leftovers",
].map((name) => join("tests", `${name}.test.ts`));

/** The checkout may lie where another user cannot look. */
const canLook =
  isRoot &&
  has("setpriv") &&
  Bun.spawnSync([...NOBODY, "test", "-x", BINARY, "-a", "-r", join(ROOT, "package.json")])
    .exitCode === 0;

test.skipIf(!canLook)(
  "what writes, writes as a user without rights",
  () => {
    const home = tempFolder();
    chmodSync(home, 0o777);
    const child = Bun.spawnSync(
      [...NOBODY, process.execPath, "test", "--timeout", "120000", ...FILES],
      {
        cwd: ROOT,
        env: { PATH: process.env["PATH"], HOME: home, TMPDIR: home },
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    const failed = child.stderr.toString().match(/^\(fail\).*$/gm) ?? [];
    expect(failed).toEqual([]);
    expect(child.exitCode).toBe(0);
    expect(child.stderr.toString()).toMatch(/^ *[1-9]\d{2} pass$/m);
  },
  300_000,
);
