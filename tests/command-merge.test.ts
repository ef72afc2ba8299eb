import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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
import { started } from "./helpers/registry-client.ts";
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";
const LAYER = "application/vnd.oci.image.layer.v1.tar";

const fixtureDigest = (name: string): string => readIndex(fixture(name)).manifests[0].digest;

/** A place where nothing is yet. */
const nowhere = (): string => join(tempFolder(), "merged");

/** Runs `merge` and gives its JSON value; the run must end with 0 and say nothing else. */
async function merge(...args: string[]): Promise<any> {
  const run = await cacheport(["merge", ...args, "--json"]);
  expect(run.stderr).toBe("");
  expect(run.code).toBe(0);
  return run.json();
}

/** The keys of the records of a cache in a layout. */
function keysOf(layout: string, digest: string): string[] {
  const { config, manifests } = readDocument(layout, digest);
  const { records } = readDocument(layout, (config ?? manifests.at(-1)).digest);
  return records.map((record: any) => record.digest).toSorted();
}

/** A layout with a cache of one record for each key, on a layer of its own. */
function smallCache(keys: string[], layout = tempFolder()): string {
  const layers = keys.map((key) => addBlob(layout, `layer of ${key}`, LAYER));
  const order = layers
    .map(({ digest }, at) => ({ digest, at }))
    .toSorted((a, b) => (a.digest < b.digest ? -1 : 1));
  const config = {
    layers: order.map(({ digest }) => ({ blob: digest, parent: -1 })),
    records: keys.map((key, at) => ({
      layers: [
        {
          layer: order.findIndex((each) => each.at === at),
          createdAt: "2026-01-01T00:00:00Z",
        },
      ],
      digest: `sha256:${Buffer.from(key).toString("hex").padEnd(64, "0")}`,
    })),
  };
  const manifest = addBlob(
    layout,
    {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: addBlob(layout, config, CACHE_CONFIG),
      layers: order.map(({ at }) => layers[at]),
    },
    OCI_MANIFEST,
  );
  writeLayout(layout, [
    {
      ...manifest,
      annotations: { "org.opencontainers.image.ref.name": "latest" },
    },
  ]);
  return layout;
}

describe("the merge of the caches of two platforms", () => {
  const parts = ["multi-cache-amd64", "multi-cache-arm64"].map(fixture);

  test("has the digest of the cache that BuildKit wrote for both", async () => {
    const target = nowhere();
    const value = await merge(...parts, target);
    expect(value).toEqual({
      mediaType: OCI_MANIFEST,
      digest: fixtureDigest("multi-cache"),
      size: readIndex(fixture("multi-cache")).manifests[0].size,
      shape: "image-manifest",
      names: ["latest"],
      blobs: { copied: 3, skipped: 0, bytes: 313 },
      to: { kind: "folder", location: target, new: true },
      moved: [],
      records: 7,
      totalSize: 313,
      sources: parts.map((location, at) => ({
        location,
        digest: fixtureDigest(["multi-cache-amd64", "multi-cache-arm64"][at]!),
        shape: "image-manifest",
      })),
      dryRun: false,
    });
    expect(digestOfName(target, "latest")).toBe(value.digest);
    expect(blobNames(target)).toEqual(blobNames(fixture("multi-cache")));
    expect(layoutFaults(target)).toEqual([]);
  });

  test("does not depend on the order, nor on what is merged first", async () => {
    const digest = fixtureDigest("multi-cache");
    const [amd64, arm64] = parts as [string, string];
    const target = nowhere();
    expect((await merge(arm64, amd64, `${target}:a`)).digest).toBe(digest);
    expect((await merge(amd64, amd64, `${target}:b`)).digest).toBe(
      fixtureDigest("multi-cache-amd64"),
    );
    const again = await merge(`${target}:b`, `${target}:a`, `${target}:c`);
    expect(again.digest).toBe(digest);
    expect(layoutFaults(target)).toEqual([]);
  });

  test("is told in text, too", async () => {
    const run = await cacheport(["merge", ...parts, nowhere()]);
    expect(run.stdout).toMatch(/^merged: +2 caches -> image-manifest$/m);
    expect(run.stdout).toMatch(/^records: +7, with 313 B of layers$/m);
    expect(run.stdout).toContain(fixtureDigest("multi-cache"));
    expect(run.stdout).toMatch(/^blobs: +3 copied/m);
  });

  test("with --dry-run is told and not written", async () => {
    const target = nowhere();
    const value = await merge(...parts, target, "--dry-run");
    expect(value).toMatchObject({
      digest: fixtureDigest("multi-cache"),
      names: ["latest"],
      blobs: { copied: 0, skipped: 0, bytes: 0 },
      dryRun: true,
    });
    expect(existsSync(target)).toBe(false);
    const text = await cacheport(["merge", ...parts, target, "--dry-run"]);
    expect(text.stdout).toContain("would merge:");
    expect(text.stdout).not.toContain("blobs:");
  });
});

