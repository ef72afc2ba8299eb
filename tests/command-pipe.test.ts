/** The commands on standard input and output, and on other pipes. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { run as runInProcess } from "../src/cli.ts";
import { fakeHost } from "./helpers/host.ts";
import { addBlob, layoutFaults, readIndex, writeLayout } from "./helpers/layout.ts";
import { shell } from "./helpers/shell.ts";
import { blobNames, fixture, tempFolder } from "./helpers/temp.ts";

const top = (name: string): any => readIndex(fixture(name)).manifests[0];

describe("a pipe", () => {
  test("carries a layout from one cacheport to the next", async () => {
    const folder = tempFolder();
    const run = await shell(
      folder,
      `cacheport copy -q "${fixture("image.tar")}" layout:1.0 >out
       cacheport copy layout - 2>out | cacheport copy -q - other:1 >out
       cacheport copy -q --compress zstd --all "${fixture("grown")}" - | cacheport copy -q -:feature other >out
       cacheport copy layout - --quiet | cacheport ls - --json
       rm out; ls -A`,
    );
    expect(run.stderr).toBe("");
    expect(run.stdout).toContain(top("image-dir").digest);
    expect(run.stdout.split("\n").slice(-3)).toEqual(["layout", "other", ""]);
    const other = join(folder, "other");
    expect(readIndex(other).manifests).toHaveLength(2);
    expect(layoutFaults(other)).toEqual([]);
  });

  test("may have a name, as the shell does it for <(...)", async () => {
    const folder = tempFolder();
    const run = await shell(
      folder,
      `mkfifo in out
       cat "${fixture("image.tar")}" >in & cacheport resolve in
       cacheport resolve - <out & cacheport copy -q "${fixture("image.tar")}" out >log; wait
       cat "${fixture("image.tar")}" | cacheport resolve /dev/stdin
       cacheport copy "${fixture("image.tar")}" /dev/stdout 2>log | cacheport resolve -
       rm in out log; ls -A`,
    );
    expect(run.stderr).toBe("");
    expect(run.stdout).toBe(`${top("image-dir").digest}\n`.repeat(4));
  });

  test("is read once, and cannot be converted in place", async () => {
    const folder = tempFolder();
    const run = await shell(
      folder,
      `tar -C "${fixture("grown")}" -cf a.tar .
       ! cacheport diff -:main -:feature <a.tar
       ! cacheport convert -:main <a.tar
       ! cacheport untag -:main <a.tar
       ! cacheport tag -:main other <a.tar`,
    );
    expect(run.stderr.match(/^cacheport: .*/gm)).toEqual([
      expect.stringMatching(/^cacheport: Cannot read .*standard input/),
      "cacheport: Cannot convert standard input in place: give a target",
      'cacheport: Cannot untag "-:main": standard input cannot be changed in place',
      'cacheport: Cannot tag "-:main": standard input cannot be changed in place',
    ]);
  });

  test("is needed: a terminal gets no tar and gives none", async () => {
    for (const args of [
      ["copy", fixture("image.tar"), "-"],
      ["ls", "-"],
    ]) {
      // A terminal may have a size of zero.
      const terminal = fakeHost({ columns: 0 });
      const stdin = { ...terminal.host.stdin, isTerminal: true };
      const host = { ...terminal.host, stdin };
      expect(await runInProcess(args, host)).toBe(2);
      expect(terminal.stdout()).toBe("");
      expect(terminal.stderr()).toContain("terminal");
    }
  });

  test.skipIf(!Bun.which("strace"))(
    "into a folder, blobs are unpacked once and then moved",
    async () => {
      const folder = tempFolder();
      const source = join(folder, "source");
      const layer = addBlob(source, Buffer.alloc(8_000_000, 7), "text/plain");
      const config = addBlob(source, "{}", "application/vnd.oci.empty.v1+json");
      const mediaType = "application/vnd.oci.image.manifest.v1+json";
      const manifest = { schemaVersion: 2, mediaType, config, layers: [layer] };
      writeLayout(source, [addBlob(source, manifest, mediaType)]);
      const run = await shell(
        folder,
        `tar -C source -cf all.tar .
         strace -f -qq -o trace -e trace=write,pwrite64,rename,copy_file_range "$CACHEPORT" copy -q - target <all.tar >out`,
      );
      expect(run.code).toBe(0);
      const trace = readFileSync(join(folder, "trace"), "utf8");
      const hex = layer.digest.slice(7);
      expect(trace).toMatch(
        new RegExp(`rename\\("[^"]*/\\.cacheport-run-[^"]*", "[^"]*/target/blobs/sha256/${hex}"`),
      );
      const written = [...trace.matchAll(/(?:write|pwrite64|copy_file_range)\(.* = (\d+)$/gm)];
      const total = written.reduce((sum, [, count]) => sum + Number(count), 0);
      expect(total).toBeGreaterThanOrEqual(8_000_000);
      expect(total).toBeLessThan(8_100_000);
      expect(layoutFaults(join(folder, "target"))).toEqual([]);
    },
  );

  test("is listed and resolved without its large blobs being unpacked", async () => {
    const folder = tempFolder();
    const source = join(folder, "source");
    const layer = addBlob(source, Buffer.alloc(40_000_000, 7), "text/plain");
    const config = addBlob(source, "{}", "application/vnd.oci.empty.v1+json");
    const mediaType = "application/vnd.oci.image.manifest.v1+json";
    const manifest = addBlob(
      source,
      { schemaVersion: 2, mediaType, config, layers: [layer] },
      mediaType,
    );
    writeLayout(source, [manifest]);
    // No file may have more than 2 MB.
    const run = await shell(
      folder,
      `tar -C source -cf all.tar .; tar -C source -czf all.tgz .; tar -czf inner.tgz source
       ulimit -f 4000
       for file in all.tar all.tgz inner.tgz; do
         cacheport ls --json - <$file; cacheport resolve - <$file
       done
       cacheport ls --tree all.tgz >tree; ls -A`,
    );
    expect(run.stderr).toBe("");
    const lines = run.stdout.trim().split("\n");
    const list = JSON.parse(lines.slice(0, lines.indexOf(manifest.digest)).join(" "));
    expect(list).toMatchObject([{ digest: manifest.digest, contentSize: 40_000_002 }]);
    expect(lines.filter((line) => line === manifest.digest)).toHaveLength(3);
    expect(lines.slice(-5)).toEqual(["all.tar", "all.tgz", "inner.tgz", "source", "tree"]);
  });

  test.skipIf(!existsSync("/dev/shm"))(
    "into a folder on another file system than the temporary one",
    async () => {
      const folder = tempFolder();
      const made = await shell(folder, "mktemp -d /dev/shm/cacheport-test-XXXXXX");
      const other = made.stdout.trim();
      try {
        const run = await shell(
          folder,
          `tar -C "${fixture("grown")}" -c . | cacheport copy -q --all - "${other}/target" >out; ls -A "${other}"`,
        );
        expect(run.stdout).toBe("target\n");
        expect(layoutFaults(join(other, "target"))).toEqual([]);
        expect(blobNames(join(other, "target")).length).toBeGreaterThan(10);
      } finally {
        await shell(folder, `rm -rf "${other}"`);
      }
    },
  );
});
