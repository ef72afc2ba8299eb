/** Recompressed caches and images against BuildKit itself, skopeo and umoci. */
import { describe, expect, test } from "bun:test";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { digestOf } from "../../src/digest.ts";
import { DEFAULT_LIMITS } from "../../src/documents.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "../../src/layout-directory.ts";
import { noProgress } from "../../src/progress.ts";
import { recompressImage } from "../../src/recompress-image.ts";
import { cacheport } from "../helpers/binary.ts";
import {
  buildContext,
  hasPeers,
  notCached,
  peerOutput,
  PEERS_REGISTRY,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { layoutFaults, readDocument, readIndex } from "../helpers/layout.ts";
import { tempFolder } from "../helpers/temp.ts";

const DOCKERFILE = `FROM base:latest AS one
RUN --network=none dd if=/dev/urandom of=/random bs=1k count=300 && ln -s random /link
COPY a.txt /a.txt
FROM base:latest
COPY --from=one /random /link /copied/
COPY b /b
RUN --network=none seq 1 100000 > /numbers && cat /copied/random > /again
`;

/** Every file of a folder with what is in it. */
function filesOf(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true }) as string[];
  return Object.fromEntries(
    names.toSorted().map((name) => {
      const path = join(folder, name);
      const stats = lstatSync(path);
      const content = stats.isFile()
        ? digestOf(readFileSync(path))
        : stats.isSymbolicLink()
          ? readlinkSync(path)
          : "";
      return [name, `${stats.mode.toString(8)} ${content}`];
    }),
  );
}

describe.skipIf(!hasPeers)("interop: recompress", () => {
  test(
    "a recompressed cache gives BuildKit the same steps and the same files",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const context = buildContext(DOCKERFILE, {
          "a.txt": "a",
          "b/c.txt": String(Math.random()),
        });
        const cache = join(folder, "cache");
        // BuildKit remembers for a while what a reference led to.
        const pushed = `${PEERS_REGISTRY}/interop/recompress:run-${Date.now()}`;
        await buildkit.build({
          context,
          cacheTo: [`type=local,dest=${cache},mode=max`],
          output: `type=local,dest=${folder}/original`,
        });
        const files = filesOf(join(folder, "original"));
        expect(files["again"]).toBe(files["copied/random"] as string);

        for (const [compression, target, from] of [
          ["zstd", join(folder, "zstd"), `type=local,src=${folder}/zstd`],
          ["uncompressed", join(folder, "tar"), `type=local,src=${folder}/tar`],
          ["gzip", join(folder, "gzip"), `type=local,src=${folder}/gzip`],
          ["zstd", pushed, `type=registry,ref=${pushed}`],
        ] as const) {
          const run = await cacheport([
            "convert",
            cache,
            target,
            "--compression",
            compression,
            "--force-compression",
            "--json",
          ]);
          expect(run.code).toBe(0);
          if (target.startsWith(folder)) {
            expect(layoutFaults(target)).toEqual([]);
            const { layers } = readDocument(target, run.json().digest);
            const suffix = compression === "uncompressed" ? "tar" : compression;
            for (const layer of layers) expect(layer.mediaType).toEndWith(suffix);
          }
          await buildkit.prune();
          const output = join(folder, `out-${compression}-${from.length}`);
          const { steps } = await buildkit.build({
            context,
            cacheFrom: [from],
            output: `type=local,dest=${output}`,
          });
          expect(steps.length).toBeGreaterThanOrEqual(4);
          expect([from, ...notCached(steps)]).toEqual([from]);
          expect(filesOf(output)).toEqual(files);
        }
      }),
    120_000,
  );

  test(
    "a recompressed image is a base image for BuildKit and is read by skopeo and umoci",
    () =>
      withBuildKit(async (buildkit) => {
        const folder = tempFolder();
        const context = buildContext(DOCKERFILE, { "a.txt": "a", "b/c": "c" });
        const image = join(folder, "image");
        await buildkit.build({
          context,
          output: `type=oci,dest=${image},tar=false,name=docker.io/library/x:1`,
        });
        await buildkit.build({
          context,
          output: `type=local,dest=${folder}/original`,
        });
        const files = filesOf(join(folder, "original"));
        const copy = buildContext("FROM scratch\nCOPY --from=image / /\n");

        for (const compression of ["zstd", "uncompressed", "gzip"] as const) {
          const target = join(folder, compression);
          const store = await LayoutDirectory.open(image);
          const { descriptor } = await store.resolve({});
          const writer = await LayoutDirectoryWriter.open(target, {
            create: true,
          });
          const made = await recompressImage(
            store,
            descriptor,
            { compression, force: true },
            writer,
            {
              limits: DEFAULT_LIMITS,
              jobs: 4,
              progress: noProgress,
              tempFolder: folder,
            },
          );
          const names = [{ kind: "set", name: { refName: "new" } }] as const;
          await writer.publish([{ descriptor: made.descriptor, bytes: made.bytes, names }]);
          await writer.close();
          expect(layoutFaults(target)).toEqual([]);
          const [{ digest }] = readIndex(target).manifests;

          await peerOutput("skopeo", "inspect", `oci:${target}:new`);
          await peerOutput(
            "umoci",
            "unpack",
            "--image",
            `${target}:new`,
            join(folder, `umoci-${compression}`),
          );
          const unpacked = filesOf(join(folder, `umoci-${compression}/rootfs`));
          expect(unpacked["numbers"]).toBe(files["numbers"] as string);
          expect(unpacked["again"]).toBe(files["again"] as string);

          await buildkit.prune();
          await buildkit.build({
            context: copy,
            output: `type=local,dest=${folder}/out-${compression}`,
            args: ["--build-context", `image=oci-layout://${target}@${digest}`],
          });
          expect(filesOf(join(folder, `out-${compression}`))).toEqual(files);
        }
      }),
    120_000,
  );
});
