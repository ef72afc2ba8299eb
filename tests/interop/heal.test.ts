/**
 * Imports by BuildKit itself of caches that have several leaves. One run often passes, since
 * leaves come in no fixed order, so each is imported twelve times.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import type { BuildKit, BuildRequest, BuildStep } from "../helpers/buildkit.ts";
import {
  buildContext,
  hasPeers,
  notCached,
  parseSteps,
  peer,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";

const IMPORTS = 12;
const PLATFORMS = "linux/amd64,linux/arm64";

const marker = (): string => crypto.randomUUID();
const local = (layout: string): string => `type=local,src=${layout}`;

/** Runs a command and gives its JSON value; it must end with 0. */
async function run(...args: string[]): Promise<any> {
  const result = await cacheport([...args, "--json"]);
  expect([result.code, result.stderr]).toEqual([0, ""]);
  return result.json();
}

/** The steps that are instructions of a Dockerfile. */
const instructions = (steps: readonly BuildStep[]): BuildStep[] =>
  steps.filter(({ name }) => /^\[[^\]]+\] (?:RUN|COPY) /.test(name));

/** How many steps each of some imports into an empty builder did not find. */
async function misses(
  buildkit: BuildKit,
  request: BuildRequest,
  times = IMPORTS,
): Promise<number[]> {
  const counts: number[] = [];
  for (let at = 0; at < times; at++) {
    await buildkit.prune();
    const { steps } = await buildkit.build(request);
    expect(instructions(steps).length).toBeGreaterThan(0);
    counts.push(notCached(instructions(steps)).length);
  }
  return counts;
}

const none = Array.from({ length: IMPORTS }, () => 0);

/** Three stages on one stage, with their own commands for each platform: as in the fixture. */
const leavesContext = (mark: string): string =>
  buildContext(
    readFileSync(join(fixture("leaves"), "Dockerfile"), "utf8").replaceAll(
      "echo ",
      `echo ${mark}-`,
    ),
  );

/** A project of its own on the base image that all share: two stages on it, both in the result. */
const project = (mark: string): string =>
  buildContext(`FROM base:latest AS one
RUN --network=none echo one ${mark} > /one
FROM base:latest AS two
RUN --network=none echo two ${mark} > /two
FROM scratch
COPY --from=one /one /
COPY --from=two /two /
`);

