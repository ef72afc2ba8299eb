import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { convertSample } from "../src/self-check-sample.ts";
import { selfCheck } from "../src/self-check.ts";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { failure } from "./helpers/errors.ts";
import { layoutFaults, readIndex } from "./helpers/layout.ts";
import { tempFolder } from "./helpers/temp.ts";

const CHECKS = [
  "system",
  "certificates",
  "gzip",
  "zstd",
  "folder",
  "space",
  "rename",
  "links",
  "locks",
  "threads",
  "conversion",
];

interface Result {
  ok: boolean;
  folder: string | null;
  checks: { name: string; status: string; detail: string }[];
}

function byName({ checks }: Result, name: string) {
  return checks.find((check) => check.name === name);
}

describe("cacheport self-check", () => {
  test("says in a line each that a machine is fine, and leaves nothing behind", async () => {
    const dir = tempFolder();
    const { code, stdout, stderr } = await cacheport(["self-check", "--dir", dir]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const lines = stdout.trimEnd().split("\n");
    expect(lines.at(-1)).toBe("This machine is fine");
    expect(lines.slice(0, -1).map((line) => line.split(/ +/)[1])).toEqual(CHECKS);
    expect(readdirSync(dir)).toEqual([]);
  });

  test("gives one value with --json", async () => {
    const dir = tempFolder();
    const run = await cacheport(["self-check", "--dir", dir, "--json"]);
    const result = run.json<Result>();
    expect(result).toMatchObject({ ok: true, folder: dir });
    expect(result.checks.map(({ name }) => name)).toEqual(CHECKS);
    expect(byName(result, "conversion")).toEqual({
      name: "conversion",
      status: "ok",
      detail: "a cache was converted and verified, with BuildKit's digest",
    });
  });

  test("ends with 1 where nothing can be written, and names what failed", async () => {
    const run = await cacheport(["self-check", "--dir", "/proc"]);
    expect(run.code).toBe(1);
    expect(run.stdout).toMatch(/^failed +folder +Cannot write to "\/proc": /m);
    expect(run.stdout).toEndWith("This machine is not fine: folder failed\n");
    const { json } = await cacheport(["self-check", "--dir=/proc", "--json"]);
    expect(json()).toMatchObject({ ok: false, folder: null });
  });

  test("takes the current folder where there is no temporary one, and says so", async () => {
    const cwd = tempFolder();
    const env = { TMPDIR: join(cwd, "missing") };
    const run = await cacheport(["self-check", "--json"], { cwd, env });
    expect(run.code).toBe(0);
    const result = run.json<Result>();
    expect(result.folder).toBe(cwd);
    expect(byName(result, "folder")).toMatchObject({ status: "limited" });
    expect(byName(result, "folder")?.detail).toContain("set TMPDIR");
    expect(readdirSync(cwd)).toEqual([]);
  });

  const canMount =
    process.platform === "linux" && Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

  test.skipIf(!canMount)("fails on a disk that is nearly full, but goes on checking", async () => {
    const dir = tempFolder();
    const script = 'mount -t tmpfs -o size=12m none "$1" && exec "$2" self-check --dir "$1" --json';
    const child = Bun.spawnSync(["unshare", "--mount", "sh", "-c", script, "sh", dir, BINARY]);
    expect(child.exitCode).toBe(1);
    const result = JSON.parse(child.stdout.toString()) as Result;
    expect(byName(result, "space")).toMatchObject({
      status: "failed",
      detail: expect.stringMatching(/^Cannot work here: only 12\.\d MB free/),
    });
    expect(byName(result, "conversion")?.status).toBe("ok");
  });
});

test("a self-check that is interrupted leaves nothing behind", async () => {
  const dir = tempFolder();
  const error = await failure(() => selfCheck([dir], AbortSignal.abort()));
  expect(error.code).toBe("INTERRUPTED");
  expect(readdirSync(dir)).toEqual([]);
});

describe("the cache that is part of the program", () => {
  test("becomes a sound layout, with the digest that BuildKit gave it", async () => {
    const layout = join(tempFolder(), "cache");
    await convertSample(layout);
    expect(layoutFaults(layout)).toEqual([]);
    const [entry] = readIndex(layout).manifests;
    // `docker buildx build --cache-to type=local,image-manifest=true` of the same build.
    expect(entry.digest).toBe(
      "sha256:dc2a389fb4a38b29c949ceb6915908294d0b8797ec5bd80820dc61abc72f992d",
    );
  });

  test("is not converted where something is in the way", async () => {
    const layout = join(tempFolder(), "cache");
    mkdirSync(layout);
    await Bun.write(join(layout, "oci-layout"), '{"imageLayoutVersion":"2"}');
    const { code } = await failure(() => convertSample(layout));
    expect(code).toBe("LAYOUT_INVALID");
  });
});

describe("cacheport version", () => {
  const manifest = JSON.parse(readFileSync(join(import.meta.dir, "..", "package.json"), "utf8"));

  test("gives version, commit, runtime and target", async () => {
    const { json } = await cacheport(["version", "--json"]);
    expect(json()).toEqual({
      name: "cacheport",
      version: manifest.version,
      commit: expect.stringMatching(/^(?:[0-9a-f]{40}(?:-dirty)?|unknown)$/),
      bun: manifest.devDependencies.bun,
      target: expect.stringMatching(/^(?:linux|darwin|windows)-(?:x64|arm64)/),
    });
  });

  test("begins as --version does", async () => {
    const short = await cacheport(["--version"]);
    const long = await cacheport(["version"]);
    expect(long.stdout).toStartWith(short.stdout);
    expect(long.stdout).toContain(`\nbun    ${manifest.devDependencies.bun}\n`);
  });
});