describe("a cache merged with itself is itself", () => {
  test.each([
    "app-image-manifest",
    "app-zstd-image-manifest",
    "app-uncompressed",
    "dup-image-manifest",
    "multi-cache",
  ])("%s", async (name) => {
    const source = fixture(name);
    const alone = await merge(source, nowhere());
    expect(alone.digest).toBe(fixtureDigest(name));
    const target = nowhere();
    const twice = await merge(source, source, target);
    expect(twice.digest).toBe(fixtureDigest(name));
    expect(blobNames(target)).toEqual(blobNames(source));
  });

  test.each([
    ["app-oci-index", "oci-index"],
    ["app-docker-list", "docker-list"],
    ["dup-oci-index", "oci-index"],
  ])("%s with --to auto", async (name, shape) => {
    const source = fixture(name);
    const value = await merge(source, source, nowhere(), "--to", "auto");
    expect(value.shape).toBe(shape);
    expect(value.digest).toBe(fixtureDigest(name));
  });
});

describe("the shape", () => {
  const shapes = ["image-manifest", "oci-index", "docker-list"];

  test.each(shapes)("is %s when --to says so", async (shape) => {
    const value = await merge(
      ...shapes.map((each) => fixture(`app-${each}`)),
      nowhere(),
      "--to",
      shape,
    );
    expect(value.digest).toBe(fixtureDigest(`app-${shape}`));
  });

  test("is that of all sources with --to auto, whatever their order, else an image manifest", async () => {
    const list = fixture("app-docker-list");
    const index = fixture("app-oci-index");
    for (const sources of [
      [list, index],
      [index, list],
    ])
      expect((await merge(...sources, nowhere(), "--to", "auto")).shape).toBe("image-manifest");
  });

  test("is what the target's attributes ask for in BuildKit's words", async () => {
    const target = nowhere();
    const run = await cacheport([
      "merge",
      fixture("app-oci-index"),
      `type=local,dest=${target},oci-mediatypes=false,compression=zstd`,
      "--json",
    ]);
    expect(run.json().digest).toBe(fixtureDigest("app-docker-list"));
    expect(run.stderr).toContain("compression=zstd has no effect");
  });
});

describe("the name", () => {
  test("is the one that all sources have", async () => {
    const layout = fixtureCopy("app-oci-index");
    await cacheport(["tag", layout, "nightly"]);
    const target = nowhere();
    const value = await merge(`${layout}:nightly`, `${layout}:nightly`, target);
    expect(value.names).toEqual(["nightly"]);
  });

  test("is latest where their names differ, so that none is overwritten", async () => {
    const layout = fixtureCopy("grown");
    const before = ["main", "feature"].map((tag) => digestOfName(layout, tag));
    const { names, digest, blobs } = await merge(`${layout}:main`, `${layout}:feature`, layout);
    expect(names).toEqual(["latest"]);
    expect(blobs).toEqual({ copied: 0, skipped: 12, bytes: 0 });
    expect(digestOfName(layout, "latest")).toBe(digest);
    expect(["main", "feature"].map((tag) => digestOfName(layout, tag))).toEqual(before);
  });

  test("may be that of one of the sources, and the merge takes its place", async () => {
    const layout = fixtureCopy("grown");
    const target = `${layout}:main`;
    const { digest } = await merge(target, `${layout}:feature`, target);
    expect(digestOfName(layout, "main")).toBe(digest);
    expect(readIndex(layout).manifests).toHaveLength(2);
    expect(layoutFaults(layout)).toEqual([]);
    // All that is in the parts is in the merge already.
    const again = await merge(target, `${layout}:feature`, target);
    expect(again.digest).toBe(digest);
  });

  test("is given by --tag any number of times", async () => {
    const target = nowhere();
    const { names } = await merge(
      fixture("app-oci-index"),
      target,
      "-t",
      "one",
      "--tag",
      "reg.example/team/app:two",
    );
    expect(names).toEqual(["one", "reg.example/team/app:two"]);
    expect(readIndex(target).manifests).toHaveLength(2);
  });
});

