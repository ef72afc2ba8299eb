/** The served registry under real clients: BuildKit, skopeo, oras and crane. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import {
  buildContext,
  hasPeers,
  notCached,
  peerOutput,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { layoutFaults, readIndex } from "../helpers/layout.ts";
import { freshBucket, hasStores } from "../helpers/object-stores.ts";
import { serve } from "../helpers/served.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";

const CONTEXT = (salt: string): string =>
  buildContext(
    `FROM base:latest AS one
     RUN --network=none echo ${salt} >/one
     FROM base:latest
     COPY --from=one /one /one
     COPY file /file
     RUN --network=none cat /one /file >/two`,
    { file: salt },
  );

describe.skipIf(!hasPeers)("interop: serve", () => {
  test(
    "BuildKit exports into a folder and a tar through it, and imports from them: every step is CACHED",
    () =>
      withBuildKit(async (buildkit) => {
        const context = CONTEXT(`serve-${process.pid}`);
        for (const target of ["folder", "cache.tar"]) {
          const location = join(tempFolder(), target);
          {
            await using registry = await serve("--writable", "--name", "app", location);
            const ref = `type=registry,ref=${registry.host}/app:main,mode=max`;
            await buildkit.build({ context, cacheTo: [ref] });
            const { code } = await registry.end();
            expect(code).toBe(0);
          }
          const { json } = await cacheport(["verify", "--deep", "--json", location]);
          expect(json()).toMatchObject({ ok: true, problems: [] });
          await buildkit.prune();
          await using registry = await serve("--name", "again", location);
          const { steps } = await buildkit.build({
            context,
            cacheFrom: [`type=registry,ref=${registry.host}/again:main`],
          });
          expect(steps.length).toBeGreaterThan(3);
          expect(notCached(steps)).toEqual([]);
          await buildkit.prune();
        }
      }),
    240_000,
  );

  test.skipIf(!hasStores)(
    "BuildKit, which may know no S3, imports a cache from there through it: every step is CACHED",
    () =>
      withBuildKit(async (buildkit) => {
        const context = CONTEXT(`s3-${process.pid}`);
        const folder = join(tempFolder(), "cache");
        await buildkit.build({ context, cacheTo: [`type=local,dest=${folder},mode=max`] });
        const { s3 } = await freshBucket();
        const location = `${s3},name=main`;
        const moved = await cacheport(["convert", folder, location]);
        expect([moved.code, moved.stderr]).toEqual([0, expect.any(String)]);
        await buildkit.prune();
        await using registry = await serve("--name", "app", location);
        const [served] = registry.repositories;
        const { steps } = await buildkit.build({
          context,
          cacheFrom: [`type=registry,ref=${registry.host}/app:${served?.tags[0]}`],
        });
        expect(notCached(steps)).toEqual([]);
      }),
    240_000,
  );

  test("skopeo, oras and crane push into it and pull from it, digests kept", async () => {
    const target = join(tempFolder(), "target");
    const source = fixture("multi-image");
    const { digest } = readIndex(source).manifests[0];
    const inside = tempFolder();
    Bun.spawnSync(["cp", "-r", source, join(inside, "source")]);
    const name = (await cacheport(["ls", join(inside, "source"), "--json"])).json()[0].refName;
    await using registry = await serve("--writable", "--name", "app", target);
    const to = `${registry.host}/app`;
    const layout = `${join(inside, "source")}:${name}`;
    await peerOutput(
      "skopeo",
      "copy",
      "--all",
      "--preserve-digests",
      "--dest-tls-verify=false",
      `oci:${layout}`,
      `docker://${to}:skopeo`,
    );
    await peerOutput("oras", "cp", "--from-oci-layout", "--to-plain-http", layout, `${to}:oras`);
    await peerOutput(
      "crane",
      "push",
      "--insecure",
      "--index",
      join(inside, "source"),
      `${to}:crane`,
    );
    for (const tag of ["skopeo", "oras"]) {
      const found = await peerOutput("crane", "digest", "--insecure", `${to}:${tag}`);
      expect(found.trim()).toBe(digest);
      const pull = ["skopeo", "copy", "--all", "--src-tls-verify=false"];
      await peerOutput(...pull, `docker://${to}:${tag}`, `dir:${join(inside, tag)}`);
    }
    // crane pushes the index.json itself, an index of an index.
    await peerOutput("crane", "validate", "--insecure", "--remote", `${to}:crane`);
    const tags = await peerOutput("crane", "ls", "--insecure", to);
    expect(tags.trim().split("\n")).toEqual(["crane", "oras", "skopeo"]);
    await registry.end();
    expect(layoutFaults(target)).toEqual([]);
  }, 120_000);
});
