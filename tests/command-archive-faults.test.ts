/** What the commands do with broken archives, full disks, crashes and rivals. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { makeTar } from "./helpers/archives.ts";
import type { TestMember } from "./helpers/archives.ts";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { addBlob, layoutFaults, readIndex, writeLayout } from "./helpers/layout.ts";
import { shell } from "./helpers/shell.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const TAR = readFileSync(fixture("image.tar"));
const BROKEN = 4;

/** One sentence and perhaps a hint, and nothing of the runtime's. */
function expectSentence(stderr: string): void {
  expect(stderr).toMatch(/^cacheport: Cannot [^\n]+\n(?:hint: [^\n]+\n)?$/);
  expect(stderr).not.toMatch(/ERR_|undefined|\bat \S+:\d+/);
}

/** The members of image.tar, as they may be packed again with one of them changed. */
function members(): TestMember[] {
  const folder = fixture("image-dir");
  const files = readdirSync(folder, { recursive: true, withFileTypes: true });
  return files
    .filter((file) => file.isFile())
    .map((file) => {
      const path = join(file.parentPath, file.name);
      return {
        name: path.slice(folder.length + 1),
        content: readFileSync(path),
      };
    });
}

/** A layer of image-dir. */
function layerPath(): string {
  const manifest = readIndex(fixture("image-dir")).manifests[0].digest.slice(7);
  const blobs = join(fixture("image-dir"), "blobs", "sha256");
  const { layers } = JSON.parse(readFileSync(join(blobs, manifest), "utf8"));
  return `blobs/sha256/${layers[0].digest.slice(7)}`;
}

/** The members with another one in the place of a layer. */
const withLayer = (member: Omit<TestMember, "name">): TestMember[] => [
  ...members().filter(({ name }) => name !== layerPath()),
  { name: layerPath(), ...member },
];