describe("the merge of two builds of one project", () => {
  test("has every key of both, shared layers once, and verify finds nothing", async () => {
    const layout = fixtureCopy("grown");
    const target = nowhere();
    const { digest, blobs } = await merge(`${layout}:main`, `${layout}:feature`, target);
    const tags = ["main", "feature"].map((tag) => digestOfName(layout, tag) as string);
    const merged = keysOf(target, digest);
    for (const tag of tags) for (const key of keysOf(layout, tag)) expect(merged).toContain(key);
    const layers = tags.flatMap((tag) =>
      readDocument(layout, tag).layers.map((layer: any) => layer.digest),
    );
    expect(blobs.copied).toBe(new Set(layers).size);
    expect(readDocument(target, digest).layers.map((layer: any) => layer.digest)).toEqual(
      [...new Set(layers)].toSorted(),
    );
    const verified = await cacheport(["verify", target, "--deep", "--json"]);
    expect(verified.json()).toMatchObject({ ok: true, problems: [] });
  });
});

describe("sources of other kinds", () => {
  test("the inline cache of an image joins in, without the image's name", async () => {
    const target = nowhere();
    const value = await merge(fixture("image-inline"), fixture("app-oci-index"), target);
    expect(value.sources.map(({ shape }: any) => shape)).toEqual(["inline", "oci-index"]);
    expect(value.names).toEqual(["latest"]);
    expect(layoutFaults(target)).toEqual([]);
    const alone = await merge(fixture("image-inline"), nowhere());
    expect(alone.names).toEqual(["latest"]);
    const { stdout } = await cacheport(["convert", fixture("image-inline"), nowhere(), "--json"]);
    expect(alone.digest).toBe(JSON.parse(stdout).digest);
  });

  test("archives, a pipe and a folder give what folders give, and an archive takes it", async () => {
    const folder = tempFolder();
    const [one, two] = [join(folder, "one.tar"), join(folder, "two.tar.gz")];
    const layout = fixtureCopy("grown");
    const { digest } = await merge(`${layout}:main`, `${layout}:feature`, nowhere());
    await cacheport(["copy", `${layout}:main`, one]);
    await cacheport(["copy", `${layout}:feature`, two]);
    const target = join(folder, "merged.tar");
    const run = await cacheport(["merge", one, "-", two, target, "--json"], {
      stdin: readFileSync(one),
    });
    expect(run.code).toBe(0);
    expect(run.json().digest).toBe(digest);
    const verified = await cacheport(["verify", target, "--json"]);
    expect(verified.json()).toMatchObject({ ok: true });

    const grown = await cacheport(["merge", one, two, `${one}:all`, "--json"]);
    expect(grown.json().digest).toBe(digest);
    const listed = await cacheport(["ls", one, "--json"]);
    expect(listed.json().map((entry: any) => entry.refName)).toEqual(["main", "all"]);

    const piped = Bun.spawnSync([
      "sh",
      "-c",
      '"$0" merge "$1:main" "$2" - --json | "$0" verify - --json',
      BINARY,
      one,
      two,
    ]);
    expect(JSON.parse(piped.stdout.toString())).toMatchObject({ ok: true });
    // The result cannot stand where the archive goes.
    expect(JSON.parse(piped.stderr.toString()).digest).toBe(digest);
  });

  test("standard input cannot be two sources", async () => {
    const archive = join(tempFolder(), "cache.tar");
    await cacheport(["copy", fixture("multi-cache"), archive]);
    const stdin = readFileSync(archive);
    const run = await cacheport(["merge", "-", "-", nowhere()], { stdin });
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("two archives from standard input");
  });

  test("repositories of a registry, into one that takes manifests alone", async () => {
    const registry = await started(TestRegistry.start({ strict: true }));
    const place = `${registry.domain}/app/cache`;
    const parts = ["amd64", "arm64"];
    for (const part of parts) {
      const source = fixture(`multi-cache-${part}`);
      const run = await cacheport(["copy", source, `${place}:${part}`]);
      expect(run.stderr).toBe("");
    }
    const sources = parts.map((part) => `${place}:${part}`);
    const value = await merge(...sources, `${place}:main`);
    expect(value.digest).toBe(fixtureDigest("multi-cache"));
    expect(value.blobs).toEqual({ copied: 0, skipped: 3, bytes: 0 });
    expect(registry.repository("app/cache").tags.get("main")).toBe(value.digest);

    const index = await merge(
      ...sources,
      `${place}:index`,
      "--as-index",
      "--platform=linux/amd64",
      "--platform=linux/arm64",
    );
    expect(registry.repository("app/cache").tags.get("index")).toBe(index.digest);

    const refused = await cacheport(["merge", ...sources, `${place}:list`, "--to", "docker-list"]);
    expect(refused.code).toBe(5);
    expect(refused.stderr).toContain("Leave out --to");
    expect(registry.repository("app/cache").tags.has("list")).toBe(false);
    const auto = await merge(...sources, `${place}:auto`, "--to", "auto");
    expect(auto.digest).toBe(value.digest);
  });

  test("a blob that several sources list is taken from one that has it", async () => {
    const [whole, broken] = [fixtureCopy("grown"), fixtureCopy("grown")];
    const main = readDocument(whole, digestOfName(whole, "main") as string);
    for (const { digest } of main.layers) rmSync(blobFile(broken, digest), { force: true });
    const target = nowhere();
    await merge(`${broken}:main`, `${whole}:main`, target);
    expect(layoutFaults(target)).toEqual([]);
  });
});

