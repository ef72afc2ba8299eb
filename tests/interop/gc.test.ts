/** gc beside BuildKit itself: what stays can be imported, and no export is hurt. */
import { describe, expect, test } from "bun:test";
import { existsSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { systemCode } from "../../src/errors.ts";
import { cacheport } from "../helpers/binary.ts";
import { buildContext, hasPeers, notCached, withBuildKit } from "../helpers/buildkit.ts";
import { blobFile, digestOfName, layoutFaults, readDocument } from "../helpers/layout.ts";
import { blobNames, fixtureCopy, tempFolder } from "../helpers/temp.ts";

/** Seconds for which gc runs beside exports; CACHEPORT_SOAK=60 for a longer run. */
const SOAK = Number(process.env["CACHEPORT_SOAK"] ?? 12);

/** A build whose layers are its own. */
const context = (marker: string): string =>
  buildContext(
    `FROM base:latest
COPY a.txt /a.txt
RUN --network=none echo ${marker} > /one
RUN --network=none dd if=/dev/zero of=/two bs=1k count=64 && echo ${marker} >> /two
`,
    { "a.txt": marker },
  );

/** Makes every blob look as if it were an hour old. */
function makeOld(layout: string): void {
  const time = Date.now() / 1000 - 3600;
  for (const name of blobNames(layout)) {
    try {
      utimesSync(join(layout, "blobs", "sha256", name), time, time);
    } catch (error) {
      // gc has removed it meanwhile.
      if (systemCode(error) !== "ENOENT") throw error;
    }
  }
}

/** Waits until what the index names is there: gc puts back within a moment what an export names. */
async function untilWhole(layout: string): Promise<void> {
  const missing = (): string[] => {
    const top = digestOfName(layout, "latest") as string;
    try {
      const { config, layers } = readDocument(layout, top);
      return [config, ...layers]
        .map(({ digest }) => digest)
        .filter((digest) => !existsSync(blobFile(layout, digest)));
    } catch {
      return [top];
    }
  };
  for (let attempt = 0; attempt < 40 && missing().length > 0; attempt++) await Bun.sleep(50);
  expect(missing()).toEqual([]);
}

describe.skipIf(!hasPeers)("interop: gc", () => {
  test(
    "both tags of a cache that grew still import",
    () =>
      withBuildKit(async (buildkit) => {
        const layout = fixtureCopy("grown");
        const run = await cacheport(["gc", layout, "--grace", "0", "--json"]);
        expect(run.code).toBe(0);
        expect(run.json().removed.length).toBeGreaterThan(0);
        for (const tag of ["main", "feature"]) {
          const { log } = await buildkit.build({
            context: context("import"),
            cacheFrom: [`type=local,src=${layout},tag=${tag}`],
          });
          expect(log).toContain("importing cache manifest from local:");
          expect(log).toContain("inferred cache manifest type:");
          expect(log).not.toMatch(/ERROR|skipped|not found/);
        }
      }),
    300_000,
  );

  test(
    "every step of each name is CACHED after gc, in each shape",
    () =>
      withBuildKit(async (buildkit) => {
        const layout = join(tempFolder(), "cache");
        const contexts = ["a", "b", "c"].map(context);
        const tags = ["main", "main", "feature"];
        for (const [position, source] of contexts.entries()) {
          const shape = position === 2 ? ",image-manifest=false" : "";
          await buildkit.build({
            context: source,
            cacheTo: [`type=local,dest=${layout},mode=max,tag=${tags[position]}${shape}`],
          });
        }
        const run = await cacheport(["gc", layout, "--grace", "0", "--json"]);
        expect(run.json().removed.length).toBeGreaterThan(2);
        expect(layoutFaults(layout)).toEqual([]);
        for (const position of [1, 2]) {
          await buildkit.prune();
          const { steps } = await buildkit.build({
            context: contexts[position] as string,
            cacheFrom: [`type=local,src=${layout},tag=${tags[position]}`],
          });
          expect(steps.length).toBeGreaterThanOrEqual(3);
          expect(notCached(steps)).toEqual([]);
        }
      }),
    300_000,
  );

  test(
    `in a loop beside exports for ${SOAK} s it loses nothing`,
    () =>
      withBuildKit(async (buildkit) => {
        const layout = join(tempFolder(), "cache");
        // The same contents under one tag by turns: what the next export needs lies
        // there without a name, as old as a blob can be.
        const contexts = ["x", "y"].map(context);
        const end = Date.now() + SOAK * 1000;
        let exports = 0;
        let collections = 0;
        let removed = 0;
        const exporting = async (): Promise<void> => {
          while (Date.now() < end) {
            await buildkit.build({
              context: contexts[exports % 2] as string,
              cacheTo: [`type=local,dest=${layout},mode=max`],
            });
            exports++;
            await untilWhole(layout);
            makeOld(layout);
            // Long enough now and then for the layout to come to rest.
            await Bun.sleep((exports % 4) * 500);
          }
        };
        const collecting = async (): Promise<void> => {
          while (Date.now() < end) {
            const run = await cacheport(["gc", layout, "--grace", "1s", "--json"]);
            if (run.code === 0) {
              collections++;
              removed += run.json().removed.length;
            } else {
              // Before the first export there is no layout.
              expect({ exports, refusal: run.json() }).toMatchObject({ exports: 0 });
              await Bun.sleep(50);
            }
          }
        };
        await Promise.all([exporting(), collecting()]);
        expect(exports).toBeGreaterThan(2);
        expect(collections).toBeGreaterThan(2);
        expect(removed).toBeGreaterThan(0);
        expect(layoutFaults(layout)).toEqual([]);
        expect((await cacheport(["verify", layout])).code).toBe(0);
        await buildkit.prune();
        const { steps } = await buildkit.build({
          context: contexts[(exports - 1) % 2] as string,
          cacheFrom: [`type=local,src=${layout}`],
        });
        expect(notCached(steps)).toEqual([]);
      }),
    300_000 + SOAK * 1000,
  );
});
