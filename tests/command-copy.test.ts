import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import {
  addBlob,
  blobFile,
  digestOfName,
  layoutFaults,
  readDocument,
  readIndex,
  snapshot,
  writeLayout,
} from "./helpers/layout.ts";
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { canMount, has, isRoot, smallDisk } from "./helpers/machine.ts";

const FIXTURES = [
  "app-docker-list",
  "app-oci-index",
  "app-image-manifest",
  "app-uncompressed",
  "dup-oci-index",
  "image-attested",
  "image-inline",
  "multi-cache",
  "multi-image",
];

describe("copy keeps every digest", () => {
  test.each(FIXTURES)("%s", async (name) => {
    const target = join(tempFolder(), "target");
    const [entry] = readIndex(fixture(name)).manifests;
    const run = await cacheport(["copy", fixture(name), target, "--json", "--progress=none"]);
    expect(run.stderr).toBe("");
    expect(run.code).toBe(0);
    expect(run.json().digest).toBe(entry.digest);
    expect(blobNames(target)).toEqual(blobNames(fixture(name)));
    expect(layoutFaults(target)).toEqual([]);
    const [copied] = readIndex(target).manifests;
    expect(copied).toEqual(entry);
    for (const blob of blobNames(target)) {
      expect(statSync(blobFile(target, `sha256:${blob}`)).mode & 0o777).toBe(0o444);
    }
    const again = await cacheport(["copy", fixture(name), target, "--json"]);
    expect(again.json().blobs.copied).toBe(0);
    expect(readIndex(target).manifests).toHaveLength(1);
  });

  test("--all copies every entry with its names, and nothing that no name reaches", async () => {
    const target = join(tempFolder(), "target");
    const run = await cacheport(["copy", "--all", fixture("grown"), target, "--json"]);
    expect(run.code).toBe(0);
    expect(run.json().names).toEqual(["main", "feature"]);
    expect(readIndex(target)).toEqual(readIndex(fixture("grown")));
    expect(blobNames(target).length).toBeLessThan(28);
    expect(layoutFaults(target)).toEqual([]);
  });

  test("--platform copies one manifest of an index", async () => {
    const target = join(tempFolder(), "target");
    const args = ["copy", fixture("multi-image"), `${target}:arm`, "--platform", "linux/arm64"];
    expect((await cacheport(args)).code).toBe(0);
    const source = fixture("multi-image");
    const index = readDocument(source, readIndex(source).manifests[0].digest);
    const arm = index.manifests.find((m: any) => m.platform.architecture === "arm64");
    expect(digestOfName(target, "arm")).toBe(arm.digest);
    const missing = await cacheport(["copy", source, target, "--platform", "linux/riscv64"]);
    expect(missing.code).toBe(3);
    expect(missing.stderr).toContain("linux/amd64, linux/arm64");
  });

  test("an artifact of any type, one with an empty config and a subject too", async () => {
    const source = tempFolder();
    const config = addBlob(source, "{}", "application/vnd.oci.empty.v1+json");
    const manifest = addBlob(
      source,
      {
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        artifactType: "application/x.thing",
        config,
        layers: [addBlob(source, "hello", "text/plain")],
        subject: { ...config, digest: `sha256:${"0".repeat(64)}` },
      },
      "application/vnd.oci.image.manifest.v1+json",
    );
    writeLayout(source, [manifest]);
    const target = join(tempFolder(), "target");
    const run = await cacheport(["copy", source, `${target}:thing`, "--json"]);
    expect(run.code).toBe(0);
    expect(run.json().shape).toBeNull();
    expect(digestOfName(target, "thing")).toBe(manifest.digest);
    expect(layoutFaults(target)).toEqual([]);
  });

  test("a plain blob that index.json names", async () => {
    const source = tempFolder();
    const blob = addBlob(source, "just bytes", "text/plain");
    writeLayout(source, [{ ...blob, annotations: { "org.opencontainers.image.ref.name": "b" } }]);
    const target = join(tempFolder(), "target");
    expect((await cacheport(["copy", `${source}:b`, target])).code).toBe(0);
    expect(digestOfName(target, "b")).toBe(blob.digest);
  });
});