describe("--as-index", () => {
  const parts = ["multi-cache-amd64", "multi-cache-arm64"].map(fixture);
  const platforms = ["--platform=linux/amd64", "--platform=linux/aarch64"];

  test("puts the caches side by side, as they are, in whatever order they come", async () => {
    const target = nowhere();
    const value = await merge(...parts, target, "--as-index", ...platforms);
    expect(value).toMatchObject({
      mediaType: OCI_INDEX,
      shape: "index-of-caches",
      names: ["latest"],
      manifests: [
        { platform: "linux/amd64", digest: fixtureDigest("multi-cache-amd64") },
        { platform: "linux/arm64", digest: fixtureDigest("multi-cache-arm64") },
      ],
    });
    const index = readDocument(target, value.digest);
    expect(Object.keys(index)).toEqual(["schemaVersion", "mediaType", "manifests"]);
    expect(index.manifests).toEqual(
      ["amd64", "arm64"].map((architecture) => ({
        mediaType: OCI_MANIFEST,
        digest: fixtureDigest(`multi-cache-${architecture}`),
        size: readIndex(fixture(`multi-cache-${architecture}`)).manifests[0].size,
        platform: { architecture, os: "linux" },
      })),
    );
    expect(layoutFaults(target)).toEqual([]);
    const turned = await merge(
      ...parts.toReversed(),
      nowhere(),
      "--as-index",
      ...platforms.toReversed(),
    );
    expect(turned.digest).toBe(value.digest);
    const dry = await merge(...parts, nowhere(), "--as-index", ...platforms, "--dry-run");
    expect(dry.digest).toBe(value.digest);
  });

  test("gives each cache back with convert --platform, and all as one", async () => {
    const target = nowhere();
    await merge(...parts, target, "--as-index", ...platforms);
    for (const architecture of ["amd64", "arm64"]) {
      const run = await cacheport([
        "convert",
        target,
        nowhere(),
        "--platform",
        `linux/${architecture}`,
        "--json",
      ]);
      expect(run.json().digest).toBe(fixtureDigest(`multi-cache-${architecture}`));
    }
    const all = await merge(target, nowhere());
    expect(all.digest).toBe(fixtureDigest("multi-cache"));
    expect(all.sources).toHaveLength(1);
    // The platforms that an index tells need not be given again.
    const copy = await merge(target, nowhere(), "--as-index");
    expect(copy.digest).toBe(readIndex(target).manifests[0].digest);
  });

  test("merges the caches of one platform", async () => {
    const layout = fixture("grown");
    const target = nowhere();
    const value = await merge(
      `${layout}:main`,
      fixture("multi-cache-arm64"),
      `${layout}:feature`,
      target,
      "--as-index",
      "--platform=linux/amd64",
      "--platform=linux/arm64/v8",
      "--platform=linux/amd64",
    );
    const both = await merge(`${layout}:main`, `${layout}:feature`, nowhere());
    expect(value.manifests.map(({ digest }: any) => digest)).toEqual([
      both.digest,
      fixtureDigest("multi-cache-arm64"),
    ]);
    expect(layoutFaults(target)).toEqual([]);
  });

  test.each([
    [["--as-index"], "0 --platform options"],
    [["--as-index", "--platform=linux/amd64"], "1 --platform options"],
    [["--as-index", ...platforms, "--platform=linux/386"], "3 --platform"],
    [["--as-index", ...platforms, "--to=oci-index"], "--to with --as-index"],
    [["--platform=linux/amd64"], "it goes with --as-index"],
    [["--as-index", "--platform=a b", "--platform=c"], "a b"],
  ])("%p is wrong usage", async (options, words) => {
    const target = nowhere();
    const run = await cacheport(["merge", ...parts, target, ...options]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(words);
    expect(existsSync(target)).toBe(false);
  });
});

describe("caches without layers", () => {
  const empty = (): string => {
    const layout = tempFolder();
    const config = { records: [{ digest: `sha256:${"0".repeat(64)}` }] };
    const manifest = addBlob(
      layout,
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: addBlob(layout, config, CACHE_CONFIG),
        layers: [],
      },
      OCI_MANIFEST,
    );
    writeLayout(layout, [manifest]);
    return layout;
  };

  test.each([[[]], [["--as-index", "--platform=linux/amd64"]]])(
    "are exported by nobody (%p)",
    async (options) => {
      const target = nowhere();
      const run = await cacheport(["merge", empty(), target, ...options, "--json"]);
      expect(run.code).toBe(0);
      expect(run.stderr).toContain("skipping cache export for empty result");
      expect(run.json()).toMatchObject({ digest: null, names: [] });
      expect(existsSync(target)).toBe(false);
    },
  );

  test("add nothing to others", async () => {
    const value = await merge(
      empty(),
      fixture("multi-cache-amd64"),
      nowhere(),
      "--as-index",
      "--platform=linux/arm64",
      "--platform=linux/amd64",
    );
    expect(value.manifests).toHaveLength(1);
  });
});

