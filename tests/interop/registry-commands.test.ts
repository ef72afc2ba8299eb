/** The commands on real registries, with BuildKit, crane, oras and skopeo. */
import { describe, expect, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import type { RunOptions } from "../helpers/binary.ts";
import type { BuildKit } from "../helpers/buildkit.ts";
import {
  PEERS_REGISTRY,
  buildContext,
  hasPeers,
  notCached,
  peerOutput,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { digestOfName, layoutFaults, readIndex } from "../helpers/layout.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";
import { sha256 } from "../helpers/test-registry.ts";

const BASIC = process.env["PEERS_REGISTRY_BASIC"] ?? "";
const USER = process.env["PEERS_REGISTRY_BASIC_USER"] ?? "";
const PASSWORD = process.env["PEERS_REGISTRY_BASIC_PASSWORD"] ?? "";
const LOGIN = ["--username", USER, "--password-stdin"];
const SHAPES: Record<string, string> = {
  "image-manifest": "image-manifest=true,oci-mediatypes=true",
  "oci-index": "image-manifest=false,oci-mediatypes=true",
  "docker-list": "image-manifest=false,oci-mediatypes=false",
};
const NAMES = Object.keys(SHAPES);

/** Runs a command that has to go well. */
async function run(args: string[], options: RunOptions = {}): Promise<any> {
  const done = await cacheport([...args, "--json", "--progress=none"], options);
  expect([done.code, done.stderr]).toEqual([0, ""]);
  return done.json();
}

const craneDigest = async (reference: string): Promise<string> =>
  (await peerOutput("crane", "digest", "--insecure", reference)).trim();

/**
 * Pushes the cache of one build in each shape. BuildKit leaves ties in a cache config
 * unsorted, so it is asked again until the three are of one cache.
 *
 * @returns The digest of each shape, as crane sees it.
 */
async function pushShapes(
  buildkit: BuildKit,
  context: string,
  repository: string,
): Promise<Record<string, string>> {
  for (let attempt = 0; attempt < 10; attempt++) {
    const configs = new Set<string>();
    const digests: Record<string, string> = {};
    for (const shape of NAMES) {
      const reference = `${repository}:${shape}`;
      const ref = `type=registry,ref=${reference},mode=max,${SHAPES[shape]}`;
      await buildkit.build({ context, cacheTo: [ref] });
      const text = await peerOutput("crane", "manifest", "--insecure", reference);
      const { config, manifests } = JSON.parse(text);
      configs.add((config ?? manifests.at(-1)).digest);
      digests[shape] = await craneDigest(reference);
    }
    if (configs.size === 1) return digests;
  }
  throw new Error("BuildKit exported another cache each time");
}

describe.skipIf(!hasPeers)("interop: commands on registries", () => {
  test(
    "what BuildKit pushed is converted and copied with BuildKit's digests, and imported again",
    () =>
      withBuildKit(async (buildkit) => {
        const name = `interop/commands-${crypto.randomUUID()}`;
        const repository = `${PEERS_REGISTRY}/${name}`;
        const context = buildContext(
          `FROM base:latest AS one
RUN --network=none echo ${name} > /one
COPY a.txt /a.txt
FROM base:latest
COPY --from=one /one /two
RUN --network=none cat /two > /three
`,
          { "a.txt": "a" },
        );
        const digests = await pushShapes(buildkit, context, repository);

        for (const from of NAMES)
          for (const to of NAMES) {
            const target = `${repository}:${from}-to-${to}`;
            const made = await run(["convert", `${repository}:${from}`, target, "--to", to]);
            expect([made.digest, made.blobs.copied]).toEqual([digests[to], 0]);
            expect(await craneDigest(target)).toBe(digests[to] as string);
          }
        // In place, with nothing but the reference.
        await run(["tag", `${repository}:oci-index`, "main"]);
        const inPlace = await run(["convert", `${repository}:main`]);
        expect(inPlace.names).toEqual(["main"]);
        expect(await craneDigest(`${repository}:main`)).toBe(digests["image-manifest"] as string);

        const folder = tempFolder();
        for (const shape of NAMES) {
          const digest = digests[shape] as string;
          const second = `${PEERS_REGISTRY}/${name}-2:${shape}`;
          const locked = `${BASIC}/${name}:${shape}`;
          const login = { stdin: PASSWORD };
          const way: [string, string, string[], RunOptions][] = [
            [`${repository}:${shape}`, second, [], {}],
            [second, `${folder}/${shape}:${shape}`, [], {}],
            [`${folder}/${shape}:${shape}`, locked, LOGIN, login],
            [locked, `${folder}/${shape}.tar:${shape}`, LOGIN, login],
            [`${folder}/${shape}.tar`, `${repository}:${shape}-back`, [], {}],
          ];
          for (const [from, to, more, options] of way) {
            const copied = await run(["copy", from, to, ...more], options);
            expect(copied).toMatchObject({
              digest,
              shape,
              names: [/[^:]*$/.exec(to)?.[0]],
            });
          }
          expect(digestOfName(`${folder}/${shape}`, shape)).toBe(digest);
          expect(layoutFaults(`${folder}/${shape}`)).toEqual([]);
          expect(await craneDigest(`${repository}:${shape}-back`)).toBe(digest);
          const resolved = await peerOutput("oras", "resolve", "--plain-http", second);
          expect(resolved.trim()).toBe(digest);
          const raw = await peerOutput(
            "skopeo",
            "inspect",
            "--raw",
            "--tls-verify=false",
            "--creds",
            `${USER}:${PASSWORD}`,
            `docker://${locked}`,
          );
          expect(sha256(raw)).toBe(digest);
        }

        const registry = (reference: string) => `type=registry,ref=${reference}`;
        for (const cacheFrom of [
          registry(`${repository}:main`),
          registry(`${repository}:docker-list-to-oci-index`),
          registry(`${PEERS_REGISTRY}/${name}-2:docker-list`),
          `type=local,src=${folder}/oci-index,tag=oci-index`,
        ]) {
          await buildkit.prune();
          const { steps } = await buildkit.build({
            context,
            cacheFrom: [cacheFrom],
          });
          expect(steps.length).toBeGreaterThanOrEqual(4);
          expect(notCached(steps)).toEqual([]);
        }
      }),
    600_000,
  );

  test("images and artifacts of skopeo and oras come through with their digests", async () => {
    const at = `${PEERS_REGISTRY}/interop/commands-${crypto.randomUUID()}`;
    const folder = tempFolder();
    const [image] = readIndex(fixture("multi-image")).manifests;
    await run(["copy", fixture("multi-image"), `${at}:image`]);
    expect(await craneDigest(`${at}:image`)).toBe(image.digest);
    await peerOutput(
      "skopeo",
      "copy",
      "--all",
      "--src-tls-verify=false",
      `docker://${at}:image`,
      `oci:${folder}/skopeo:image`,
    );
    expect(readIndex(`${folder}/skopeo`).manifests[0].digest).toBe(image.digest);

    // oras keeps the path that it is given as the file's name.
    const shell = (command: string) => peerOutput("sh", "-c", `cd '${folder}' && ${command}`);
    writeFileSync(join(folder, "note.txt"), "a note");
    await shell(`oras push --plain-http --artifact-type application/x.note ${at}:note note.txt`);
    await run(["copy", `${at}:note`, `${folder}/note.tar`]);
    await run(["copy", `${folder}/note.tar`, `${at}-2:note`]);
    expect(await craneDigest(`${at}-2:note`)).toBe(await craneDigest(`${at}:note`));
    rmSync(join(folder, "note.txt"));
    await shell(`oras pull --plain-http ${at}-2:note`);
    expect(readFileSync(join(folder, "note.txt"), "utf8")).toBe("a note");

    const listed = await run(["ls", at]);
    expect(listed.map((entry: any) => [entry.refName, entry.kind])).toEqual([
      ["image", "index"],
      ["note", "artifact"],
    ]);
    const all = await run(["copy", "--all", at, `${at}-3`]);
    expect(all.names).toEqual(["image", "note"]);
    const tags = await peerOutput("crane", "ls", "--insecure", `${at}-3`);
    expect(tags.trim().split("\n").toSorted()).toEqual(["image", "note"]);
  }, 60_000);

  test("a wrong login, an unknown tag and a tag that cannot be deleted are told apart", async () => {
    const at = `${PEERS_REGISTRY}/interop/commands-${crypto.randomUUID()}`;
    await run(["copy", fixture("app-oci-index"), `${at}:main`]);
    const wrong = await cacheport(["ls", `${BASIC}/interop/x`, ...LOGIN], {
      stdin: "wr0ng-Word",
    });
    expect(wrong.code).toBe(5);
    expect(wrong.stderr).toContain("does not accept the login");
    expect(wrong.stderr).not.toContain("wr0ng-Word");
    const unknown = await cacheport(["resolve", `${at}:none`]);
    expect(unknown.code).toBe(3);
    expect(unknown.stderr).toContain("The tags there are: main");
    const untag = await cacheport(["untag", `${at}:main`]);
    // Version 2 of the reference registry deletes digests alone, version 3 tags as well.
    if (untag.code !== 0) {
      expect(untag.code).toBe(2);
      expect(untag.stderr).toContain("does not delete single tags");
    }
  });
});