test.each(["--compress=gzip", "--rewrite"])(
  "%s is refused where no archive is written",
  async (option) => {
    const target = join(tempFolder(), "target");
    const run = await cacheport(["copy", fixture("multi-cache"), target, option]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("that is for archives");
    expect(existsSync(target)).toBe(false);
  },
);

describe("names in the target", () => {
  test("the source's names are kept, a given one wins, tags are added", async () => {
    const target = join(tempFolder(), "target");
    await cacheport(["copy", `${fixture("image-dir")}:1.0`, target]);
    expect(readIndex(target).manifests[0].annotations).toMatchObject({
      "io.containerd.image.name": "reg.example/team/app:1.0",
      "org.opencontainers.image.ref.name": "1.0",
    });
    await cacheport(["copy", `${fixture("image-dir")}:1.0`, `${target}:two`, "--tag", "three"]);
    expect(readIndex(target).manifests).toHaveLength(3);
    expect(digestOfName(target, "three")).toBe(readIndex(fixture("image-dir")).manifests[0].digest);
  });

  test("a bare tag does not take the place of a full name that has it", async () => {
    const target = fixtureCopy("image-dir");
    const before = snapshot(target);
    const run = await cacheport(["copy", fixture("app-image-manifest"), `${target}:1.0`]);
    expect(run.code).toBe(3);
    expect(run.stderr).toContain("reg.example/team/app:1.0");
    expect(readIndex(target)).toEqual(
      JSON.parse(readFileSync(join(fixture("image-dir"), "index.json"), "utf8")),
    );
    for (const path of Object.keys(before)) expect(existsSync(join(target, path))).toBe(true);
  });
});

/** Changes a source and says what the answer must be. */
const DAMAGE: [string, (layout: string, digest: string) => void, number][] = [
  ["a missing layer", (layout, digest) => rmSync(blobFile(layout, digest)), 4],
  [
    "a layer with a flipped bit",
    (layout, digest) => {
      const path = blobFile(layout, digest);
      const bytes = readFileSync(path);
      bytes[10] = (bytes[10] as number) ^ 1;
      rmSync(path);
      writeFileSync(path, bytes);
    },
    4,
  ],
  [
    "a layer cut short",
    (layout, digest) => {
      const path = blobFile(layout, digest);
      const bytes = readFileSync(path);
      rmSync(path);
      writeFileSync(path, bytes.subarray(0, 100));
    },
    4,
  ],
  [
    "a layer with bytes behind",
    (layout, digest) => {
      const path = blobFile(layout, digest);
      const bytes = readFileSync(path);
      rmSync(path);
      writeFileSync(path, Buffer.concat([bytes, Buffer.from("x")]));
    },
    4,
  ],
];

describe("damaged content does not reach the target", () => {
  test.each(DAMAGE)("%s", async (_what, damage, code) => {
    const source = fixtureCopy("app-image-manifest");
    const { layers } = readDocument(source, readIndex(source).manifests[0].digest);
    damage(source, layers[3].digest);
    const target = fixtureCopy("multi-cache");
    const index = readIndex(target);
    const run = await cacheport(["copy", source, `${target}:new`]);
    expect(run.code).toBe(code);
    expect(run.stderr).toContain(layers[3].digest);
    expect(readIndex(target)).toEqual(index);
    expect(layoutFaults(target)).toEqual([]);
    expect(existsSync(blobFile(target, layers[3].digest))).toBe(false);
    expect(existsSync(join(target, ".cacheport"))).toBe(false);
  });

  test("a target that cannot be written to is left as it was", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "file"), "x");
    const run = await cacheport(["copy", fixture("multi-cache"), join(folder, "file", "layout")]);
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("a part of the path is not a directory");
  });

  // Root may write anywhere, so another user tries.
  test.skipIf(!isRoot || !has("setpriv"))("a folder without permission says so", async () => {
    const folder = tempFolder();
    chmodSync(folder, 0o755);
    const child = Bun.spawn(
      [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        BINARY,
        "copy",
        fixture("multi-cache"),
        join(folder, "x"),
      ],
      { stderr: "pipe" },
    );
    expect(await new Response(child.stderr).text()).toContain("permission denied");
    expect(await child.exited).toBe(1);
  });

  test.skipIf(!canMount)("a full disk leaves the names that were there", async () => {
    using disk = smallDisk("400k");
    const layout = join(disk.path, "layout");
    expect((await cacheport(["copy", fixture("multi-cache"), layout])).code).toBe(0);
    const before = snapshot(layout);
    const run = await cacheport(["copy", fixture("app-image-manifest"), `${layout}:big`]);
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("no space left on the device");
    expect(readIndex(layout).manifests).toHaveLength(1);
    for (const [path, digest] of Object.entries(before)) {
      expect(snapshot(layout)[path]).toBe(digest);
    }
  });
});

