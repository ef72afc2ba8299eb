/** Deleting, referrers and odd content at the reference registry, with delete and without, beside oras. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import type { Digest } from "../../src/digest.ts";
import { cacheport } from "../helpers/binary.ts";
import { PEERS_REGISTRY, hasPeers, peerOutput } from "../helpers/buildkit.ts";
import { failure } from "../helpers/errors.ts";
import { openRepository } from "../helpers/registry-client.ts";
import { blobNames, fixture, tempFolder } from "../helpers/temp.ts";
import { sha256 } from "../helpers/test-server.ts";

const IMAGE = "application/vnd.oci.image.manifest.v1+json";
const EMPTY = Buffer.from("{}");
const config = { mediaType: "application/vnd.oci.empty.v1+json", digest: sha256(EMPTY), size: 2 };

let count = 0;
const fresh = (host: string) => `${host}/manage-${process.pid}-${Date.now()}/r${++count}`;
const copy = async (...args: string[]) => {
  const run = await cacheport(["copy", ...args, "--json"]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  return run.json();
};

describe.skipIf(!hasPeers)("the reference registry", () => {
  test("a tag among others is deleted alone, the last one with its manifest", async () => {
    const at = fresh(PEERS_REGISTRY);
    for (const tag of ["a", "b"]) await copy(fixture("app-image-manifest"), `${at}:${tag}`);
    const repository = openRepository(at);
    const { descriptor } = await repository.resolve({ name: "b" });
    expect(await repository.deleteTag("a")).toBe("placeholder");
    expect(await repository.listNames()).toEqual(["b"]);
    expect((await repository.resolve({ name: "b" })).descriptor).toEqual(descriptor);
    expect((await cacheport(["verify", `${at}:b`])).code).toBe(0);
    expect(await repository.deleteTag("b")).toBe("manifest");
    expect((await failure(() => repository.resolve({ digest: descriptor.digest }))).code).toBe(
      "BLOB_NOT_FOUND",
    );
  });

  test("what refers to an image is found by oras after copy --all", async () => {
    const layout = tempFolder();
    mkdirSync(join(layout, "blobs", "sha256"), { recursive: true });
    const add = (document: object) => {
      const bytes = Buffer.from(JSON.stringify(document));
      const digest = sha256(bytes);
      writeFileSync(join(layout, "blobs", "sha256", digest.slice(7)), bytes);
      return { mediaType: IMAGE, digest, size: bytes.length };
    };
    add({});
    const base = { schemaVersion: 2, mediaType: IMAGE, config, layers: [config] };
    const subject = add(base);
    const sbom = add({ ...base, artifactType: "application/spdx+json", subject });
    const annotations = { "org.opencontainers.image.ref.name": "app" };
    const manifests = [{ ...subject, annotations }, sbom];
    writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
    const at = fresh(PEERS_REGISTRY);
    await copy("--all", layout, at);
    const found = await peerOutput("oras", "discover", "--plain-http", `${at}:app`);
    expect(found).toContain("application/spdx+json");
    expect(found).toContain(sbom.digest.slice(7, 19));
    const listed = await openRepository(at).listReferrers(subject.digest as Digest);
    expect(listed.map(({ digest }) => digest)).toEqual([sbom.digest as Digest]);
  });

  test("a blob known by sha512 is pushed, found again and read", async () => {
    const at = fresh(PEERS_REGISTRY);
    const layout = tempFolder();
    const bytes = Buffer.from("a layer");
    const put = (digest: string, content: Uint8Array) => {
      const path = join(layout, "blobs", digest.replace(":", "/"));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, content);
      return { digest, size: content.length };
    };
    const long = `sha512:${createHash("sha512").update(bytes).digest("hex")}`;
    const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar", ...put(long, bytes) };
    put(config.digest, EMPTY);
    const image = Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType: IMAGE, config, layers: [layer] }),
    );
    const manifests = [{ mediaType: IMAGE, ...put(sha256(image), image) }];
    writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
    expect((await copy(layout, `${at}:a`)).blobs.copied).toBeGreaterThan(0);
    expect((await copy(layout, `${at}:a`)).blobs.copied).toBe(0);
    expect((await cacheport(["verify", `${at}:a`])).code).toBe(0);
  });

  test("a layer of type application/json is read", async () => {
    const at = fresh(PEERS_REGISTRY);
    const cwd = tempFolder();
    writeFileSync(join(cwd, "p.json"), '{"a":1}');
    const push = "oras push --plain-http --disable-path-validation";
    await peerOutput("sh", "-c", `cd ${cwd} && ${push} ${at}:a p.json:application/json`);
    const target = join(tempFolder(), "layout");
    await copy(`${at}:a`, target);
    expect((await cacheport(["verify", target])).code).toBe(0);
  });
});

const children: Bun.Subprocess[] = [];
afterAll(async () => {
  for (const child of children.splice(0)) {
    child.kill();
    await child.exited;
  }
});

/** Starts a registry of its own. @returns Its host, and the folder of its blobs */
async function startRegistry(storage: string): Promise<{ host: string; blobs: string }> {
  const probe = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => probe.once("listening", resolve));
  const host = `127.0.0.1:${(probe.address() as AddressInfo).port}`;
  await new Promise((resolve) => probe.close(resolve));
  const folder = tempFolder();
  const file = join(folder, "config.yml");
  const data = `filesystem: {rootdirectory: ${folder}/data}`;
  writeFileSync(file, `version: 0.1\nstorage: {${data}${storage}}\nhttp: {addr: "${host}"}\n`);
  const run = (process.env["PEERS_RUN"] ?? "").split(" ");
  const stdio: ["ignore", "ignore", "ignore"] = ["ignore", "ignore", "ignore"];
  children.push(Bun.spawn([...run, "docker-registry", "serve", file], { stdio }));
  for (let tries = 0; tries < 100; tries++) {
    const isUp = await fetch(`http://${host}/v2/`).then(
      (reply) => reply.ok,
      () => false,
    );
    if (isUp) return { host, blobs: join(folder, "data/docker/registry/v2/blobs/sha256") };
    await Bun.sleep(100);
  }
  throw new Error("The registry did not start");
}

