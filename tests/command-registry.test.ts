/** The commands on registries, through the binary. */
import { beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { readDocument, readIndex } from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { ask, load, repositoryFaults } from "./helpers/registry-commands.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

/** One cache, as BuildKit wrote it in each shape. */
const SHAPES = ["image-manifest", "oci-index", "docker-list"] as const;
const TYPES = {
  "image-manifest": "application/vnd.oci.image.manifest.v1+json",
  "oci-index": "application/vnd.oci.image.index.v1+json",
  "docker-list": "application/vnd.docker.distribution.manifest.list.v2+json",
};
const digestIn = (shape: string): string => readIndex(fixture(`app-${shape}`)).manifests[0].digest;
const IMAGE = digestIn("image-manifest");
const INDEX = digestIn("oci-index");
const CONFIG = readDocument(fixture("app-image-manifest"), IMAGE).config.digest;

let registry: TestRegistry;
beforeAll(async () => {
  registry = await started(TestRegistry.start({ pageSize: 2 }));
});

let count = 0;
/** A repository that no other test has touched, with a cache in it. */
function filled(shape: (typeof SHAPES)[number] = "oci-index", tag = "main") {
  const name = `team/cache-${++count}`;
  load(registry, name, fixture(`app-${shape}`), tag);
  const content = registry.repository(name);
  return { name, content, at: `${registry.domain}/${name}` };
}

describe("convert in a repository", () => {
  const pairs = SHAPES.flatMap((from) => SHAPES.map((to) => [from, to]));
  test.each(pairs as [(typeof SHAPES)[number], (typeof SHAPES)[number]][])(
    "%s to %s is reads and one PUT of a manifest",
    async (from, to) => {
      const { name, content, at } = filled(from);
      const blobs = [...content.blobs.keys()];
      const run = await ask(registry, ["convert", `${at}:main`, "--to", to, "--json"]);
      expect([run.code, run.stderr]).toEqual([0, ""]);
      expect(run.requests).toEqual([
        `GET ${name}/manifests/main`,
        `GET ${name}/blobs/${CONFIG}`,
        `HEAD ${name}/manifests/main`,
        `PUT ${name}/manifests/main`,
      ]);
      const put = registry.requests("PUT").at(-1);
      expect(put?.headers["content-type"]).toBe(TYPES[to]);
      expect(run.json()).toEqual({
        mediaType: TYPES[to],
        digest: digestIn(to),
        size: put?.body.length,
        shape: to,
        names: ["main"],
        blobs: { copied: 0, skipped: 8, bytes: 0 },
        source: { digest: digestIn(from), shape: from },
        to: { kind: "registry", location: at, new: false },
        moved: from === to ? [] : [{ name: "main", from: digestIn(from), to: digestIn(to) }],
        dryRun: false,
      });
      expect(content.tags).toEqual(new Map([["main", digestIn(to)]]));
      // What the tag stood for stays until the registry collects it.
      expect(content.manifests.has(digestIn(from))).toBe(true);
      expect([...content.blobs.keys()]).toEqual(blobs);
      expect(repositoryFaults(registry, name)).toEqual([]);
    },
  );

  test.each([
    ["a target", (at: string) => [`${at}:main`, `${at}:new`]],
    ["--tag", (at: string) => [`${at}:main`, "--tag", "new"]],
    ["--tag beside a digest", (at: string) => [`${at}@${INDEX}`, "-t", "new"]],
  ])("%s gives another tag, and the old one stays", async (_, args) => {
    const { name, content, at } = filled();
    const run = await ask(registry, ["convert", ...args(at), "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.writes).toEqual([`PUT ${name}/manifests/new`]);
    expect(run.requests.filter((line) => line.includes("/blobs/"))).toEqual([
      `GET ${name}/blobs/${CONFIG}`,
    ]);
    expect(Object.fromEntries(content.tags)).toEqual({
      main: INDEX,
      new: IMAGE,
    });
  });

  test("a digest alone is no name that could be moved", async () => {
    const { at } = filled();
    const run = await ask(registry, ["convert", `${at}@${INDEX}`]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("--tag");
    expect(run.writes).toEqual([]);
  });

  test("BuildKit's option texts name the repository and the shape", async () => {
    const { name, content, at } = filled();
    const run = await ask(registry, [
      "convert",
      `type=registry,ref=${at}:main`,
      `type=registry,ref=${at}:new,mode=max,image-manifest=true,oci-mediatypes=true`,
    ]);
    expect(run.code).toBe(0);
    expect(run.stderr).toContain("mode=");
    expect(content.tags.get("new")).toBe(IMAGE);
    const alone = `type=registry,ref=${at}:new,oci-mediatypes=false`;
    const back = await ask(registry, ["convert", alone]);
    expect([back.code, back.stderr]).toEqual([0, ""]);
    expect(content.tags.get("new")).toBe(digestIn("docker-list"));
    expect(back.writes).toEqual([`PUT ${name}/manifests/new`]);
  });

  test("--dry-run reads and says what would be", async () => {
    const { content, at } = filled();
    const run = await ask(registry, ["convert", `${at}:main`, "--dry-run", "--json"]);
    expect(run.code).toBe(0);
    expect(run.json()).toMatchObject({ digest: IMAGE, dryRun: true });
    expect(run.writes).toEqual([]);
    expect(content.tags.get("main")).toBe(INDEX);
  });

  test("a tag that was moved meanwhile is left alone", async () => {
    const { name, content, at } = filled();
    const other = registry.addManifest(name, { mediaType: TYPES["oci-index"] });
    registry.faults.push({
      method: "HEAD",
      path: /manifests\/main/,
      answer: {
        status: 200,
        headers: {
          "content-type": TYPES["oci-index"],
          "docker-content-digest": other,
        },
      },
    });
    const run = await ask(registry, ["convert", `${at}:main`, "--json"]);
    expect(run.code).toBe(1);
    expect(run.json().error.code).toBe("NAME_CHANGED");
    expect(run.writes).toEqual([]);
    expect(content.tags.get("main")).toBe(INDEX);
  });

  test("recompressed layers go beside the old ones", async () => {
    const { name, content, at } = filled("image-manifest");
    const run = await ask(registry, [
      "convert",
      `${at}:main`,
      `${at}:zstd`,
      "--compression",
      "zstd",
    ]);
    expect(run.code).toBe(0);
    expect(content.tags.get("main")).toBe(IMAGE);
    const { bytes } = content.manifests.get(content.tags.get("zstd") as string) as {
      bytes: Uint8Array;
    };
    expect(Buffer.from(bytes).toString()).toContain("tar+zstd");
    expect(repositoryFaults(registry, name)).toEqual([]);
    expect((await ask(registry, ["verify", `${at}:zstd`])).code).toBe(0);
  });
});

describe("reading", () => {
  test("ls lists the tags of all pages", async () => {
    const { name, content, at } = filled();
    load(registry, name, fixture("app-image-manifest"), "image");
    load(registry, name, fixture("multi-image"), "multi");
    content.tags.set("old", IMAGE);
    content.tags.set("older", INDEX);
    const run = await ask(registry, ["ls", at, "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    const listed = run
      .json()
      .map((entry: any) => [entry.refName, entry.kind, entry.digest, entry.mediaType]);
    expect(listed).toEqual([
      ["image", "cache", IMAGE, TYPES["image-manifest"]],
      ["main", "cache", INDEX, TYPES["oci-index"]],
      ["multi", "index", content.tags.get("multi"), TYPES["oci-index"]],
      ["old", "cache", IMAGE, TYPES["image-manifest"]],
      ["older", "cache", INDEX, TYPES["oci-index"]],
    ]);
    const lists = run.requests.filter((line) => line.includes("tags/list"));
    expect(lists).toHaveLength(3);
    const table = await ask(registry, ["ls", at]);
    expect(table.stdout.split("\n")[1]).toMatch(/^image +cache +1\.18 MB +- +1315c0ad45b5$/);
  });

  test("ls with a tag or a digest asks for nothing else", async () => {
    const { name, at } = filled();
    const run = await ask(registry, ["ls", `${at}:main`, "--json"]);
    expect(run.json()).toMatchObject([{ refName: "main", digest: INDEX }]);
    expect(run.requests).toEqual([`GET ${name}/manifests/main`]);
    const byDigest = await ask(registry, ["ls", `${at}@${INDEX}`, "--json"]);
    expect(byDigest.json()).toMatchObject([{ refName: null, digest: INDEX }]);
    const tree = await ask(registry, ["ls", `${at}:main`, "--tree"]);
    expect(tree.stdout).toContain(CONFIG.slice(7, 19));
  });

  test("resolve and cat give the very bytes", async () => {
    const { name, content, at } = filled();
    const resolved = await ask(registry, ["resolve", `${at}:main`]);
    expect(resolved.stdout).toBe(`${INDEX}\n`);
    const { bytes } = content.manifests.get(INDEX) as { bytes: Uint8Array };
    const text = Buffer.from(bytes).toString();
    expect((await ask(registry, ["cat", `${at}:main`])).stdout).toBe(text);
    expect((await ask(registry, ["cat", `${at}@${INDEX}`])).stdout).toBe(text);
    // A blob is no manifest; it is fetched once.
    const blob = await ask(registry, ["cat", `${at}@${CONFIG}`]);
    expect(blob.stdout).toBe(Buffer.from(content.blobs.get(CONFIG) as Uint8Array).toString());
    expect(blob.requests).toEqual([
      `GET ${name}/manifests/${CONFIG}`,
      `GET ${name}/blobs/${CONFIG}`,
      `GET ${name}/blobs/${CONFIG}`,
    ]);
    const json = await ask(registry, ["cat", `${at}:main`, "--json"]);
    expect(atob(json.json().data)).toBe(text);
  });

  test.each(SHAPES)("inspect and verify read %s", async (shape) => {
    const { content, at } = filled(shape);
    const seen = await ask(registry, ["inspect", `${at}:main`, "--json"]);
    expect(seen.json()).toMatchObject({
      kind: "cache",
      shape,
      records: 14,
      problems: [],
      manifest: { digest: digestIn(shape) },
      config: { digest: CONFIG },
    });
    const good = await ask(registry, ["verify", `${at}:main`, "--json"]);
    expect([good.code, good.json().ok]).toEqual([0, true]);
    const [layer] = [...content.blobs.keys()].filter((one) => one !== CONFIG);
    content.blobs.delete(layer as string);
    const bad = await ask(registry, ["verify", `${at}:main`, "--json"]);
    expect(bad.code).toBe(4);
    expect(bad.json().problems[0].digest).toBe(layer);
  });

  test("--platform walks into an index", async () => {
    const { name, content, at } = filled();
    load(registry, name, fixture("multi-image"), "multi");
    const index = content.manifests.get(content.tags.get("multi") as string);
    const { manifests } = JSON.parse(Buffer.from(index?.bytes as Uint8Array).toString());
    for (const { digest, platform } of manifests) {
      const wanted = `${platform.os}/${platform.architecture}`;
      const run = await ask(registry, ["resolve", `${at}:multi`, "--platform", wanted]);
      expect(run.stdout).toBe(`${digest}\n`);
    }
    const none = await ask(registry, ["resolve", `${at}:multi`, "--platform", "linux/s390x"]);
    expect(none.code).toBe(3);
  });

  test("diff compares two tags", async () => {
    const { name, at } = filled();
    load(registry, name, fixture("app-image-manifest"), "image");
    const run = await ask(registry, ["diff", `${at}:main`, `${at}:image`]);
    expect(run.code).toBe(0);
    expect(run.writes).toEqual([]);
  });
});

describe("tags", () => {
  test("tag adds some with the manifest alone, untag deletes one", async () => {
    const { name, content, at } = filled();
    const run = await ask(registry, ["tag", `${at}:main`, "a", "b"]);
    expect(run.code).toBe(0);
    expect(run.requests[0]).toBe(`GET ${name}/manifests/main`);
    expect(run.writes).toEqual([`PUT ${name}/manifests/a`, `PUT ${name}/manifests/b`]);
    const removed = await ask(registry, ["untag", `${at}:a`, "--json"]);
    expect(removed.json().removed).toEqual(["a"]);
    expect(removed.writes).toEqual([`DELETE ${name}/manifests/a`]);
    expect(Object.fromEntries(content.tags)).toEqual({ main: INDEX, b: INDEX });
    const dry = await ask(registry, ["untag", `${at}:b`, "--dry-run"]);
    expect([dry.code, dry.writes]).toEqual([0, []]);
  });

  test.each([
    [400, "DIGEST_INVALID", "provided digest did not match uploaded content"],
    [400, "UNSUPPORTED", "the operation is unsupported"],
    [405, "UNSUPPORTED", "the operation is unsupported"],
    [501, "", ""],
  ])("a registry that answers %d %s deletes no single tags", async (status, code, message) => {
    const { name, content, at } = filled();
    registry.faults.push({
      method: "DELETE",
      path: new RegExp(name),
      times: 9,
      answer: {
        status,
        body: code && JSON.stringify({ errors: [{ code, message }] }),
      },
    });
    const run = await ask(registry, ["untag", `${at}:main`, "--json"]);
    expect(run.code).toBe(5);
    expect(run.json().error.code).toBe("REGISTRY_UNSUPPORTED");
    expect(run.json().error.message).toContain(`Cannot delete "${at}:main": `);
    expect(content.tags.get("main")).toBe(INDEX);
  });

  test("merge writes a third tag from two", async () => {
    const name = `team/cache-${++count}`;
    const at = `${registry.domain}/${name}`;
    for (const platform of ["amd64", "arm64"])
      load(registry, name, fixture(`multi-cache-${platform}`), platform);
    const run = await ask(registry, [
      "merge",
      `${at}:amd64`,
      `${at}:arm64`,
      `${at}:both`,
      "--json",
    ]);
    expect(run.code).toBe(0);
    const { tags } = registry.repository(name);
    expect(tags.get("both")).toBe(run.json().digest);
    expect(run.json().names).toEqual(["both"]);
    expect(repositoryFaults(registry, name)).toEqual([]);
    const seen = await ask(registry, ["inspect", `${at}:both`, "--json"]);
    expect(seen.json().problems).toEqual([]);
    // The layers are in the repository already; only the new config is uploaded.
    expect(run.writes.filter((line) => line.startsWith("POST"))).toHaveLength(1);
  });
});

test("nothing of a registry's content stays on this machine", async () => {
  const { at } = filled();
  const cwd = tempFolder();
  const temporary = tempFolder();
  for (const command of ["ls", "inspect", "verify", "convert", "cat"]) {
    const options = { cwd, env: { TMPDIR: temporary, HOME: cwd } };
    const target = command === "ls" ? at : `${at}:main`;
    expect((await ask(registry, [command, target], options)).code).toBe(0);
  }
  expect([...readdirSync(cwd), ...readdirSync(temporary)]).toEqual([]);
});
