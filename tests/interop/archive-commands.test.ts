/** Archives that the binary wrote, in the hands of other programs, and theirs in its. */
import { afterAll, describe, expect, test } from "bun:test";
import { copyFileSync, chmodSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { buildContext, hasPeers, peer, peerOutput, withBuildKit } from "../helpers/buildkit.ts";
import { layoutFaults, readIndex } from "../helpers/layout.ts";
import { shell } from "../helpers/shell.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";

/** The repository of the names that are loaded into docker, which no other test has. */
const REPOSITORY = "archive-commands.example/team/app";
const IMAGE = readIndex(fixture("image-dir")).manifests[0].digest as string;

async function copy(...args: string[]): Promise<void> {
  const run = await cacheport(["copy", "--quiet", ...args]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
}

/** The same archive as it is new, after it was added to, and after it was written anew. */
async function archives(): Promise<[state: string, path: string][]> {
  const folder = tempFolder();
  const image = `${fixture("image-dir")}:1.0`;
  const made: [string, string][] = [];
  for (const state of ["new", "grown", "rewritten", "compressed"]) {
    const path = join(folder, `${state}.tar`);
    if (state === "new") await copy(image, `${path}:${REPOSITORY}:one`);
    else {
      await copy("--all", fixture("grown"), path);
      await copy(image, `${path}:${REPOSITORY}:one`);
      await copy(fixture("image-inline"), `${path}:${REPOSITORY}:two`);
      const tag = await cacheport(["tag", `${path}:one`, `${REPOSITORY}:three`]);
      expect(tag.code).toBe(0);
    }
    if (state === "rewritten") await copy("--all", "--rewrite", path, path);
    if (state === "compressed") await copy("--all", "--rewrite", "--compress", "zstd", path, path);
    made.push([state, path]);
  }
  return made;
}

describe.skipIf(!hasPeers)("an archive of cacheport", () => {
  afterAll(async () => {
    for (const tag of ["one", "two", "three"]) await peer("docker", "rmi", `${REPOSITORY}:${tag}`);
    for (const name of ["main:latest", "feature:latest"]) await peer("docker", "rmi", name);
  });

  test("is copied by skopeo and oras, each state of it", async () => {
    for (const [state, path] of await archives()) {
      if (state === "compressed") continue;
      const out = tempFolder();
      await peerOutput(
        "skopeo",
        "copy",
        "--preserve-digests",
        `oci-archive:${path}:one`,
        `oci:${out}/skopeo:one`,
      );
      await peerOutput(
        "oras",
        "cp",
        "--from-oci-layout",
        "--to-oci-layout",
        `${path}:one`,
        `${out}/oras:one`,
      );
      for (const tool of ["skopeo", "oras"]) {
        const resolved = await cacheport(["resolve", join(out, `${tool}:one`)]);
        expect(resolved.stdout).toBe(`${IMAGE}\n`);
      }
    }
  }, 60_000);

  test("is a layout for umoci when tar has unpacked it, each state of it", async () => {
    for (const [state, path] of await archives()) {
      const folder = tempFolder();
      const flag = state === "compressed" ? "--zstd" : "";
      const unpacked = await shell(folder, `tar ${flag} -xf "${path}"`);
      expect([unpacked.code, unpacked.stderr]).toEqual([0, ""]);
      expect(layoutFaults(folder)).toEqual([]);
      const names = await peerOutput("umoci", "ls", "--layout", folder);
      expect(names.split("\n")).toContain("one");
      await peerOutput("umoci", "stat", "--image", `${folder}:one`);
    }
  }, 60_000);

  test("is loaded by docker with all its names, each state of it", async () => {
    for (const [state, path] of await archives()) {
      const text = await peerOutput("docker", "load", "-i", path);
      const tags = state === "new" ? ["one"] : ["one", "two", "three"];
      for (const tag of tags) expect(text).toContain(`Loaded image: ${REPOSITORY}:${tag}\n`);
    }
    const inspected = await peerOutput(
      "docker",
      "image",
      "inspect",
      "--format",
      "{{.Id}}",
      `${REPOSITORY}:three`,
    );
    expect(inspected.trim()).toBe(IMAGE);
  }, 60_000);

  test("is loaded by docker from a pipe", async () => {
    const run = await shell(
      tempFolder(),
      `cacheport copy --quiet "${fixture("image-dir")}:1.0" type=docker,dest=-,name=${REPOSITORY}:one |
         "$PEERS_RUN" docker load`,
      process.env,
    );
    expect(run.stderr).toBe("");
    expect(run.stdout).toContain(`Loaded image: ${REPOSITORY}:one`);
  });

  test("may have begun as BuildKit's own", async () => {
    const path = join(tempFolder(), "image.tar");
    copyFileSync(fixture("image-docker.tar"), path);
    chmodSync(path, 0o644);
    const tag = await cacheport(["tag", path, `${REPOSITORY}:one`]);
    expect(tag.code).toBe(0);
    const text = await peerOutput("docker", "load", "-i", path);
    expect(text).toContain(`Loaded image: ${REPOSITORY}:one`);
    await peer("docker", "rmi", "reg.example/team/app:1.0");
  });
});

describe.skipIf(!hasPeers)("an archive of another program", () => {
  test("of skopeo is listed and copied", async () => {
    const path = join(tempFolder(), "x.tar");
    await peerOutput(
      "skopeo",
      "copy",
      "--preserve-digests",
      `oci:${fixture("image-dir")}:1.0`,
      `oci-archive:${path}:reg.example/a:1`,
    );
    const resolved = await cacheport(["resolve", `${path}:reg.example/a:1`]);
    expect(resolved.stdout).toBe(`${IMAGE}\n`);
    const verified = await cacheport(["verify", "--deep", path]);
    expect([verified.code, verified.stderr]).toEqual([0, ""]);
  });

  test("of docker save is copied, from a pipe too", async () => {
    const folder = tempFolder();
    await copy(`${fixture("image-dir")}:1.0`, `${folder}/in.tar:${REPOSITORY}:one`);
    const run = await shell(
      folder,
      `"$PEERS_RUN" docker load -i "$PWD/in.tar" >log
       "$PEERS_RUN" docker save ${REPOSITORY}:one | cacheport copy --quiet - layout:1 >log
       cacheport resolve layout:1
       "$PEERS_RUN" docker rmi ${REPOSITORY}:one >log`,
      process.env,
    );
    expect([run.code, run.stdout]).toEqual([0, `${IMAGE}\n`]);
    expect(layoutFaults(join(folder, "layout"))).toEqual([]);
  }, 60_000);

  test("of docker buildx build comes through a pipe", async () => {
    await withBuildKit(async () => {
      const context = buildContext("FROM scratch\nCOPY file /\n", {
        file: `${crypto.randomUUID()}\n`,
      });
      const folder = tempFolder();
      const run = await shell(
        folder,
        `"$PEERS_RUN" docker buildx build --quiet --output type=oci,dest=- "${context}" |
           cacheport copy --json - layout:1
         "$PEERS_RUN" docker buildx build --quiet --output "type=oci,dest=$PWD/image.tar" "${context}" >log`,
        process.env,
      );
      expect(run.code).toBe(0);
      const layout = join(folder, "layout");
      expect(layoutFaults(layout)).toEqual([]);
      const [entry] = readIndex(layout).manifests;
      expect(JSON.parse(run.stdout.split("\n")[0] ?? "").digest).toBe(entry.digest);
      // The same build again gives the same image, this time in a file.
      const target = join(folder, "again");
      await copy("--all", join(folder, "image.tar"), target);
      expect(layoutFaults(target)).toEqual([]);
      expect(readdirSync(join(target, "blobs/sha256"))).toContain(
        readIndex(target).manifests[0].digest.slice(7),
      );
    });
  }, 120_000);

  test("a cache that went through archives is imported: every step is CACHED", async () => {
    await withBuildKit(async (buildkit) => {
      const context = buildContext("FROM scratch\nCOPY a /a\nCOPY b /b\n", {
        a: crypto.randomUUID(),
        b: "b",
      });
      const folder = tempFolder();
      const cache = join(folder, "cache");
      const made = await buildkit.build({
        context,
        cacheTo: [`type=local,dest=${cache},mode=max,image-manifest=false`],
      });
      expect(made.steps.length).toBe(2);
      const run = await shell(
        folder,
        `cacheport copy -q cache one.tar.zst >log
         cacheport convert -q one.tar.zst two.tar --to image-manifest >log
         cacheport convert -q two.tar --to docker-list >log
         cacheport copy -q - - <two.tar | cacheport convert -q - back --to image-manifest >log`,
      );
      expect([run.code, run.stderr]).toEqual([0, ""]);
      await buildkit.prune();
      const { steps } = await buildkit.build({
        context,
        cacheFrom: [`type=local,src=${join(folder, "back")}`],
      });
      expect(steps.map(({ cached }) => cached)).toEqual([true, true]);
    });
  }, 180_000);
});