test("documents that BuildKit would not import are told of", async () => {
  const source = smallCache(["a", "x".repeat(600_000)]);
  const run = await cacheport(["merge", source, nowhere()]);
  expect(run.code).toBe(0);
  expect(run.stderr).toMatch(/cache config sha256:\w+ has .* over 1 MiB/);
  expect(run.stderr).not.toContain("manifest sha256");
});

describe("what is wrong is answered with one sentence, and nothing is named", () => {
  const sound = (): string => smallCache(["sound"]);

  test("a layer that is missing", async () => {
    const layout = smallCache(["a", "b"]);
    const { layers } = readDocument(layout, digestOfName(layout, "latest") as string);
    rmSync(blobFile(layout, layers[1].digest));
    const target = nowhere();
    const run = await cacheport(["merge", sound(), layout, target, "--json"]);
    expect(run.code).toBe(4);
    expect(run.json().error.code).toBe("BLOB_MISSING");
    expect(run.json().error.message).toContain(layers[1].digest);
    expect(existsSync(join(target, "index.json"))).toBe(false);
  });

  test("a layer with other bytes", async () => {
    const layout = smallCache(["a"]);
    const { layers } = readDocument(layout, digestOfName(layout, "latest") as string);
    writeFileSync(blobFile(layout, layers[0].digest), "layer of b");
    const target = nowhere();
    const run = await cacheport(["merge", sound(), layout, target]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("its bytes have the digest");
    expect(existsSync(join(target, "index.json"))).toBe(false);
  });

  test("a cache that BuildKit refuses, by its digest and place", async () => {
    const layout = tempFolder();
    const layer = addBlob(layout, "layer", LAYER);
    const config = { layers: [{ blob: layer.digest, parent: 3 }] };
    const manifest = addBlob(
      layout,
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: addBlob(layout, config, CACHE_CONFIG),
        layers: [layer],
      },
      OCI_MANIFEST,
    );
    writeLayout(layout, [manifest]);
    for (const options of [
      [],
      ["--as-index", "--platform=linux/amd64", "--platform=linux/arm64"],
    ]) {
      const target = nowhere();
      const run = await cacheport(["merge", sound(), layout, target, ...options]);
      expect(run.code).toBe(4);
      expect(run.stderr).toContain(`cache "${manifest.digest}"`);
      expect(run.stderr).toContain("invalid layer index 3");
      expect(existsSync(target)).toBe(false);
    }
  });

  test.each([
    [() => [fixture("grown"), nowhere()], 3, "feature"],
    [() => [`${fixture("image-dir")}:1.0`, nowhere()], 4, "no build cache"],
    [() => [`${fixture("grown")}:nope`, nowhere()], 3, "nope"],
    [() => ["./no-such-layout", nowhere()], 3, "no-such-layout"],
    [() => [fixture("grown")], 2, "DST"],
    [() => [], 2, "SRC"],
    [() => [sound(), `${nowhere()}@sha256:${"0".repeat(64)}`], 2, "a digest is no name"],
    [() => [sound(), nowhere(), "--to", "inline"], 2, "--to"],
  ])("arguments %#", async (args, code, words) => {
    const given = args();
    const target = given.at(-1) ?? "";
    const before = existsSync(target) ? snapshot(target) : {};
    const run = await cacheport(["merge", ...given]);
    expect(run.stderr).toContain(words);
    expect(run.stderr.trim().split("\n").length).toBeLessThanOrEqual(3);
    expect(run.stdout).toBe("");
    expect(run.code).toBe(code);
    expect(existsSync(target) ? snapshot(target) : {}).toEqual(before);
  });
});