test("eight copies into one layout at once lose no tag, twenty times", async () => {
  for (let round = 0; round < 20; round++) {
    const target = join(tempFolder(), "layout");
    const tags = Array.from({ length: 8 }, (_, n) => `tag-${n}`);
    const sources = ["app-image-manifest", "multi-cache", "image-inline", "app-docker-list"];
    const runs = await Promise.all(
      tags.map((tag, n) =>
        cacheport(["copy", "--quiet", fixture(sources[n % 4] as string), `${target}:${tag}`]),
      ),
    );
    expect(runs.map((run) => [run.code, run.stderr])).toEqual(tags.map(() => [0, ""]));
    const names = readIndex(target).manifests.map(
      (entry: any) => entry.annotations["org.opencontainers.image.ref.name"],
    );
    expect(names.toSorted()).toEqual(tags);
    expect(layoutFaults(target)).toEqual([]);
    rmSync(target, { recursive: true });
  }
}, 120_000);

test("kill -9 at a hundred instants: the index parses and each name is complete", async () => {
  const source = fixture("app-image-manifest");
  const target = join(tempFolder(), "layout");
  mkdirSync(target);
  let finished = 0;
  for (let n = 0; n < 100; n++) {
    const child = Bun.spawn([BINARY, "copy", source, `${target}:tag-${n}`], {
      stdout: "ignore",
      stderr: "ignore",
    });
    await Bun.sleep((n * 0.7) % 70);
    child.kill("SIGKILL");
    if ((await child.exited) === 0) finished++;
    if (existsSync(join(target, "index.json"))) expect(layoutFaults(target)).toEqual([]);
  }
  const run = await cacheport(["copy", source, `${target}:last`]);
  expect(run.code).toBe(0);
  expect(layoutFaults(target)).toEqual([]);
  expect(digestOfName(target, "last")).toBe(readIndex(source).manifests[0].digest);
  // The leftovers of the dead runs are gone with the run that succeeded.
  expect(existsSync(join(target, ".cacheport"))).toBe(false);
  expect(readIndex(target).manifests.length).toBeGreaterThan(finished);
}, 120_000);

test("an interrupt ends with 130, names nothing and leaves no temporary files", async () => {
  const source = tempFolder();
  const big = addBlob(
    source,
    Buffer.alloc(300_000_000, 7),
    "application/vnd.oci.image.layer.v1.tar",
  );
  writeLayout(source, [
    {
      ...addBlob(
        source,
        {
          schemaVersion: 2,
          mediaType: "application/vnd.oci.image.manifest.v1+json",
          config: addBlob(source, "{}", "x/y"),
          layers: [big],
        },
        "application/vnd.oci.image.manifest.v1+json",
      ),
    },
  ]);
  const target = join(tempFolder(), "layout");
  const child = Bun.spawn([BINARY, "copy", source, target], { stderr: "pipe" });
  await Bun.sleep(150);
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
  expect(existsSync(join(target, ".cacheport"))).toBe(false);
  expect(existsSync(join(target, "index.json"))).toBe(false);
});
