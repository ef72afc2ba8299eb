/** The composite action's own scripts, run as a runner runs them, on a real cache. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync, chmodSync } from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { buildContext, hasPeers, notCached, withBuildKit } from "./helpers/buildkit.ts";
import { layoutFaults } from "./helpers/layout.ts";
import { tempFolder } from "./helpers/temp.ts";

const ACTION = join(import.meta.dir, "..", ".github", "actions", "cache", "action.yml");

interface Step {
  name: string;
  uses?: string;
  run?: string;
  env?: Record<string, string>;
}

const action = Bun.YAML.parse(readFileSync(ACTION, "utf8")) as {
  inputs: Record<string, { default: string }>;
  runs: { steps: Step[] };
};

/** Runs the action's scripts with inputs, without the steps that are other actions. */
function runAction(folder: string, inputs: Record<string, string>, path: string): string {
  const summary = join(folder, "summary.md");
  const value = (expression: string): string => {
    const [, input] = /^inputs\.([\w-]+)$/.exec(expression) ?? [];
    if (input !== undefined) return inputs[input] ?? (action.inputs[input]?.default as string);
    if (expression === "runner.temp") return folder;
    throw new Error(`The action uses ${expression} in a script`);
  };
  for (const { name, run, env = {} } of action.runs.steps) {
    if (run === undefined) continue;
    const filled = Object.fromEntries(
      Object.entries(env).map(([key, text]) => [
        key,
        text.replace(/\$\{\{ (.*?) \}\}/g, (_, expression) => value(expression)),
      ]),
    );
    const child = Bun.spawnSync(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", run], {
      cwd: folder,
      env: { PATH: path, HOME: folder, GITHUB_STEP_SUMMARY: summary, ...filled },
    });
    const stderr = child.stderr.toString();
    expect([name, child.exitCode, child.exitCode === 0 ? "" : stderr]).toEqual([name, 0, ""]);
  }
  return existsSync(summary) ? readFileSync(summary, "utf8") : "";
}

test("every action that it uses is pinned by its commit", () => {
  const used = action.runs.steps.flatMap(({ uses }) => uses ?? []);
  expect(used.length).toBeGreaterThan(0);
  for (const name of used) expect(name).toMatch(/^[\w./-]+@[0-9a-f]{40}$/);
});

describe.skipIf(!hasPeers)("interop: the composite action", () => {
  test(
    "builds, explains the second build, and leaves a sound cache of which every step is CACHED",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        // The runner's docker is the peers' one.
        const bin = join(folder, "bin");
        mkdirSync(bin);
        writeFileSync(
          join(bin, "docker"),
          `#!/bin/sh\nPATH=${process.env["PATH"]} exec ${process.env["PEERS_RUN"]} docker "$@"\n`,
        );
        chmodSync(join(bin, "docker"), 0o755);
        const path = `${bin}:${process.env["PATH"]}`;
        const context = buildContext(
          `FROM base:latest
           COPY first /first
           RUN --network=none cat /first >/one
           COPY second /second
           RUN --network=none cat /second >/two`,
          { first: `first ${process.pid}`, second: "second" },
        );
        const inputs = { context, cacheport: BINARY, folder: "cache" };
        await buildkit.prune();
        expect(runAction(folder, inputs, path)).toBe("");
        await buildkit.prune();
        writeFileSync(join(context, "second"), "changed");
        const summary = runAction(folder, inputs, path);
        expect(summary).toContain("COPY second /second");
        expect(summary).toMatch(/miss/i);
        const cache = join(folder, "cache");
        expect(layoutFaults(cache)).toEqual([]);
        expect(existsSync(join(folder, "cache.new"))).toBe(false);
        expect((await cacheport(["verify", cache])).code).toBe(0);
        for (const text of ["changed", "second"]) {
          await buildkit.prune();
          writeFileSync(join(context, "second"), text);
          const { steps } = await buildkit.build({
            context,
            cacheFrom: [`type=local,src=${cache}`],
          });
          expect(notCached(steps)).toEqual([]);
        }
      }),
    240_000,
  );
});
