/** The commands that only read: ls, resolve, cat, inspect, ref. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { blobFile, readDocument, readIndex, snapshot } from "./helpers/layout.ts";
import { fixture, fixtureCopy } from "./helpers/temp.ts";

const top = (name: string): any => readIndex(fixture(name)).manifests[0];

describe("ls", () => {
  test.each([
    ["app-oci-index", "cache"],
    ["app-docker-list", "cache"],
    ["app-image-manifest", "cache"],
    ["image-inline", "image"],
    ["multi-image", "index"],
    ["image-attested", "index"],
  ])("%s holds one %s", async (name, kind) => {
    const run = await cacheport(["ls", fixture(name), "--json"]);
    expect(run.code).toBe(0);
    const [entry, ...rest] = run.json();
    expect(rest).toEqual([]);
    const { digest, mediaType, size } = top(name);
    expect(entry).toMatchObject({ digest, mediaType, size, kind });
  });

  test("every name of one image, with full name, tag and platform", async () => {
    const run = await cacheport(["ls", fixture("image-dir"), "--json"]);
    expect(run.json()).toMatchObject([
      {
        refName: "1.0",
        imageName: "reg.example/team/app:1.0",
        platform: { os: "linux", architecture: "amd64" },
      },
      { refName: "latest", imageName: "docker.io/library/app:latest" },
    ]);
    const text = (await cacheport(["ls", fixture("image-dir")])).stdout;
    expect(text.split("\n")[0]).toMatch(/^NAME +KIND +SIZE +PLATFORM +DIGEST$/);
    expect(text).toMatch(/reg\.example\/team\/app:1\.0 +image .* linux\/amd64 +aab55e476791/);
  });

  test("a name lists only its entry; a name that is not there says which are", async () => {
    const one = await cacheport(["ls", `${fixture("grown")}:feature`, "--json"]);
    expect(one.json()).toHaveLength(1);
    const none = await cacheport(["ls", `${fixture("grown")}:nope`]);
    expect(none.code).toBe(3);
    expect(none.stderr).toContain("main, feature");
  });

  test("--tree shows the blobs of an index-shaped cache as blobs", async () => {
    const run = await cacheport(["ls", fixture("app-docker-list"), "--tree"]);
    expect(run.stdout.trim().split("\n")).toHaveLength(1 + 9);
    expect(run.stdout).toContain("application/vnd.buildkit.cacheconfig.v0");
  });

  test("an entry whose manifest is gone is listed with its problem", async () => {
    const layout = fixtureCopy("grown");
    const [main] = readIndex(layout).manifests;
    await Bun.file(blobFile(layout, main.digest)).delete();
    const run = await cacheport(["ls", layout, "--json"]);
    expect(run.code).toBe(0);
    expect(run.json()[0]).toMatchObject({ refName: "main", kind: null });
    expect(run.json()[0].problem).toContain(main.digest);
    expect(run.json()[1]).toMatchObject({
      refName: "feature",
      kind: "cache",
      problem: null,
    });
  });
});

describe("resolve", () => {
  test("prints the digest alone, and the descriptor with --json", async () => {
    const { digest, mediaType, size } = top("multi-image");
    const location = `${fixture("multi-image")}:2`;
    expect((await cacheport(["resolve", location])).stdout).toBe(`${digest}\n`);
    expect((await cacheport(["resolve", location, "--json"])).json()).toMatchObject({
      mediaType,
      digest,
      size,
    });
  });

  test("--platform walks into the index", async () => {
    const index = readDocument(fixture("multi-image"), top("multi-image").digest);
    for (const manifest of index.manifests) {
      const platform = `linux/${manifest.platform.architecture}`;
      const run = await cacheport(["resolve", fixture("multi-image"), "--platform", platform]);
      expect(run.stdout.trim()).toBe(manifest.digest);
    }
  });

  test("a blob that index.json does not name is found by its digest", async () => {
    const { config } = readDocument(
      fixture("app-image-manifest"),
      top("app-image-manifest").digest,
    );
    const run = await cacheport([
      "resolve",
      `${fixture("app-image-manifest")}@${config.digest}`,
      "--json",
    ]);
    expect(run.json()).toMatchObject({
      digest: config.digest,
      size: config.size,
    });
    const absent = `sha256:${"0".repeat(64)}`;
    const none = await cacheport(["resolve", `${fixture("app-image-manifest")}@${absent}`]);
    expect(none.code).toBe(3);
    expect(none.stderr).toContain(absent);
  });
});

describe("cat", () => {
  test("prints a manifest and a blob byte for byte", async () => {
    const name = "app-image-manifest";
    const { digest } = top(name);
    const manifest = await cacheport(["cat", fixture(name)]);
    expect(manifest.stdout).toBe(readFileSync(blobFile(fixture(name), digest), "utf8"));
    const { config } = readDocument(fixture(name), digest);
    const blob = await cacheport(["cat", `${fixture(name)}@${config.digest}`]);
    expect(blob.stdout).toBe(readFileSync(blobFile(fixture(name), config.digest), "utf8"));
    const json = await cacheport(["cat", `${fixture(name)}@${config.digest}`, "--json"]);
    expect(Buffer.from(json.json().data, "base64").toString()).toBe(blob.stdout);
  });

  test("a blob whose bytes do not fit ends with exit code 4", async () => {
    const layout = fixtureCopy("app-image-manifest");
    const { layers } = readDocument(layout, top("app-image-manifest").digest);
    const path = blobFile(layout, layers[0].digest);
    await Bun.file(path).delete();
    await Bun.write(path, "x".repeat(layers[0].size));
    const run = await cacheport(["cat", `${layout}@${layers[0].digest}`]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("its bytes have the digest");
  });
});

describe("inspect", () => {
  test.each(["app-oci-index", "app-docker-list", "app-image-manifest", "dup-oci-index"])(
    "%s: one entry for each place of the config, sizes from the manifest",
    async (name) => {
      const run = await cacheport(["inspect", fixture(name), "--json"]);
      expect(run.code).toBe(0);
      const found = run.json();
      const document = readDocument(fixture(name), top(name).digest);
      const blobs = document.layers ?? document.manifests.slice(0, -1);
      const configDescriptor = document.config ?? document.manifests.at(-1);
      const config = readDocument(fixture(name), configDescriptor.digest);
      expect(found.kind).toBe("cache");
      expect(found.shape).toBe(name.replace(/^(app|dup)-/, ""));
      expect(found.manifest.digest).toBe(top(name).digest);
      expect(found.config.digest).toBe(configDescriptor.digest);
      expect(found.records).toBe(config.records.length);
      expect(found.problems).toEqual([]);
      expect(found.layers.map((layer: any) => [layer.digest, layer.size])).toEqual(
        blobs.map((blob: any) => [blob.digest, blob.size]),
      );
      const sizes = new Map(blobs.map((blob: any) => [blob.digest, blob.size]));
      expect(found.totalSize).toBe(
        [...sizes.values()].reduce((a: any, b: any) => a + b, 0) as number,
      );
      for (const [i, layer] of found.layers.entries()) {
        expect(layer.diffId).toBe(blobs[i].annotations["containerd.io/uncompressed"]);
        expect(layer.createdAt).toBe(blobs[i].annotations["buildkit/createdat"]);
        let depth = 0;
        for (let at = config.layers[i]; (at.parent ?? 0) >= 0; at = config.layers[at.parent ?? 0])
          depth++;
        expect(layer.depth).toBe(depth);
      }
    },
  );

  test("an image: platform, layers with their commands, inline cache", async () => {
    const found = (await cacheport(["inspect", fixture("image-inline"), "--json"])).json();
    expect(found).toMatchObject({ kind: "image", inlineCache: true });
    expect(found.layers[0].createdBy).toContain("COPY /out.bin");
    const text = (await cacheport(["inspect", fixture("image-inline")])).stdout;
    expect(text).toContain("linux/amd64");
  });

  test("a layer that the manifest does not list is a problem", async () => {
    const layout = fixtureCopy("app-image-manifest");
    const manifest = readDocument(layout, top("app-image-manifest").digest);
    const [gone] = manifest.layers.splice(2, 1);
    const bytes = JSON.stringify(manifest);
    const digest = `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
    await Bun.write(blobFile(layout, digest), bytes);
    const index = {
      ...readIndex(layout),
      manifests: [{ ...top("app-image-manifest"), digest, size: bytes.length }],
    };
    await Bun.write(join(layout, "index.json"), JSON.stringify(index));
    const found = (await cacheport(["inspect", layout, "--json"])).json();
    expect(found.problems).toEqual([
      {
        code: "LAYER_NOT_LISTED",
        message: expect.stringContaining(gone.digest),
      },
    ]);
  });
});

test("commands that read change nothing, not even in a folder that is read-only", async () => {
  const layout = fixtureCopy("grown");
  const before = snapshot(layout);
  for (const command of ["ls", "resolve", "cat", "inspect"]) {
    expect((await cacheport([command, `${layout}:main`])).code).toBe(0);
  }
  expect(snapshot(layout)).toEqual(before);
});

describe("ref", () => {
  test.each([
    ["alpine", "docker.io", "library/alpine", "latest", "alpine:latest"],
    ["reg.example:5000/a/b:v1", "reg.example:5000", "a/b", "v1", "reg.example:5000/a/b:v1"],
  ])("%s", async (text, domain, path, tag, familiar) => {
    const run = await cacheport(["ref", text, "--json"]);
    expect(run.json()).toMatchObject({
      domain,
      path,
      tag,
      digest: null,
      familiar,
    });
  });

  test("upper case is refused with exit code 2", async () => {
    const run = await cacheport(["ref", "Alpine"]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("Alpine");
  });
});