describe("one source and a target that holds a cache", () => {
  test("are refused: the target was forgotten, and its cache would be replaced", async () => {
    const [a, b] = [fixtureCopy("multi-cache-amd64"), fixtureCopy("multi-cache-arm64")];
    const before = snapshot(b);
    const run = await cacheport(["merge", a, b]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("a merge takes two caches or more, then the target");
    expect(run.stderr).toContain(`cacheport merge ${a} ${b} ${b}`);
    expect(snapshot(b)).toEqual(before);
    expect((await cacheport(["merge", a, `${b}:other`])).code).toBe(0);
  });

  test("are refused in a registry, too", async () => {
    const registry = await started(TestRegistry.start());
    const [a, b] = [fixture("multi-cache-amd64"), `${registry.domain}/app/cache:main`];
    expect((await cacheport(["copy", fixture("multi-cache-arm64"), b])).code).toBe(0);
    expect((await cacheport(["merge", a, b])).code).toBe(2);
    expect((await cacheport(["merge", a, `${registry.domain}/app/cache:new`])).code).toBe(0);
  });
});

describe("a merge of caches of which BuildKit's import would lose links", () => {
  test("joins the leaves, in one order of the arguments as in the other", async () => {
    const [first, second] = [smallCache(["base", "x"]), fixture("leaves")];
    const one = await merge(first, second, nowhere());
    const other = await merge(second, first, nowhere());
    expect(one.joinedLeaves).toBeGreaterThan(2);
    expect(other.digest).toBe(one.digest);
    const exact = await merge("--exact", first, second, nowhere());
    expect(exact.joinedLeaves).toBeUndefined();
    expect(exact.digest).not.toBe(one.digest);
  });

  test("keeps one joining record and re-aims it", async () => {
    const healed = fixtureCopy("leaves");
    expect((await cacheport(["heal", healed])).code).toBe(0);
    const target = nowhere();
    const value = await merge(healed, smallCache(["base", "x"]), target);
    const joining = keysOf(target, value.digest).filter((key) => /^sha256:f{64}$/.test(key));
    expect(joining).toHaveLength(1);
    const again = await merge(target, healed, nowhere());
    expect(again.digest).toBe(value.digest);
  });

  test("with itself is itself, byte by byte, also before it is healed and with --exact", async () => {
    const layout = fixtureCopy("leaves");
    const before = digestOfName(layout, "latest");
    expect((await merge("--exact", layout, layout, nowhere())).digest).toBe(before);
    const healed = JSON.parse((await cacheport(["heal", layout, "--json"])).stdout);
    const target = nowhere();
    expect((await merge(layout, layout, target)).digest).toBe(healed.digest);
    expect(blobNames(target)).toContain(healed.digest.slice(7));
    expect(layoutFaults(target)).toEqual([]);
  });
});

describe("caches with other results for the same record", () => {
  const [a, b] = [fixture("donorA"), fixture("donorB")];
  const layersOf = (target: string, digest: string): string[] => {
    const { config } = readDocument(target, digest);
    const { layers, records } = readDocument(target, config.digest);
    return records.flatMap((record: any) =>
      (record.layers ?? []).map(({ layer }: any) => layers[layer].blob),
    );
  };
  const LAYER_A = "sha256:b7c98e8698f6ab3cd271f6424f1394fe975149a6d2898d012d55ecac904b5d84";
  const LAYER_B = "sha256:2e57bb73c427d5211671902ea041625efe45b8e8bd8db6fc12189c8e35a8584e";

  test("are named, and those of the newest stay, in any order of the arguments", async () => {
    for (const sources of [
      [a, b],
      [b, a],
    ]) {
      const target = nowhere();
      const value = await merge(...sources, target);
      expect(value.conflicts).toEqual([
        {
          digest: "sha256:d4a7f2aa33b26b2ceb83ca38280aad447b9214e495935f385f3126978f97d497",
          chain: 0,
          results: sources.map((location) => ({
            location,
            layer: location === a ? LAYER_A : LAYER_B,
            createdAt: location === a ? "2026-11-01T00:00:00Z" : "2026-11-02T00:00:00Z",
            kept: location === b,
          })),
        },
      ]);
      expect(layersOf(target, value.digest)).toContain(LAYER_B);
      expect(layersOf(target, value.digest)).not.toContain(LAYER_A);
    }
  });

  test("are those of the first source with --prefer first", async () => {
    const target = nowhere();
    const value = await merge("--prefer", "first", a, b, target);
    expect(layersOf(target, value.digest)).toContain(LAYER_A);
    expect(layersOf(target, value.digest)).not.toContain(LAYER_B);
    const run = await cacheport(["merge", "--prefer", "first", a, b, nowhere()]);
    expect(run.stdout).toContain("other results for 1 record");
    expect(run.stdout).toContain("b7c98e8698f6");
  });
});

test("--drop-missing leaves out what needs a blob that is not there", async () => {
  const holed = `${fixture("holed")}@sha256:9d96c0a131aa24998989681ea3cb913fd95446b2676bb0237bf3dc9cf33a0b32`;
  const refused = await cacheport(["merge", holed, fixture("donorA"), nowhere()]);
  expect(refused.code).not.toBe(0);
  const target = nowhere();
  const value = await merge("--drop-missing", holed, fixture("donorA"), target);
  expect(value.dropped.results).toBe(1);
  expect(layoutFaults(target)).toEqual([]);
});

test("says where it went and what it displaced", async () => {
  const layout = fixtureCopy("multi-cache-amd64");
  const before = digestOfName(layout, "latest");
  const run = await cacheport(["merge", layout, fixture("multi-cache-arm64"), layout]);
  expect(run.stdout).toContain(`to:      folder ${layout}\n`);
  expect(run.stdout).toContain(`latest:  was ${before}, now ${digestOfName(layout, "latest")}\n`);
  const fresh = nowhere();
  const other = await cacheport(["merge", layout, fixture("multi-cache-arm64"), fresh]);
  expect(other.stdout).toContain(`to:      folder ${fresh} (new)\n`);
});
