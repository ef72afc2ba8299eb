/** BuildKit's exports beside cacheport's writers: BuildKit tries the lock of index.json once. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { buildContext, hasPeers, withBuildKit } from "../helpers/buildkit.ts";
import { layoutFaults, readIndex } from "../helpers/layout.ts";
import { fixtureCopy } from "../helpers/temp.ts";

const WRITERS = 4;
const EXPORTS = 8;

describe.skipIf(!hasPeers)("interop: busy writers", () => {
  test(
    "exports go through beside writers that set names all the time, and nobody loses a name",
    () =>
      withBuildKit(async (buildkit) => {
        const layout = fixtureCopy("grown");
        let isOver = false;
        let names = 0;
        const writer = async (id: number): Promise<void> => {
          for (let i = 0; !isOver; i++, names++) {
            const run = await cacheport(["tag", `${layout}:main`, `w${id}-${i}`]);
            expect(run.code).toBe(0);
          }
        };
        const writers = Array.from({ length: WRITERS }, (_, id) => writer(id));
        const exported: string[] = [];
        for (let i = 0; i < EXPORTS; i++) {
          const tag = `export-${i}`;
          await buildkit
            .build({
              context: buildContext(`FROM base:latest\nRUN --network=none echo ${i} > /x\n`, {}),
              cacheTo: [`type=local,dest=${layout},mode=max,tag=${tag}`],
            })
            .then(
              () => exported.push(tag),
              (error: unknown) => expect(String(error)).toContain("lock"),
            );
        }
        isOver = true;
        await Promise.all(writers);
        // Six of eight failed while the lock was held for the disk's sake; BuildKit tries it
        // once, so how many go through is a matter of luck as well.
        expect(exported.length).toBeGreaterThanOrEqual(EXPORTS / 2);
        const found = readIndex(layout).manifests.map(
          (entry: any) => entry.annotations["org.opencontainers.image.ref.name"],
        );
        for (const tag of exported) expect(found).toContain(tag);
        expect(found.filter((name: string) => name.startsWith("w"))).toHaveLength(names);
        expect(layoutFaults(join(layout))).toEqual([]);
      }),
    300_000,
  );
});
