/** `cacheport explain`: its options, exit codes and several caches. */
import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { tempFolder } from "./helpers/temp.ts";

const cache = vector("ci-app", "A", "cache");
const other = vector("multi-stage", "A", "cache");
const same = vector("ci-app", "A", "metadata.json");
const changed = vector("ci-app", "B-sha", "metadata.json");
const context = vector("ci-app", "A", "context");

describe("the exit code", () => {
  test.each([
    [same, "100", 0],
    [changed, "55", 0],
    [changed, "56", 1],
  ])("--fail-below counts certain hits alone: %#", async (build, percent, code) => {
    const args = ["explain", cache, "--build", build, "--context", context];
    const run = await cacheport([...args, "--fail-below", percent]);
    expect(run.code).toBe(code);
    if (code === 1) expect(run.stderr).toContain("55.56 % of the steps are certain hits");
    expect(run.stdout).toContain("9 steps");
  });

  test.each([
    [["explain", cache], 2, "--build is missing"],
    [["explain", cache, "--build", same, "--fail-below", "101"], 2, "--fail-below"],
    [["explain", cache, "--build", same, "--context", "/nonexistent"], 3, "no such folder"],
    [["explain", vector("ci-app", "A", "context"), "--build", same], 4, "Cannot"],
  ])("wrong use and what is not there: %#", async (args, code, reason) => {
    const run = await cacheport(args);
    expect([run.code, run.stdout]).toEqual([code, ""]);
    expect(run.stderr).toContain(reason);
  });
});

describe("a build's own record in its context", () => {
  /** The context of B-sha with what `--metadata-file` wrote into it, and what is said without. */
  async function inContext(place?: string) {
    const folder = tempFolder();
    cpSync(vector("ci-app", "B-sha", "context"), folder, { recursive: true });
    const was = ["--was", same, "--context", folder];
    const clean = await cacheport(["explain", cache, "--build", changed, ...was]);
    if (place !== undefined) cpSync(changed, join(folder, place));
    const run = (build: string, cwd = folder) =>
      cacheport(["explain", cache, "--build", build, ...was], { cwd });
    return { folder, clean, run };
  }

  test.each(["build.json", "src/metadata"])(
    "%s is left out, since the build wrote it after it had read the context",
    async (place) => {
      const { folder, clean, run } = await inContext(place);
      for (const build of [place, join(folder, place)]) {
        const found = await run(build);
        expect(found.stdout).toBe(clean.stdout);
        expect(found.stderr).toBe(
          `${build} lies in the context and is left out: the build wrote it after it had read the context\n`,
        );
      }
    },
  );

  test("is a file like any other where it is not the build that is explained", async () => {
    const { clean, run } = await inContext("main.json");
    const found = await run(changed);
    expect(found.stderr).toBe("");
    expect(found.stdout).not.toBe(clean.stdout);
    expect(found.stdout).toContain("main.json  added");
  });

  test("is nothing to speak of outside, in a folder whose name begins like the context's", async () => {
    const { folder, clean, run } = await inContext();
    const near = `${folder}-more`;
    mkdirSync(near);
    cpSync(changed, join(near, "build.json"));
    const found = await run(join(near, "build.json"));
    expect([found.stdout, found.stderr]).toEqual([clean.stdout, ""]);
    rmSync(near, { recursive: true });
  });
});

test("several caches are searched as several --cache-from: the one that has a step serves it", async () => {
  const args = ["--build", same, "--context", context, "--json"];
  const alone = (await cacheport(["explain", other, ...args])).json();
  expect(alone.summary).toMatchObject({ hit: 0, miss: 9 });
  expect(alone.hints.map(({ code }: any) => code)).toContain("nothing-known");
  const both = (await cacheport(["explain", other, cache, ...args])).json();
  expect(both.summary).toMatchObject({ hit: 9, miss: 0 });
  expect(both.steps.map((step: any) => step.cache)).toEqual(Array.from({ length: 9 }, () => 1));
});

test("an image with an inline cache and an attestation explains itself", async () => {
  const run = await cacheport(["explain", vector("inline", "image"), "--json"]);
  expect(run.code).toBe(0);
  expect(run.json().steps[0]).toMatchObject({ name: "WORKDIR /app", status: "hit" });
});

test("a bundle tells what happened and what it cost", async () => {
  const run = await cacheport([
    "explain",
    cache,
    "--build",
    vector("history", "B.dockerbuild"),
    "--was",
    vector("history", "A.dockerbuild"),
    "--context",
    vector("ci-app", "B-sha", "context"),
    "--json",
  ]);
  const { steps, costs, hints } = run.json();
  const build = steps.find(({ line }: any) => line === 11);
  expect(build).toMatchObject({ was: "run", status: "miss" });
  expect(build.seconds).toBeGreaterThan(1);
  expect(costs[0].seconds).toBeGreaterThanOrEqual(costs.at(-1).seconds);
  expect(hints.map(({ code }: any) => code)).toEqual(
    expect.arrayContaining(["no-cache", "variable-unused"]),
  );
});

test("--context NAME=DIR names another context and leaves the build's own unknown", async () => {
  const run = await cacheport(["explain", cache, "--build", same, "--context", `data=${context}`]);
  expect(run.stdout).toContain("give --context DIR to know");
});

test("--output writes the file, and standard output stays empty", async () => {
  const file = join(tempFolder(), "explain.md");
  const args = ["explain", cache, "--build", same, "--format", "markdown"];
  const run = await cacheport([...args, "--output", file]);
  expect([run.code, run.stdout]).toEqual([0, ""]);
  expect(readFileSync(file, "utf8")).toStartWith("### Build cache: ");
});