describe.skipIf(!hasPeers)("interop: heal", () => {
  test(
    "a cache of two platforms loses steps in every import, and none once it is healed",
    () =>
      withBuildKit(async (buildkit) => {
        const cache = join(tempFolder(), "cache");
        const context = leavesContext(marker());
        await buildkit.prune();
        await buildkit.build({
          context,
          platform: PLATFORMS,
          cacheTo: [`type=local,dest=${cache},mode=max`],
        });
        const request = { context, platform: PLATFORMS, cacheFrom: [local(cache)] };
        const before = await misses(buildkit, request);
        expect(Math.min(...before)).toBeGreaterThan(0);
        expect(await run("heal", cache)).toMatchObject({ healed: true, joinedLeaves: 2 });
        expect(await misses(buildkit, request)).toEqual(none);
      }),
    1_200_000,
  );

  test(
    "a merge of two unrelated caches is found whole",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const contexts = [project(marker()), project(marker())];
        const parts: string[] = [];
        for (const [at, context] of contexts.entries()) {
          await buildkit.prune();
          parts.push(join(folder, `part-${at}`));
          await buildkit.build({
            context,
            cacheTo: [`type=local,dest=${parts[at]},mode=max`],
          });
        }
        const merged = join(folder, "merged");
        const value = await run("merge", ...parts, merged);
        expect(value.joinedLeaves).toBeGreaterThan(1);
        for (const context of contexts) {
          const request = { context, cacheFrom: [local(merged)] };
          expect(await misses(buildkit, request, IMPORTS / 2)).toEqual(none.slice(IMPORTS / 2));
        }
        // BuildKit's own bytes of the same merge are not.
        const exact = join(folder, "exact");
        await run("merge", ...parts, exact, "--exact");
        const counts: number[] = [];
        for (const context of contexts)
          counts.push(...(await misses(buildkit, { context, cacheFrom: [local(exact)] })));
        expect(Math.max(...counts)).toBeGreaterThan(0);
      }),
    1_200_000,
  );

  test(
    "two targets of a bake that share a stage are both found whole",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const context = buildContext(`FROM base:latest AS shared
RUN --network=none echo ${marker()} > /shared
FROM shared AS a1
RUN --network=none echo a1 > /a1
FROM shared AS a2
RUN --network=none echo a2 > /a2
FROM scratch AS a
COPY --from=a1 /a1 /
COPY --from=a2 /a2 /
FROM shared AS b1
RUN --network=none echo b1 > /b1
FROM shared AS b2
RUN --network=none echo b2 > /b2
FROM scratch AS b
COPY --from=b1 /b1 /
COPY --from=b2 /b2 /
`);
        const bake = async (cacheTo: boolean, from?: string): Promise<string> => {
          const target = (name: string): string => `target "${name}" {
  context = "${context}"
  target = "${name}"
  output = ["type=cacheonly"]
  ${cacheTo ? `cache-to = ["type=local,dest=${folder}/${name},mode=max"]` : ""}
  ${from ? `cache-from = ["${local(from)}"]` : ""}
}
`;
          const file = join(context, "docker-bake.hcl");
          writeFileSync(
            file,
            `group "default" { targets = ["a", "b"] }\n${target("a")}${target("b")}`,
          );
          const baked = await peer(
            "docker",
            "buildx",
            "bake",
            "--progress=plain",
            "--provenance=false",
            `--allow=fs=${folder}`,
            `--allow=fs=${context}`,
            `--file=${file}`,
          );
          if (baked.code !== 0) throw new Error(baked.stderr);
          return baked.stderr;
        };
        await buildkit.prune();
        await bake(true);
        const merged = join(folder, "merged");
        const value = await run("merge", `${folder}/a`, `${folder}/b`, merged);
        expect(value.joinedLeaves).toBeGreaterThan(1);
        for (let at = 0; at < IMPORTS; at++) {
          await buildkit.prune();
          const steps = instructions(parseSteps(await bake(false, merged)));
          expect(steps.length).toBeGreaterThan(6);
          expect(notCached(steps)).toEqual([]);
        }
      }),
    1_200_000,
  );

  test(
    "what is left of a pruned cache is found whole",
    () =>
      withBuildKit(async (buildkit) => {
        const cache = join(tempFolder(), "cache");
        const context = leavesContext(marker());
        await buildkit.prune();
        await buildkit.build({
          context,
          platform: PLATFORMS,
          cacheTo: [`type=local,dest=${cache},mode=max`],
        });
        // One result of the many goes; the steps of one platform are left as they were.
        const { layers } = await run("inspect", cache);
        const newest = layers
          .filter(({ records }: any) => records === 1)
          .toSorted((a: any, b: any) => (a.createdAt < b.createdAt ? 1 : -1))[0];
        const pruned = await run("prune", cache, "--drop-layer", newest.digest);
        expect(pruned.outcome).toBe("smaller");
        expect(pruned.joinedLeaves).toBeGreaterThan(1);
        const request = { context, platform: PLATFORMS, cacheFrom: [local(cache)] };
        const counts = await misses(buildkit, request);
        // What went is built anew, and nothing else, whatever the order of the leaves.
        expect(new Set(counts).size).toBe(1);
        expect(counts[0]).toBeLessThanOrEqual(2);
      }),
    1_200_000,
  );

  test(
    "merged donors are CACHED as the one that is preferred",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const mark = marker();
        // The first step gives other bytes in each build.
        const context = buildContext(`FROM base:latest AS clone
RUN --network=none echo ${mark} > /mark && dd if=/dev/urandom of=/random bs=1k count=4
FROM base:latest AS use
COPY --from=clone /random /random
RUN --network=none cat /random > /used
FROM scratch
COPY --from=use /used /used
`);
        const parts: string[] = [];
        for (const name of ["first", "second"]) {
          await buildkit.prune();
          parts.push(join(folder, name));
          await buildkit.build({
            context,
            cacheTo: [`type=local,dest=${folder}/${name},mode=max`],
          });
        }
        for (const prefer of ["newest", "first"]) {
          const merged = join(folder, prefer);
          const value = await run("merge", "--prefer", prefer, ...parts, merged);
          expect(value.conflicts.length).toBeGreaterThan(0);
          const request = { context, cacheFrom: [local(merged)] };
          expect(await misses(buildkit, request, 4)).toEqual([0, 0, 0, 0]);
        }
      }),
    1_200_000,
  );
});
