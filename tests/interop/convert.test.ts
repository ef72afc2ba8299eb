/** Conversions against BuildKit itself, skopeo, oras, crane and a registry. */
import { describe, expect, test } from "bun:test";
import { cpSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import type { BuildKit, BuildStep } from "../helpers/buildkit.ts";
import {
  buildContext,
  hasPeers,
  notCached,
  peer,
  peerOutput,
  PEERS_REGISTRY,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { digestOfName, layoutFaults, readDocument, readIndex } from "../helpers/layout.ts";
import { tempFolder } from "../helpers/temp.ts";

const SHAPES: Record<string, string> = {
  "image-manifest": "image-manifest=true,oci-mediatypes=true",
  "oci-index": "image-manifest=false,oci-mediatypes=true",
  "docker-list": "image-manifest=false,oci-mediatypes=false",
};

/** Steps that do not depend on each other are logged in any order. */
const sorted = (steps: BuildStep[]): BuildStep[] =>
  steps.toSorted((a, b) => (a.name < b.name ? -1 : 1));

/** A build with RUN and COPY steps in several stages. */
const context = (marker: string): string =>
  buildContext(
    `FROM base:latest AS one
RUN --network=none echo ${marker} > /one && dd if=/dev/urandom of=/random bs=1k count=64
COPY a.txt /a.txt
FROM base:latest AS two
COPY --from=one /one /two
RUN --network=none cat /two > /three
FROM scratch
COPY --from=one /random /random
COPY --from=two /three /three
COPY b /b
`,
    { "a.txt": "a", "b/c.txt": "c" },
  );

/** The cache config of the cache that BuildKit exported to a layout. */
function configOf(layout: string): string {
  const document = readDocument(layout, digestOfName(layout, "latest") as string);
  return (document.config ?? document.manifests.at(-1)).digest;
}

/**
 * Exports the cache of one build in each shape, to a folder and to the registry.
 * BuildKit leaves ties in a cache config unsorted, so it is asked again until the
 * three exports are of one cache.
 */
async function exportShapes(buildkit: BuildKit, source: string, folder: string): Promise<void> {
  for (let attempt = 0; attempt < 10; attempt++) {
    for (const [shape, attributes] of Object.entries(SHAPES)) {
      rmSync(join(folder, shape), { recursive: true, force: true });
      await buildkit.build({
        context: source,
        cacheTo: [
          `type=local,dest=${folder}/${shape},mode=max,${attributes}`,
          `type=registry,ref=${PEERS_REGISTRY}/interop/convert:${shape},mode=max,${attributes}`,
        ],
      });
    }
    const configs = Object.keys(SHAPES).map((shape) => configOf(join(folder, shape)));
    if (new Set(configs).size === 1) return;
  }
  throw new Error("BuildKit exported another cache each time");
}

describe.skipIf(!hasPeers)("interop: convert", () => {
  test(
    "BuildKit gets the same steps from each conversion of each shape",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const source = context("shapes");
        await exportShapes(buildkit, source, folder);
        const originals = Object.fromEntries(
          Object.keys(SHAPES).map((shape) => [
            shape,
            digestOfName(join(folder, shape), "latest") as string,
          ]),
        );
        await buildkit.prune();
        const first = await buildkit.build({
          context: source,
          cacheFrom: [`type=local,src=${folder}/image-manifest`],
        });
        expect(notCached(first.steps)).toEqual([]);
        expect(first.steps.length).toBeGreaterThanOrEqual(4);

        for (const from of Object.keys(SHAPES)) {
          for (const to of Object.keys(SHAPES)) {
            if (from === to) continue;
            const converted = join(folder, `${from}-to-${to}`);
            cpSync(join(folder, from), converted, { recursive: true });
            const run = await cacheport(["convert", converted, "--to", to, "--json"]);
            expect(run.code).toBe(0);
            expect(run.json().digest).toBe(originals[to]);
            await buildkit.prune();
            const again = await buildkit.build({
              context: source,
              cacheFrom: [`type=local,src=${converted}`],
            });
            expect(sorted(again.steps)).toEqual(sorted(first.steps));
          }
        }

        // What BuildKit pushed in each shape has the digest that cacheport gives it.
        for (const [shape, digest] of Object.entries(originals)) {
          const reference = `${PEERS_REGISTRY}/interop/convert:${shape}`;
          const pushed = await peerOutput("crane", "digest", "--insecure", reference);
          expect(pushed.trim()).toBe(digest);
        }

        // A converted image manifest is read by skopeo and by oras.
        const readable = `${folder}/docker-list-to-image-manifest`;
        const raw = await peerOutput("skopeo", "inspect", "--raw", `oci:${readable}:latest`);
        expect(JSON.parse(raw).config.mediaType).toBe("application/vnd.buildkit.cacheconfig.v0");
        const fetched = await peerOutput(
          "oras",
          "manifest",
          "fetch",
          "--oci-layout",
          `${readable}:latest`,
        );
        expect(JSON.parse(fetched)).toEqual(JSON.parse(raw));
        await peerOutput(
          "skopeo",
          "copy",
          `oci:${readable}:latest`,
          `oci:${folder}/by-skopeo:latest`,
        );
        expect(readIndex(`${folder}/by-skopeo`).manifests[0].digest).toBe(
          originals["image-manifest"],
        );
      }),
    600_000,
  );

  test(
    "an inline cache as a cache of its own gives the same steps",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const source = context("inline");
        await buildkit.build({
          context: source,
          cacheTo: ["type=inline"],
          output: `type=oci,dest=${folder}/image,tar=false`,
        });
        const run = await cacheport(["convert", `${folder}/image`, `${folder}/cache`, "--json"]);
        expect(run.code).toBe(0);
        await buildkit.prune();
        const { steps } = await buildkit.build({
          context: source,
          cacheFrom: [`type=local,src=${folder}/cache`],
        });
        // An inline cache knows the final stage alone.
        const last = steps.filter(({ name }) => name.startsWith("[stage-2"));
        expect(last.length).toBe(3);
        expect(notCached(last)).toEqual([]);
      }),
    300_000,
  );

  test(
    "BuildKit exporting into the same folder meanwhile loses nothing of ours, nor we of its",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = join(tempFolder(), "shared");
        const source = context("meanwhile");
        await buildkit.build({
          context: source,
          cacheTo: [`type=local,dest=${folder},tag=seed`],
        });
        let exporting = true;
        let exports = 0;
        let copies = 0;
        const exporter = (async () => {
          for (; exports < 6; exports++) {
            // BuildKit does not wait for the lock; what it could not write it says itself.
            await buildkit
              .build({
                context: source,
                cacheTo: [`type=local,dest=${folder},tag=kit-${exports}`],
              })
              .catch((error) => expect(String(error)).toContain("could not lock"));
          }
          exporting = false;
        })();
        while (exporting) {
          const run = await cacheport([
            "copy",
            "--quiet",
            `${folder}:seed`,
            `${folder}:port-${copies++}`,
          ]);
          expect([run.code, run.stderr]).toEqual([0, ""]);
        }
        await exporter;
        for (let n = 0; n < copies; n++) expect(digestOfName(folder, `port-${n}`)).toBeDefined();
        expect(readIndex(folder).manifests.length).toBeGreaterThanOrEqual(copies + 1);
        expect(layoutFaults(folder)).toEqual([]);
      }),
    300_000,
  );

  test("eight copies at once: skopeo reads every tag", async () => {
    const target = join(tempFolder(), "layout");
    const tags = Array.from({ length: 8 }, (_, n) => `tag-${n}`);
    const source = join(import.meta.dir, "..", "fixtures", "image-dir");
    await Promise.all(tags.map((tag) => cacheport(["copy", `${source}:1.0`, `${target}:${tag}`])));
    for (const tag of tags) {
      const { code, stderr } = await peer("skopeo", "inspect", `oci:${target}:${tag}`);
      expect([code, stderr]).toEqual([0, ""]);
    }
    rmSync(target, { recursive: true });
    expect(existsSync(target)).toBe(false);
  });
});
