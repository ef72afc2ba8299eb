/** Archives for docker load: several images, names that move, and those of other programs. */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { hasPeers, peer, peerOutput, PEERS_REGISTRY } from "../helpers/buildkit.ts";
import { STYLES, testImage } from "../helpers/docker-archive.ts";
import { layoutFaults, readDocument, readIndex } from "../helpers/layout.ts";
import { makeTar } from "../helpers/archives.ts";
import { shell } from "../helpers/shell.ts";
import { tempFolder } from "../helpers/temp.ts";

/** Names that no other test has. */
const REPOSITORY = "docker-archive.example/team";
const PUSHED = `${PEERS_REGISTRY}/docker-archive/app`;

const A = testImage([`${REPOSITORY}/a:1`], ["base", "a"]);
const B = testImage([`${REPOSITORY}/b:1`], ["base", "b"]);

async function run(...args: string[]): Promise<void> {
  const { code, stderr } = await cacheport(args);
  expect([code, stderr]).toEqual([0, ""]);
}

/** The digest of an image's config, which every program keeps. */
const configOf = ({ config }: typeof A): string =>
  `sha256:${new Bun.CryptoHasher("sha256").update(config).digest("hex")}`;

/** Writes an archive of images by hand. */
async function handMade(style: keyof typeof STYLES): Promise<string> {
  const path = join(tempFolder(), `${style}.tar`);
  await Bun.write(path, makeTar(STYLES[style]([A, B])));
  return path;
}

/** The config that skopeo finds under a name of a docker-archive. */
async function skopeoConfig(path: string, name: string): Promise<string> {
  const folder = tempFolder();
  await peerOutput("skopeo", "copy", `docker-archive:${path}:${name}`, `dir:${folder}/out`);
  return JSON.parse(readFileSync(join(folder, "out", "manifest.json"), "utf8")).config.digest;
}

/** The image that crane pushes from an archive. */
async function cranePushed(path: string): Promise<string> {
  await peerOutput("crane", "push", "--insecure", path, `${PUSHED}:pushed`);
  const manifest = await peerOutput("crane", "manifest", "--insecure", `${PUSHED}:pushed`);
  return JSON.parse(manifest).config.digest;
}

describe.skipIf(!hasPeers)("an archive with a manifest.json", () => {
  afterAll(async () => {
    for (const name of ["a:1", "b:1", "b:new", "a:other"])
      await peer("docker", "rmi", "-f", `${REPOSITORY}/${name}`);
  });

  test("of several images is written, and loaded by docker and skopeo", async () => {
    const source = await handMade("skopeo");
    const path = join(tempFolder(), "both.tar");
    await run("copy", "-q", "--all", source, `type=docker,dest=${path}`);
    const text = await peerOutput("docker", "load", "-i", path);
    for (const name of ["a:1", "b:1"])
      expect(text).toContain(`Loaded image: ${REPOSITORY}/${name}`);
    expect(await skopeoConfig(path, `${REPOSITORY}/a:1`)).toBe(configOf(A));
    expect(await skopeoConfig(path, `${REPOSITORY}/b:1`)).toBe(configOf(B));
  }, 60_000);

  test("in which a name was moved is pushed by crane as what it is now", async () => {
    const source = await handMade("crane");
    const path = join(tempFolder(), "one.tar");
    const target = `type=docker,dest=${path},name=${REPOSITORY}/a:1`;
    await run("copy", "-q", `${source}:${REPOSITORY}/a:1`, target);
    expect(await cranePushed(path)).toBe(configOf(A));
    await run("copy", "-q", `${source}:${REPOSITORY}/b:1`, `${path}:${REPOSITORY}/a:1`);
    expect(await cranePushed(path)).toBe(configOf(B));
    expect(await skopeoConfig(path, `${REPOSITORY}/a:1`)).toBe(configOf(B));
    const members = await shell(tempFolder(), `tar -tf "${path}"`);
    const names = members.stdout.trim().split("\n");
    expect(new Set(names).size).toBe(names.length);
  }, 60_000);

  test("of docker save stays true through tag, copy and untag", async () => {
    await peerOutput("docker", "load", "-i", await handMade("oldDocker"));
    const path = join(tempFolder(), "saved.tar");
    const saved = await shell(
      tempFolder(),
      `"$PEERS_RUN" docker save ${REPOSITORY}/a:1 ${REPOSITORY}/b:1 >"${path}"`,
      process.env,
    );
    expect([saved.code, saved.stderr]).toEqual([0, ""]);
    expect(statSync(path).size).toBeGreaterThan(1000);
    await run("tag", `${path}:${REPOSITORY}/b:1`, `${REPOSITORY}/b:new`);
    await run("copy", "-q", `${path}:${REPOSITORY}/b:1`, `${path}:${REPOSITORY}/a:other`);
    await run("untag", `${path}:${REPOSITORY}/a:1`);
    for (const name of ["b:1", "b:new", "a:other"])
      expect(await skopeoConfig(path, `${REPOSITORY}/${name}`)).toBe(configOf(B));
    const gone = await peer("skopeo", "inspect", `docker-archive:${path}:${REPOSITORY}/a:1`);
    expect(gone.code).not.toBe(0);
    await peer("docker", "rmi", "-f", `${REPOSITORY}/b:1`);
    const text = await peerOutput("docker", "load", "-i", path);
    for (const name of ["b:1", "b:new", "a:other"])
      expect(text).toContain(`Loaded image: ${REPOSITORY}/${name}`);
    expect(text).not.toContain(`${REPOSITORY}/a:1`);
  }, 60_000);
});

describe.skipIf(!hasPeers)("an archive of images by another program is a source", () => {
  const READ = tempFolder();

  async function expectRead(path: string, name: string | undefined, layout: string): Promise<void> {
    await run("copy", "-q", name === undefined ? path : `${path}:${name}`, `${layout}:x`);
    expect(layoutFaults(layout)).toEqual([]);
    const [entry] = readIndex(layout).manifests;
    expect(readDocument(layout, entry.digest).config.digest).toBe(configOf(B));
    const verified = await cacheport(["verify", "--deep", layout]);
    expect([verified.code, verified.stderr]).toEqual([0, ""]);
  }

  test("skopeo's docker-archive:", async () => {
    const made = join(tempFolder(), "skopeo.tar");
    const from = `docker-archive:${await handMade("skopeo")}:${REPOSITORY}/b:1`;
    await peerOutput("skopeo", "copy", from, `docker-archive:${made}:${REPOSITORY}/b:1`);
    await expectRead(made, `${REPOSITORY}/b:1`, join(READ, "skopeo"));
  }, 60_000);

  test("crane pull", async () => {
    const source = `docker-archive:${await handMade("skopeo")}:${REPOSITORY}/b:1`;
    await peerOutput(
      "skopeo",
      "copy",
      "--dest-tls-verify=false",
      source,
      `docker://${PUSHED}:pull`,
    );
    const made = join(tempFolder(), "crane.tar");
    await peerOutput("crane", "pull", "--insecure", `${PUSHED}:pull`, made);
    await expectRead(made, undefined, join(READ, "crane"));
  }, 60_000);
});
