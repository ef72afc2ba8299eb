/** Provenance, bundles and logs from anywhere: a value, or one coded sentence. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { readCache } from "../src/cache-read.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { CacheportError } from "../src/errors.ts";
import { explain } from "../src/explain.ts";
import { readBundle } from "../src/explain-bundle.ts";
import { readProvenance } from "../src/explain-provenance.ts";
import { readStatusLog } from "../src/explain-status.ts";
import { LayoutDirectory } from "../src/layout-directory.ts";
import { makeTar } from "./helpers/archives.ts";
import { cacheport } from "./helpers/binary.ts";
import { failure } from "./helpers/errors.ts";
import { vector, vectorJson } from "./helpers/explain-vectors.ts";
import { random as startRandom } from "./helpers/random.ts";
import { tempFolder } from "./helpers/temp.ts";

const OPTIONS = { limits: DEFAULT_LIMITS };
const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

function predicateWith(steps: unknown, more: object = {}): Uint8Array {
  return encode({ buildType: "x", buildConfig: { llbDefinition: steps, ...more } });
}

describe("provenance", () => {
  test.each([
    ["a circle of steps", [step("a", "b:0"), step("b", "a:0")], "in a circle"],
    ["a step that takes itself", [step("a", "a:0")], "in a circle"],
    ["two steps of one id", [step("a"), step("a")], "the same id"],
    ["an input that is no step", [step("a", "x:0")], "no step has the id"],
    ["no steps", [], "it has no steps"],
    ["an output beyond reason", [step("a"), step("b", "a:99999999999")], "no step has the id"],
    ["steps that are no list", { length: 1 }, "Invalid type"],
  ])("%s", async (_, steps, reason) => {
    const error = await failure(() => readProvenance(predicateWith(steps), "b", 'build "b"'));
    expect(error.code).toBe("DOCUMENT_INVALID");
    expect(error.message).toContain(reason);
  });

  test("nesting that is deep beyond reason", async () => {
    const deep = `{"buildType":"x","buildConfig":${'{"a":'.repeat(5000)}1${"}".repeat(5000)}}`;
    const error = await failure(() =>
      readProvenance(new TextEncoder().encode(deep), "b", 'build "b"'),
    );
    expect(error.message).toContain("nested more than 64 levels deep");
  });

  test("a chain of 20,000 steps is read in time and explained", async () => {
    const steps = Array.from({ length: 20_000 }, (_, at) =>
      step(`s${at}`, ...(at === 0 ? [] : [`s${at - 1}:0`])),
    );
    const [build] = readProvenance(predicateWith(steps), "b", 'build "b"');
    expect(build!.steps).toHaveLength(20_000);
    const { summary } = await explain([await cacheOfA()], [build!], {
      contexts: new Map(),
      was: [],
      redact: false,
    });
    expect(summary.hit).toBe(0);
  });
});

function step(id: string, ...inputs: string[]): object {
  const exec = { meta: { args: ["/bin/sh", "-c", id], cwd: "/" }, mounts: [{ dest: "/" }] };
  return { id, op: { Op: { exec } }, inputs };
}

async function cacheOfA() {
  const store = await LayoutDirectory.open(vector("ci-app", "A", "cache"), {
    limits: DEFAULT_LIMITS,
    jobs: 4,
  });
  const { descriptor } = await store.resolve({});
  const { caches } = await readCache(store, descriptor, OPTIONS);
  return { ...caches[0]!, location: "cache" };
}

describe("the log of a bundle", () => {
  const log = (...messages: number[][]): Uint8Array =>
    Uint8Array.from(
      messages.flatMap((message) => [message.length & 255, message.length >> 8, 0, 0, ...message]),
    );

  test.each([
    ["a length that leads out of it", Uint8Array.from([255, 255, 255, 255, 1])],
    ["an end within a length", Uint8Array.from([1, 0])],
    ["a field longer than its message", log([0x0a, 0x7f, 1])],
    ["a number without an end", log([0x08, ...Array.from({ length: 11 }, () => 0xff)])],
    ["an end within a number", log([0x08, 0xff])],
    ["an unknown type of field", log([0x0b])],
  ])("%s", async (_, bytes) => {
    const error = await failure(() => readStatusLog(bytes, 'build "b"'));
    expect([error.code, error.message]).toEqual([
      "DOCUMENT_INVALID",
      expect.stringContaining('Cannot read the log of build "b": '),
    ]);
  });

  test("the longest run of a step counts, and the last word on whether it was cached", () => {
    const digest = [0x0a, 1, 0x61];
    const time = (field: number, seconds: number): number[] => [field, 2, 0x08, seconds];
    const outcomes = readStatusLog(
      log(
        vertex([...digest, ...time(0x2a, 10), ...time(0x32, 11)]),
        vertex([...digest, ...time(0x2a, 20), ...time(0x32, 27)]),
        vertex([...digest, 0x20, 1, ...time(0x2a, 30), ...time(0x32, 30)]),
      ),
      "b",
    );
    expect(outcomes.get("a")).toMatchObject({ cached: true, seconds: 7 });
  });

  const vertex = (bytes: number[]): number[] => [0x0a, bytes.length, ...bytes];
});

describe("bundles", () => {
  const stream = (bytes: Uint8Array) => () => new Blob([bytes as never]).stream() as never;
  const good = (): Buffer => readFileSync(vector("history", "A.dockerbuild"));

  test("a bomb ends at the limit, whatever the file is called", async () => {
    const zeros = Buffer.alloc(1024 * 1024);
    const members = [
      { name: "blobs/x", content: Buffer.concat(Array.from({ length: 300 }, () => zeros)) },
    ];
    const bomb = gzipSync(makeTar(members as never), { level: 1 });
    const error = await failure(() => readBundle(stream(bomb), "b.dockerbuild", OPTIONS));
    expect(error.code).toBe("DOCUMENT_TOO_LARGE");
    const file = join(tempFolder(), "bomb.dockerbuild");
    writeFileSync(file, bomb);
    const run = await cacheport(["explain", vector("ci-app", "A", "cache"), "--build", file]);
    expect(run.code).toBe(4);
    expect(run.stderr.trim().split("\n")).toHaveLength(1);
  });

  test("paths that lead out are keys and nothing else", async () => {
    const members = [
      { name: "../../etc/passwd", content: Buffer.from("x") },
      { name: "/index.json", content: Buffer.from("{}") },
    ];
    const folder = mkdtempSync(join(tempFolder(), "x"));
    const builds = await readBundle(stream(gzipSync(makeTar(members as never))), folder, OPTIONS);
    expect(builds).toEqual([]);
  });

  test("cut, damaged and exchanged content", async () => {
    const whole = good();
    expect(await readBundle(stream(new Uint8Array()), "b", OPTIONS)).toEqual([]);
    for (const cut of [1, 40, whole.length >> 1, whole.length - 1])
      expect(
        (await failure(() => readBundle(stream(whole.subarray(0, cut)), "b", OPTIONS))).code,
      ).toMatch(/^(?:COMPRESSION|ARCHIVE|DOCUMENT)_INVALID$/);
    const tar = gunzipSync(whole);
    const at = tar.indexOf("llbDefinition");
    tar.write("llbDefinitiom", at);
    const error = await failure(() => readBundle(stream(gzipSync(tar)), "b", OPTIONS));
    expect(error.code).toBe("DIGEST_MISMATCH");
  });
});

const JUNK = [null, true, 0, -1, 1e308, "", "x", "\u0000", "\ud800", [], {}, [null], [[{}]]];

describe("fuzzing", () => {
  test("changed provenance gives a value that can be explained, or a coded error", async () => {
    const cache = await cacheOfA();
    const seeds = [
      vectorJson("ci-app", "A", "metadata.json"),
      vectorJson("run-mounts", "A", "provenance-v1.linux-amd64.json"),
      vectorJson("copy-flags", "A", "metadata.json"),
      vectorJson("git", "A", "metadata.json"),
      vectorJson("add", "A", "metadata.json"),
    ].map((seed) => JSON.stringify(seed));
    const next = startRandom(77);
    let values = 0;
    for (let round = 0; round < 600; round++) {
      const seed = JSON.parse(next.pick(seeds));
      for (let count = 1 + next.below(4); count > 0; count--) mutate(seed, next);
      try {
        const builds = readProvenance(encode(seed), "b", 'build "b"');
        const was = round % 2 === 0 ? builds : [];
        await explain([cache], builds, { contexts: new Map(), was, redact: round % 3 === 0 });
        values++;
      } catch (error) {
        if (!(error instanceof CacheportError))
          throw new Error(`round ${round}: ${error}`, { cause: error });
      }
    }
    expect(values).toBeGreaterThan(100);
  }, 120_000);

  test("changed logs", () => {
    const next = startRandom(5);
    const seed = Buffer.from("0c0000000a0a0a0161200132042a020801".padEnd(64, "0a"), "hex");
    for (let round = 0; round < 3000; round++) {
      const bytes = Uint8Array.from(seed);
      for (let count = 1 + next.below(5); count > 0; count--)
        bytes[next.below(bytes.length)] = next.below(256);
      try {
        readStatusLog(bytes, "b");
      } catch (error) {
        expect(error).toBeInstanceOf(CacheportError);
      }
    }
  });
});

/** Puts junk somewhere into a value. */
function mutate(value: any, next: ReturnType<typeof startRandom>): void {
  let at = value;
  for (let depth = next.below(12); ; depth--) {
    const keys = Object.keys(at);
    if (keys.length === 0) return;
    const key = next.pick(keys);
    if (depth > 0 && typeof at[key] === "object" && at[key] !== null) {
      at = at[key];
      continue;
    }
    if (next.below(4) === 0) delete at[key];
    else at[key] = structuredClone(next.pick(JUNK));
    return;
  }
}
