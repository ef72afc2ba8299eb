/** Merges and prunes against BuildKit itself: what is left is CACHED, what went is built anew. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import type { BuildKit, BuildStep } from "../helpers/buildkit.ts";
import {
  buildContext,
  hasPeers,
  notCached,
  PEERS_REGISTRY,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { digestOfName, layoutFaults } from "../helpers/layout.ts";
import { tempFolder } from "../helpers/temp.ts";

/** What makes the layers of one test its own. */
const marker = (): string => crypto.randomUUID();

/** A project of two branches; `two.txt` is what differs between builds of it. */
const project = (mark: string, two: string): string =>
  buildContext(
    `FROM base:latest AS one
RUN --network=none echo ${mark} > /one && dd if=/dev/urandom of=/random bs=1k count=40
FROM base:latest AS two
COPY two.txt /two.txt
RUN --network=none cat /two.txt > /three && echo ${mark} >> /three
FROM scratch
COPY --from=one /random /random
COPY --from=two /three /three
COPY same.txt /same.txt
`,
    { "two.txt": two, "same.txt": mark },
  );

/** Runs a command and gives its JSON value; it must end with 0. */
async function run(...args: string[]): Promise<any> {
  const result = await cacheport([...args, "--json"]);
  expect([result.code, result.stderr]).toEqual([0, ""]);
  return result.json();
}

/** The steps of a build that starts from nothing but some caches. */
async function rebuild(
  buildkit: BuildKit,
  context: string,
  cache: string,
  options: { target?: string; platform?: string } = {},
): Promise<BuildStep[]> {
  await buildkit.prune();
  const { steps } = await buildkit.build({
    context,
    cacheFrom: [cache],
    ...options,
  });
  expect(steps.length).toBeGreaterThan(0);
  return steps;
}

const local = (layout: string, tag = "latest"): string => `type=local,src=${layout},tag=${tag}`;