describe("a broken archive ends with 4 and one sentence, from a file and from a pipe", () => {
  const cases: [string, () => Uint8Array, RegExp][] = [
    ["an empty one", () => new Uint8Array(0), /it is empty/],
    ["a text", () => Buffer.from("hello\n"), /it is no tar/],
    ["noise", () => Buffer.alloc(100_000, "noise"), /it is no tar/],
    ["a tar of something else", () => makeTar([{ name: "a" }]), /no index\.json/],
    ["one that is cut short", () => TAR.subarray(0, 15_000), /truncated/],
    ["one without its last content", () => TAR.subarray(0, -1536), /truncated/],
    ["gzip that is cut short", () => gzipSync(TAR).subarray(0, 9_000), /unexpected end of file/],
    [
      "a member above the root",
      () => makeTar([{ name: "../../etc/evil" }, ...members()]),
      /would lie outside/,
    ],
    [
      "a blob above the root",
      () => makeTar([...members(), { name: "blobs/sha256/../../../evil" }]),
      /would lie outside/,
    ],
    [
      "an absolute member",
      () => makeTar([{ name: "/tmp/evil" }, ...members()]),
      /would lie outside/,
    ],
    [
      "a symbolic link for a blob",
      () => makeTar(withLayer({ typeflag: "2", linkname: "/etc/passwd" })),
      /no plain file/,
    ],
    [
      "a hard link for a blob",
      () => makeTar(withLayer({ typeflag: "1", linkname: "/etc/passwd" })),
      /no plain file/,
    ],
    ["other bytes in a blob", () => makeTar(withLayer({ content: "x" })), /blob "sha256:/],
    [
      "a blob that is missing",
      () => makeTar(members().filter(({ name }) => name !== layerPath())),
      /blob "sha256:/,
    ],
    [
      "an index.json that is none",
      () => makeTar([...members(), { name: "index.json", content: "{" }]),
      /not valid JSON/,
    ],
  ];
  test.each(cases)("%s", async (_, make, reason) => {
    const folder = tempFolder();
    const path = join(folder, "in", "x.tar");
    await shell(folder, "mkdir in out");
    writeFileSync(path, make());
    for (const source of [path, "-"]) {
      const target = join(folder, "out", "layout");
      const run = await cacheport(["copy", "--all", source, target], {
        cwd: folder,
        stdin: readFileSync(path),
      });
      expect(run.code).toBe(BROKEN);
      expectSentence(run.stderr);
      expect(run.stderr).toMatch(reason);
      // Blobs that were good may be there, but no index that names them.
      expect(existsSync(join(target, "index.json"))).toBe(false);
      expect(readdirSync(folder).toSorted()).toEqual(["in", "out"]);
      expect(readdirSync(join(folder, "in"))).toEqual(["x.tar"]);
      const made = readdirSync(join(folder, "out"), { recursive: true });
      expect(String(made)).not.toContain(".cacheport");
      await shell(folder, "rm -rf out/layout");
    }
    expect(existsSync("/tmp/evil") || existsSync("/etc/evil")).toBe(false);
  });

  test("what is no archive is not added to", async () => {
    const path = join(tempFolder(), "x.tar");
    for (const bytes of [Buffer.from("a diary"), Buffer.alloc(9999, "noise")]) {
      writeFileSync(path, bytes);
      for (const options of [[], ["--rewrite"]]) {
        const args = ["copy", fixture("image.tar"), path, ...options];
        const run = await cacheport(args);
        expect(run.code).toBe(BROKEN);
        expect(run.stderr).toContain("it is no tar");
        expectSentence(run.stderr);
        expect(readFileSync(path).equals(bytes)).toBe(true);
      }
    }
  });

  test("what is packed in another way is told by its name", async () => {
    const zip = Buffer.concat([Buffer.from("PK\u0003\u0004"), TAR]);
    const run = await cacheport(["ls", "-"], { stdin: zip });
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("compressed with zip");
    expectSentence(run.stderr);
  });

  test("a file that is not there, and a folder that is not", async () => {
    const folder = tempFolder();
    for (const command of [
      "ls no.tar",
      "copy no.tar:x out",
      `copy "${fixture("image.tar")}" no/x.tar`,
    ]) {
      const run = await shell(folder, `cacheport ${command}`);
      expect(run.code).toBe(3);
      expectSentence(run.stderr);
    }
    expect(readdirSync(folder)).toEqual([]);
  });

  test("10 GB of zeros in a .gz fill no disk", async () => {
    const folder = tempFolder();
    const blob = { name: `blobs/sha256/${"0".repeat(64)}` };
    const size = 2 ** 33 - 1;
    const start = gzipSync(makeTar([{ ...blob, size }], { end: false }));
    const zeros = gzipSync(Buffer.alloc(2 ** 26));
    const parts = [start, ...Array.from({ length: 160 }, () => zeros)];
    writeFileSync(join(folder, "bomb.tar.gz"), Buffer.concat(parts));
    const run = await shell(folder, "ulimit -f 800000; cacheport copy bomb.tar.gz layout");
    expect(run.code).toBe(BROKEN);
    expect(run.stderr).toContain("as in a file made to fill disks");
    expectSentence(run.stderr);
    expect(readdirSync(folder)).toEqual(["bomb.tar.gz"]);
  }, 60_000);
});

/** Bytes that do not compress, the same for the same seed (xorshift). */
function noise(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(length / 4);
  let state = seed;
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
  return new Uint8Array(words.buffer);
}

/** A layout with one image that is large enough to be stopped halfway. */
function largeLayout(bytes: number): string {
  const folder = join(tempFolder(), "large");
  const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar" };
  const layers = [1, 2, 3, 4].map((value) => ({
    ...addBlob(folder, noise(bytes / 4, value)),
    ...layer,
  }));
  const config = addBlob(folder, "{}", "application/vnd.oci.empty.v1+json");
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = { schemaVersion: 2, mediaType, config, layers };
  const annotations = { "org.opencontainers.image.ref.name": "large" };
  writeLayout(folder, [{ ...addBlob(folder, manifest, mediaType), annotations }]);
  return folder;
}

/** The names in an archive, all of whose content is checked. */
async function completeNames(path: string): Promise<string[]> {
  const verify = await cacheport(["verify", path, "--json"]);
  expect(verify.stderr).toBe("");
  expect(verify.json()).toMatchObject({ ok: true, problems: [] });
  const list = await cacheport(["ls", path, "--json"]);
  return list.json<any[]>().map(({ refName }) => refName);
}

test("kill -9 at thirty instants of adding: the old names stay readable, the next run finishes", async () => {
  const source = largeLayout(8_000_000);
  const folder = tempFolder();
  const path = join(folder, "a.tar");
  const old = join(folder, "old.tar");
  await cacheport(["copy", "--all", fixture("multi-cache"), old]);
  const start = performance.now();
  await shell(folder, `cp old.tar a.tar; cacheport copy -q "${source}" a.tar`);
  const whole = performance.now() - start;
  const states = new Set<string>();
  for (let n = 0; n < 30; n++) {
    await shell(folder, "cp old.tar a.tar");
    const child = Bun.spawn([BINARY, "copy", source, path], {
      stdout: "ignore",
      stderr: "ignore",
    });
    await Bun.sleep((whole * (n + 1)) / 30);
    child.kill("SIGKILL");
    await child.exited;
    const names = await completeNames(path);
    expect(names[0]).toBe("latest");
    states.add(`${names.length} ${readFileSync(path).length}`);
    if (n % 6 === 0) {
      expect((await cacheport(["copy", source, path])).code).toBe(0);
      expect(await completeNames(path)).toEqual(["latest", "large"]);
    }
  }
  // What was started is met in more than one state.
  expect(states.size).toBeGreaterThan(1);
  expect((await cacheport(["copy", source, path])).code).toBe(0);
  expect(readdirSync(folder).toSorted()).toEqual(["a.tar", "old.tar"]);
}, 120_000);

test("kill -9 while an archive is written anew leaves the old one, and a file that the next run removes", async () => {
  const source = largeLayout(40_000_000);
  const folder = tempFolder();
  const path = join(folder, "a.tar");
  await cacheport(["copy", "--all", fixture("multi-cache"), path]);
  const before = readFileSync(path);
  const child = Bun.spawn([BINARY, "copy", "--rewrite", source, path], {
    stdout: "ignore",
    stderr: "ignore",
  });
  while (!readdirSync(folder).some((name) => name.startsWith(".cacheport-run-"))) {
    expect(child.exitCode).toBeNull();
    await Bun.sleep(1);
  }
  child.kill("SIGKILL");
  await child.exited;
  expect(readFileSync(path).equals(before)).toBe(true);
  await cacheport(["copy", "--rewrite", `${fixture("image-dir")}:1.0`, path]);
  expect(await completeNames(path)).toEqual(["latest", "1.0"]);
  expect(readdirSync(folder)).toEqual(["a.tar"]);
}, 60_000);

test("eight copies at once into one tar lose no name, whether it was there or not; readers see a whole one", async () => {
  const tags = Array.from({ length: 8 }, (_, n) => `t${n}`);
  for (const isThere of [true, false]) {
    const path = join(tempFolder(), "a.tar");
    if (isThere) await cacheport(["copy", fixture("multi-cache"), path]);
    let isDone = false;
    const reader = (async () => {
      while (!isDone) {
        if (!existsSync(path)) await Bun.sleep(1);
        else expect((await cacheport(["ls", path])).stderr).toBe("");
      }
    })();
    const runs = await Promise.all(
      tags.map((tag) => cacheport(["copy", "-q", `${fixture("image-dir")}:1.0`, `${path}:${tag}`])),
    );
    isDone = true;
    await reader;
    expect(runs.map(({ code, stderr }) => [code, stderr])).toEqual(tags.map(() => [0, ""]));
    const names = await completeNames(path);
    expect(names.filter((name) => name !== "latest").toSorted()).toEqual(tags);
    expect(readdirSync(dirname(path))).toEqual(["a.tar"]);
  }
}, 120_000);

test("an archive that is written anew again and again is whole for whoever reads it", async () => {
  const folder = tempFolder();
  const path = join(folder, "a.tar");
  await cacheport(["copy", largeLayout(24_000_000), path]);
  await cacheport(["copy", "--all", fixture("multi-cache"), path]);
  let rewrites = 0;
  let reads = 0;
  const rewriter = (async () => {
    const extra = `${fixture("image-dir")}:1.0`;
    // Each second one moves the large blobs to other places of the file.
    for (; rewrites < 12 || reads < 6; rewrites++) {
      const args =
        rewrites % 2 ? ["untag", `${path}:0`] : ["copy", "--rewrite", extra, `${path}:0`];
      expect((await cacheport(args)).stderr.replace(/^.*copied.*\n/m, "")).toBe("");
    }
  })();
  while (rewrites < 12 || reads < 6) {
    const verify = await cacheport(["verify", path, "--json"]);
    expect(verify.json()).toMatchObject({ ok: true, problems: [] });
    const target = join(folder, "copy");
    const copy = await cacheport(["copy", "-q", `${path}:large`, target]);
    expect([copy.code, copy.stderr]).toEqual([0, ""]);
    expect(layoutFaults(target)).toEqual([]);
    await shell(folder, "rm -rf copy");
    reads += 2;
  }
  await rewriter;
}, 120_000);

const canMount =
  process.platform === "linux" && Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

test.skipIf(!canMount)("a full disk leaves the archive as it was, and nothing else", async () => {
  const source = largeLayout(8_000_000);
  const folder = tempFolder();
  const script = `
      mount -t tmpfs -o size=6m none . && cd .
      "$1" copy -q --all "${fixture("multi-cache")}" old.tar >/dev/null
      cp old.tar a.tar
      for command in "$2 a.tar" "--rewrite $2 a.tar" "$2 new.tar" "$2 new.tar.gz --compress gzip"; do
        "$1" copy $command 2>&1; echo "exit $?"
        cmp old.tar a.tar; ls -A
      done`;
  const run = Bun.spawnSync(["unshare", "--mount", "sh", "-c", script, "sh", BINARY, source], {
    cwd: folder,
  });
  const text = run.stdout.toString();
  const lines = text.split("\n").filter((line) => line !== "");
  const isSaid = (line: string): boolean =>
    /^cacheport: .*: no space left on the device$/.test(line);
  expect(lines.filter(isSaid)).toHaveLength(4);
  const others = lines.filter((line) => !isSaid(line) && !line.startsWith("hint: "));
  expect(others).toEqual(Array.from({ length: 4 }, () => ["exit 1", "a.tar", "old.tar"]).flat());
});

describe("an interrupt", () => {
  test.each([
    ["while a pipe is silent", 4000],
    ["in the middle of a blob", 2_000_000],
  ])("%s removes the temporary folder", async (_, bytes) => {
    const folder = tempFolder();
    const tar = join(folder, "in.tar");
    await cacheport(["copy", largeLayout(8_000_000), tar]);
    const child = Bun.spawn([BINARY, "copy", "-", "new/layout"], {
      cwd: folder,
      stdin: "pipe",
      stdout: "ignore",
      stderr: "pipe",
    });
    void child.stdin.write(readFileSync(tar).subarray(0, bytes));
    await child.stdin.flush();
    while (!readdirSync(folder).some((name) => name.startsWith(".cacheport-run-")))
      await Bun.sleep(1);
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    expect(await new Response(child.stderr).text()).toContain("Interrupted");
    expect(readdirSync(folder)).toEqual(["in.tar"]);
  });

  test("at any instant leaves no temporary folder, the one of a new layout neither", async () => {
    const folder = tempFolder();
    const tar = join(folder, "in.tar");
    await cacheport(["copy", largeLayout(24_000_000), tar]);
    const start = performance.now();
    await shell(folder, "cacheport copy -q - new/layout <in.tar; rm -rf new");
    const whole = performance.now() - start;
    for (let n = 0; n < 10; n++) {
      const child = Bun.spawn([BINARY, "copy", "-", "new/layout"], {
        cwd: folder,
        stdin: Bun.file(tar),
        stdout: "ignore",
        stderr: "ignore",
      });
      await Bun.sleep((whole * (n + 1)) / 10);
      child.kill("SIGINT");
      const code = await child.exited;
      expect([0, 130]).toContain(code);
      const left = readdirSync(folder, { recursive: true }).map(String);
      expect(left.filter((path) => path.includes(".cacheport"))).toEqual([]);
      if (code === 0) expect(layoutFaults(join(folder, "new/layout"))).toEqual([]);
      await shell(folder, "rm -rf new");
    }
  }, 60_000);

  test("of a tar that is written leaves the old one or nothing", async () => {
    const source = largeLayout(40_000_000);
    const folder = tempFolder();
    for (const options of [[], ["--compress", "gzip"]]) {
      const child = Bun.spawn([BINARY, "copy", source, "x.tar", ...options], {
        cwd: folder,
        stdout: "ignore",
        stderr: "ignore",
      });
      while (!readdirSync(folder).some((name) => name.startsWith(".cacheport-run-")))
        await Bun.sleep(1);
      child.kill("SIGINT");
      expect(await child.exited).toBe(130);
      expect(readdirSync(folder)).toEqual([]);
    }
  });
});