test.skipIf(!hasPeers)(
  "the reference registry without delete deletes nothing, says so with exit code 5, and keeps its tags",
  async () => {
    const { host } = await startRegistry("");
    const at = fresh(host);
    for (const tag of ["a", "b"]) await copy(fixture("app-image-manifest"), `${at}:${tag}`);
    const repository = openRepository(at);
    const { descriptor } = await repository.resolve({ name: "a" });
    for (const run of [
      () => repository.deleteTag("a"),
      () => repository.deleteManifest(descriptor.digest),
    ]) {
      const error = await failure(run);
      expect([error.code, error.exitCode]).toEqual(["REGISTRY_UNSUPPORTED", 5]);
    }
    expect((await repository.listNames()).toSorted()).toEqual(["a", "b"]);
    expect((await repository.resolve({ name: "a" })).descriptor).toEqual(descriptor);
  },
);

test.skipIf(!hasPeers)(
  "a file that is lost behind the registry's cache of descriptors is found, and sent with --check-target",
  async () => {
    const { host, blobs } = await startRegistry(", cache: {blobdescriptor: inmemory}");
    const at = fresh(host);
    const layout = fixture("app-image-manifest");
    await copy(layout, `${at}:a`);
    expect((await copy(layout, `${at}:a`)).blobs.copied).toBe(0);
    const hex = blobNames(layout).find(
      (name) => statSync(join(layout, "blobs", "sha256", name)).size > 1_000_000,
    ) as string;
    rmSync(join(blobs, hex.slice(0, 2), hex), { recursive: true });
    // It is believed without the option: that is what the option is for.
    expect((await copy(layout, `${at}:a`)).blobs.copied).toBe(0);
    const checked = await cacheport(["verify", `${at}:a`, "--json"]);
    expect([checked.code, checked.json().problems.length]).toEqual([4, 1]);
    expect(checked.json().problems[0].digest).toBe(`sha256:${hex}`);
    expect((await copy(layout, `${at}:a`, "--check-target")).blobs.copied).toBe(1);
    expect((await cacheport(["verify", `${at}:a`])).code).toBe(0);
  },
);
