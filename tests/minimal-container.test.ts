/** The binaries where there is nothing but the libraries that they are linked with. */
import { beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { BINARY } from "./helpers/binary.ts";
import {
  canChroot,
  giveAway,
  glibcRoot,
  hasGlibc,
  hasMusl,
  muslRoot,
  runIn,
} from "./helpers/chroot.ts";
import { layoutFaults, readIndex } from "./helpers/layout.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";

const ROOT = join(import.meta.dir, "..");

/** Milliseconds for a build whose runtime may have to be downloaded. */
const BUILD_TIME = 120_000;

const MACHINES = [
  ["glibc and its five files", hasGlibc, "glibc", () => glibcRoot(BINARY)],
  ["musl and libstdc++", hasMusl, "musl", () => muslRoot(buildForMusl())],
] as const;

function buildForMusl(): string {
  const outfile = join(tempFolder(), "cacheport");
  const script = join(ROOT, "scripts", "build.ts");
  const args = ["--target", "linux-x64-musl", "--outfile", outfile];
  const child = Bun.spawnSync([process.execPath, script, ...args]);
  if (child.exitCode !== 0) throw new Error(child.stderr.toString());
  return outfile;
}

describe.each(MACHINES)("on %s alone", (_, isThere, library, makeRoot) => {
  describe.skipIf(!canChroot || !isThere)("as nobody on a read-only root", () => {
    let root = "";
    beforeAll(() => {
      root = makeRoot();
    }, BUILD_TIME);

    test("self-check finds the machine fine, with locks and threads", () => {
      const work = giveAway(tempFolder());
      const args = ["self-check", "--dir", "/work", "--json"];
      const { code, stdout, stderr } = runIn(root, work, args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const { checks } = JSON.parse(stdout);
      const [system, ...others] = checks;
      expect(system.detail).toContain(library);
      for (const { name, status } of others)
        expect({ name, status }).toEqual({ name, status: "ok" });
    });

    test("convert, ls and verify do their work", () => {
      const cache = fixtureCopy("app-oci-index");
      const work = giveAway(join(cache, ".."));
      const place = "/work/app-oci-index";
      const converted = runIn(root, work, ["convert", place, "--json"]);
      expect(converted).toMatchObject({ code: 0, stderr: "" });
      // What BuildKit calls the same cache in this shape.
      const [expected] = readIndex(fixture("app-image-manifest")).manifests;
      expect(JSON.parse(converted.stdout).digest).toBe(expected.digest);
      expect(layoutFaults(cache)).toEqual([]);
      const listed = runIn(root, work, ["ls", place, "--json"]);
      expect(JSON.parse(listed.stdout)).toMatchObject([{ kind: "cache", digest: expected.digest }]);
      expect(runIn(root, work, ["verify", "--deep", place]).code).toBe(0);
    });

    test("layers are recompressed, by threads and in a folder of the target", () => {
      const work = giveAway(join(fixtureCopy("app-oci-index"), ".."));
      const args = ["convert", "/work/app-oci-index", "/work/zstd"];
      const result = runIn(root, work, [...args, "--compression", "zstd"]);
      expect(result.code).toBe(0);
      expect(layoutFaults(join(work, "zstd"))).toEqual([]);
    });

    test("what cannot be written is said in one sentence", () => {
      const work = giveAway(join(fixtureCopy("app-oci-index"), ".."));
      const args = ["copy", "/work/app-oci-index", "/usr/cache"];
      const { code, stderr } = runIn(root, work, args);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^cacheport: Cannot .*read-only$/m);
    });
  });
});