describe.skipIf(!hasPeers)("interop: merge", () => {
  test(
    "two builds that differ in one branch are both CACHED from the merge of their caches",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const mark = marker();
        const contexts = ["main", "feature"].map((two) => project(mark, two));
        const parts: string[] = [];
        for (const [n, context] of contexts.entries()) {
          await buildkit.prune();
          const part = join(folder, `part-${n}`);
          await buildkit.build({
            context,
            cacheTo: [`type=local,dest=${part},mode=max`],
          });
          parts.push(part);
        }
        const [one, two] = parts as [string, string];
        // The other branch of one is not in the cache of the other.
        const alone = await rebuild(buildkit, contexts[1] as string, local(one));
        expect(notCached(alone)).not.toEqual([]);

        for (const shape of ["image-manifest", "oci-index", "docker-list"]) {
          const target = join(folder, shape);
          const merged = await run("merge", one, two, target, "--to", shape);
          const turned = await run("merge", two, one, target, "--to", shape);
          expect(turned.digest).toBe(merged.digest);
          expect(layoutFaults(target)).toEqual([]);
          for (const context of contexts) {
            const steps = await rebuild(buildkit, context, local(target));
            expect(steps.length).toBeGreaterThanOrEqual(6);
            expect(notCached(steps)).toEqual([]);
          }
        }
      }),
    600_000,
  );

  test(
    "so are those whose caches are in a registry",
    () =>
      withBuildKit(async (buildkit) => {
        const mark = marker();
        const repository = `${PEERS_REGISTRY}/interop/merge-${mark}`;
        const contexts = ["main", "feature"].map((two) => project(mark, two));
        for (const [n, context] of contexts.entries()) {
          await buildkit.prune();
          await buildkit.build({
            context,
            cacheTo: [`type=registry,ref=${repository}:job-${n},mode=max`],
          });
        }
        const sources = [0, 1].map((n) => `${repository}:job-${n}`);
        const merged = await run("merge", ...sources, `${repository}:merged`);
        expect(merged.blobs.copied).toBe(0);
        for (const context of contexts) {
          const steps = await rebuild(buildkit, context, `type=registry,ref=${repository}:merged`);
          expect(notCached(steps)).toEqual([]);
        }
        // Pruned in the registry, the newest results are there still.
        const pruned = await run("prune", `${repository}:merged`, "--keep-newest=4");
        expect(pruned.outcome).toBe("smaller");
        const steps = await rebuild(
          buildkit,
          contexts[1] as string,
          `type=registry,ref=${repository}:merged`,
        );
        expect(notCached(steps)).toEqual([]);
      }),
    600_000,
  );

  test(
    "an image's inline cache and a cache of another build serve both",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const mark = marker();
        const [main, feature] = ["main", "feature"].map((two) => project(mark, two)) as [
          string,
          string,
        ];
        await buildkit.build({
          context: main,
          cacheTo: [`type=local,dest=${folder}/max,mode=max`],
        });
        await buildkit.build({
          context: feature,
          cacheTo: ["type=inline"],
          output: `type=oci,dest=${folder}/image,tar=false`,
        });
        const merged = join(folder, "merged");
        await run("merge", `${folder}/max`, `${folder}/image`, merged);
        const steps = await rebuild(buildkit, main, local(merged));
        expect(notCached(steps)).toEqual([]);
        // An inline cache knows the final stage alone.
        const last = await rebuild(buildkit, feature, local(merged));
        expect(notCached(last).filter((name) => name.startsWith("[stage-2"))).toEqual([]);
      }),
    600_000,
  );

  test(
    "platforms: one cache for both, or an index from which convert takes each",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const platforms = ["linux/amd64", "linux/arm64"];
        const context = buildContext(
          `FROM scratch AS part
ARG TARGETARCH
COPY $TARGETARCH.txt /arch.txt
COPY same.txt /same.txt
FROM scratch
COPY --from=part /arch.txt /there.txt
`,
          {
            "amd64.txt": `amd64 ${marker()}`,
            "arm64.txt": `arm64 ${marker()}`,
            "same.txt": "same",
          },
        );
        const parts: string[] = [];
        for (const platform of platforms) {
          await buildkit.prune();
          const part = join(folder, platform.replace("/", "-"));
          await buildkit.build({
            context,
            platform,
            cacheTo: [`type=local,dest=${part},mode=max`],
          });
          parts.push(part);
        }
        const merged = join(folder, "merged");
        await run("merge", ...parts, merged);
        const both = await rebuild(buildkit, context, local(merged), {
          platform: platforms.join(","),
        });
        expect(both.length).toBeGreaterThanOrEqual(6);
        expect(notCached(both)).toEqual([]);

        const index = join(folder, "index");
        await run(
          "merge",
          ...parts,
          index,
          "--as-index",
          ...platforms.map((platform) => `--platform=${platform}`),
        );
        // BuildKit looks for image configs in such an index, and finds none.
        const none = await rebuild(buildkit, context, local(index));
        expect(notCached(none).length).toBe(none.length);
        for (const [n, platform] of platforms.entries()) {
          const one = join(folder, `one-${n}`);
          const { digest } = await run("convert", index, one, "--platform", platform);
          expect(digest).toBe(digestOfName(parts[n] as string, "latest"));
          const steps = await rebuild(buildkit, context, local(one), {
            platform,
          });
          expect(notCached(steps)).toEqual([]);
        }
      }),
    600_000,
  );
});

/** Two targets on layers of their own, the second made later and larger in another measure. */
const twoTargets = (mark: string): string =>
  buildContext(
    `FROM base:latest AS older
RUN --network=none echo ${mark} > /older && dd if=/dev/urandom of=/random bs=1k count=300
FROM base:latest AS newer
RUN --network=none sleep 2 && echo ${mark} > /newer && dd if=/dev/urandom of=/random bs=1k count=30
FROM scratch
COPY --from=older /older /older
COPY --from=newer /newer /newer
`,
  );

describe.skipIf(!hasPeers)("interop: prune", () => {
  test(
    "what stays is CACHED and what went is built anew, whatever the limit",
    () =>
      withBuildKit(async (buildkit) => {
        const layout = join(tempFolder(), "cache");
        const context = twoTargets(marker());
        await buildkit.prune();
        await buildkit.build({
          context,
          cacheTo: [`type=local,dest=${layout},mode=max`],
        });
        const { layers, totalSize } = await run("inspect", layout);
        const older = layers.find(({ size }: any) => size > 300_000 && size < 400_000);
        expect(older).toBeDefined();
        const limits = {
          "drop-layer": older.digest,
          "keep-newest": "3",
          "max-size": String(totalSize - 1),
        };
        for (const [limit, value] of Object.entries(limits)) {
          const pruned = await run("prune", layout, `--${limit}=${value}`, `--tag=${limit}`);
          expect(pruned.dropped).toMatchObject({
            results: 1,
            layers: [{ digest: older.digest }],
          });
          const cache = local(layout, limit);
          const kept = await rebuild(buildkit, context, cache, {
            target: "newer",
          });
          expect(notCached(kept)).toEqual([]);
          const gone = await rebuild(buildkit, context, cache, {
            target: "older",
          });
          expect(notCached(gone).length).toBe(1);
          // What was made of the layer that went is found without it.
          const all = await rebuild(buildkit, context, cache);
          const last = all.filter(({ name }) => name.startsWith("[stage-2"));
          expect(last.length).toBe(2);
          expect(notCached(last)).toEqual([]);
        }
        expect(layoutFaults(layout)).toEqual([]);
      }),
    600_000,
  );

  test(
    "with --gc the cache is whole without the blobs that went",
    () =>
      withBuildKit(async (buildkit) => {
        const layout = join(tempFolder(), "cache");
        const context = twoTargets(marker());
        await buildkit.build({
          context,
          cacheTo: [`type=local,dest=${layout},mode=max`],
        });
        const value = await run("prune", layout, "--keep-newest=3", "--gc", "--grace=0");
        const removed = value.gc.removed.map(({ digest }: any) => digest);
        for (const { digest } of value.dropped.layers) expect(removed).toContain(digest);
        expect(layoutFaults(layout)).toEqual([]);
        const kept = await rebuild(buildkit, context, local(layout), {
          target: "newer",
        });
        expect(notCached(kept)).toEqual([]);
        // A build that goes on from there exports a cache that has all again.
        const next = join(tempFolder(), "next");
        await buildkit.prune();
        await buildkit.build({
          context,
          cacheFrom: [local(layout)],
          cacheTo: [`type=local,dest=${next},mode=max`],
        });
        const verified = await run("verify", next);
        expect(verified.ok).toBe(true);
      }),
    600_000,
  );

  test(
    "the merge of two caches, pruned of what only one of them has, serves the other",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const mark = marker();
        const contexts = ["main", "feature"].map((two) => project(mark, two));
        for (const [n, context] of contexts.entries()) {
          await buildkit.build({
            context,
            cacheTo: [`type=local,dest=${folder}/part-${n},mode=max`],
          });
        }
        const merged = join(folder, "merged");
        await run("merge", `${folder}/part-0`, `${folder}/part-1`, merged);
        const difference = await run("diff", `${folder}/part-0`, merged);
        expect(difference.records.onlyA).toEqual([]);
        const extra = difference.layers.onlyB.map(({ digest }: any) => digest);
        expect(extra.length).toBeGreaterThan(0);
        await run("prune", merged, ...extra.map((digest: string) => `--drop-layer=${digest}`));
        const [main, feature] = contexts as [string, string];
        const kept = await rebuild(buildkit, main, local(merged));
        expect(notCached(kept)).toEqual([]);
        const gone = await rebuild(buildkit, feature, local(merged));
        expect(notCached(gone).length).toBeGreaterThanOrEqual(3);
      }),
    600_000,
  );
});
