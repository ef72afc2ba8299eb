/** `cacheport inspect`: the graph formats, the page and the files of a layer. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { makeTar, paxRecords } from "./helpers/archives.ts";
import { addBlob, blobFile, readDocument, readIndex, writeLayout } from "./helpers/layout.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const LAYER = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";

/** A layout with one image of layers. */
function imageOf(...layers: Uint8Array[]): string {
  const layout = tempFolder();
  writeLayout(layout, []);
  const blobs = layers.map((bytes) => addBlob(layout, bytes, LAYER));
  const config = addBlob(
    layout,
    {
      os: "linux",
      architecture: "amd64",
      rootfs: { type: "layers", diff_ids: blobs.map(({ digest }) => digest) },
    },
    "application/vnd.oci.image.config.v1+json",
  );
  const manifest = addBlob(
    layout,
    { schemaVersion: 2, mediaType: MANIFEST, config, layers: blobs },
    MANIFEST,
  );
  writeLayout(layout, [manifest]);
  return layout;
}

const layersOf = async (location: string): Promise<any[]> =>
  (await cacheport(["inspect", location, "--json"])).json().layers;

describe("--format", () => {
  const location = `${fixture("grown")}:main`;

  test.each([
    ["dot", /^digraph cache \{\n/],
    ["mermaid", /^flowchart LR\n/],
    ["html", /^<!doctype html>\n/],
  ])("%s goes to standard output", async (format, start) => {
    const run = await cacheport(["inspect", location, "--format", format]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.stdout).toMatch(start);
    const again = await cacheport(["inspect", location, `--format=${format}`]);
    expect(again.stdout).toBe(run.stdout);
  });

  test("json is the graph, whether --json is given or not", async () => {
    const run = await cacheport(["inspect", location, "--format", "json"]);
    const graph = run.json();
    expect(Object.keys(graph)).toEqual(["caches", "layers", "records", "links"]);
    expect(graph.caches).toHaveLength(1);
    expect(graph.records).toHaveLength(14);
    expect(graph.layers).toHaveLength(8);
    for (const { from, to } of graph.links)
      expect([graph.records[from], graph.records[to]]).not.toContain(undefined);
    const both = await cacheport(["inspect", location, "--format=json", "--json"]);
    expect(both.stdout).toBe(run.stdout);
  });

  test("the graph of an inline cache", async () => {
    const inline = await cacheport(["inspect", fixture("image-inline"), "--format=json"]);
    expect(inline.json().caches).toMatchObject([{ shape: "inline" }]);
    expect(inline.json().records.length).toBeGreaterThan(0);
  });

  test("what is no cache has no graph", async () => {
    const run = await cacheport(["inspect", fixture("image-dir:latest"), "--format=dot"]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("is no build cache");
  });

  test("--output writes the file and says so, standard output stays empty", async () => {
    const folder = tempFolder();
    const path = join(folder, "cache.html");
    writeFileSync(path, "old");
    const run = await cacheport(["inspect", location, "--format=html", "-o", path]);
    expect([run.code, run.stdout]).toEqual([0, ""]);
    expect(run.stderr).toMatch(/^Wrote .*cache\.html \([\d.]+ kB\)\n$/);
    expect(readFileSync(path, "utf8")).toStartWith("<!doctype html>");
    expect(readdirSync(folder)).toEqual(["cache.html"]);
    const json = await cacheport(["inspect", location, "--format=dot", "-o", path, "--json"]);
    expect(json.json()).toEqual({
      format: "dot",
      path,
      size: readFileSync(path).length,
    });
  });

  test("--output - is standard output", async () => {
    const run = await cacheport(["inspect", location, "--format=dot", "-o", "-"]);
    expect(run.stdout).toStartWith("digraph");
  });

  test.each([
    [["--format=html", "--json"], "with --json standard output is JSON"],
    [["--format=dot", "--files", "ab"], "do not go together"],
    [["--output", "x.html"], "--output needs --format"],
    [["--format", "svg"], "takes dot, mermaid, json, html"],
  ])("%p is refused", async (args, reason) => {
    const run = await cacheport(["inspect", location, ...args]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(reason);
  });
});

describe("--files", () => {
  const header = (mode: number, uid: number, time: number) => (block: Uint8Array) => {
    const put = (value: number, width: number, at: number): void => {
      block.set(Buffer.from(value.toString(8).padStart(width, "0")), at);
    };
    put(mode, 7, 100);
    put(uid, 7, 108);
    put(time, 11, 136);
  };
  const TAR = makeTar([
    { name: "bin/", typeflag: "5", patch: header(0o755, 0, 0) },
    { name: "bin/su", content: "12345", patch: header(0o4755, 0, 86_400) },
    {
      name: "bin/sh",
      typeflag: "2",
      linkname: "su",
      patch: header(0o777, 0, 0),
    },
    { name: "bin/hard", typeflag: "1", linkname: "bin/su" },
    { name: "tmp/", typeflag: "5", patch: header(0o1777, 1000, 0) },
    { name: "etc/.wh.old" },
    { name: "srv/.wh..wh..opq" },
    {
      name: "x",
      typeflag: "x",
      content: paxRecords({ path: "evil\x1b[2J\nname" }),
    },
    { name: "short", content: "1" },
  ]);

  test("lines like those of tar, whiteouts marked, nothing drives the terminal", async () => {
    const layout = imageOf(TAR);
    const [layer] = await layersOf(layout);
    const run = await cacheport(["inspect", layout, "--files", layer.digest.slice(7, 19)]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.stdout.split("\n")).toEqual([
      "drwxr-xr-x 0/0               0 1970-01-01 00:00 bin",
      "-rwsr-xr-x 0/0               5 1970-01-02 00:00 bin/su",
      "lrwxrwxrwx 0/0               0 1970-01-01 00:00 bin/sh -> su",
      "hrw-r--r-- 0/0               0 1970-01-01 00:00 bin/hard link to bin/su",
      "drwxrwxrwt 1000/0            0 1970-01-01 00:00 tmp",
      "wrw-r--r-- 0/0               0 1970-01-01 00:00 etc/old (whiteout: removed from the layers below)",
      "wrw-r--r-- 0/0               0 1970-01-01 00:00 srv (opaque: the layers below are hidden here)",
      String.raw`-rw-r--r-- 0/0               1 1970-01-01 00:00 evil\x1b[2J\x0aname`,
      "",
    ]);
  });

  test("--json is an array", async () => {
    const layout = imageOf(TAR);
    const [layer] = await layersOf(layout);
    const run = await cacheport(["inspect", layout, "--files", layer.digest, "--json"]);
    expect(run.json()).toHaveLength(8);
    expect(run.json()[1]).toEqual({
      path: "bin/su",
      type: "file",
      size: 5,
      mode: 0o4755,
      uid: 0,
      gid: 0,
      mtime: "1970-01-02T00:00:00.000Z",
      link: null,
    });
    const empty = imageOf(makeTar([]));
    const [none] = await layersOf(empty);
    expect((await cacheport(["inspect", empty, "--files", none.digest, "--json"])).json()).toEqual(
      [],
    );
  });

  test("every layer of every cache fixture can be listed", async () => {
    for (const name of ["app-image-manifest", "app-zstd-oci-index", "app-uncompressed"]) {
      for (const { digest } of await layersOf(fixture(name))) {
        const run = await cacheport(["inspect", fixture(name), "--files", digest, "--json"]);
        expect([run.code, run.stderr]).toEqual([0, ""]);
        expect(run.json().length).toBeGreaterThan(0);
      }
    }
  });

  test("a layer is named by the start of its digest that no other one has", async () => {
    const location = fixture("app-image-manifest");
    const [layer] = await layersOf(location);
    const run = (text: string) => cacheport(["inspect", location, "--files", text, "--json"]);
    expect((await run(layer.digest.slice(0, 20))).code).toBe(0);
    const unknown = await run("0123456789abcdef");
    expect(unknown.code).toBe(3);
    expect(unknown.json().error).toMatchObject({
      code: "BLOB_NOT_FOUND",
      message: 'Cannot find layer "0123456789abcdef": no layer\'s digest starts with it',
    });
    const many = await run("sha256:");
    expect(many.code).toBe(3);
    expect(many.json().error.code).toBe("NAME_AMBIGUOUS");
    expect(many.json().error.hint).toContain(layer.digest.slice(7, 19));
    expect((await run("")).code).toBe(3);
    const index = await cacheport(["inspect", fixture("multi-image"), "--files", "a"]);
    expect(index.stderr).toContain("--platform");
  });

  test("a damaged layer: what was read stands there, the exit code tells", async () => {
    const layout = imageOf(TAR);
    const [layer] = await layersOf(layout);
    const file = blobFile(layout, layer.digest);
    const bytes = readFileSync(file);
    bytes[520] = 0xff;
    writeFileSync(file, bytes);
    const run = await cacheport(["inspect", layout, "--files", layer.digest]);
    expect(run.code).toBe(4);
    expect(run.stdout).toContain("drwxr-xr-x");
    expect(run.stderr).toMatch(/^cacheport: Cannot (use|list) /);
  });
});

describe("the text", () => {
  test("shapes, sizes and results of a cache that grew", async () => {
    const run = await cacheport(["inspect", `${fixture("grown")}:main`]);
    expect(run.stdout).toMatch(/^cache: +image-manifest\n/);
    expect(run.stdout).toMatch(/^layers: +8 \(1\.18 MB\)$/m);
    expect(run.stdout).toMatch(/^RESULTS FROM +AGE +COUNT$/m);
    expect(readIndex(fixture("grown")).manifests.length).toBeGreaterThan(1);
  });

  test("a blob in two places counts once", async () => {
    const found = (await cacheport(["inspect", fixture("multi-cache"), "--json"])).json();
    const sizes = new Map(found.layers.map(({ digest, size }: any) => [digest, size]));
    expect(sizes.size).toBeLessThan(found.layers.length);
    expect(found.totalSize).toBe(
      [...sizes.values()].reduce((sum: any, size: any) => sum + size, 0),
    );
    expect(found.results).toBe(4);
    expect(found.ages.spans).toEqual([]);
  });
});

describe("--image", () => {
  test("says in bytes what mode=max adds to mode=min", async () => {
    // An image's inline cache is what mode=min would have exported.
    const image = fixture("image-inline");
    const run = await cacheport([
      "inspect",
      fixture("app-oci-index"),
      `--image=${image}`,
      "--json",
    ]);
    expect(run.code).toBe(0);
    const { image: cost, layers, totalSize } = run.json();
    const manifest = readDocument(image, readIndex(image).manifests[0].digest);
    const { rootfs } = readDocument(image, manifest.config.digest);
    const own = new Map<string, any>(layers.map((layer: any) => [layer.digest, layer]));
    const min = [...own.values()].filter(
      ({ digest, diffId }) =>
        rootfs.diff_ids.includes(diffId) ||
        manifest.layers.some((layer: any) => layer.digest === digest),
    );
    const bytes = min.reduce((sum, { size }) => sum + size, 0);
    expect(cost).toEqual({
      location: image,
      min: { layers: min.length, bytes },
      added: { layers: own.size - min.length, bytes: totalSize - bytes },
    });
    const text = await cacheport(["inspect", fixture("app-oci-index"), "--image", image]);
    expect(text.stdout).toContain("mode=max adds ");
  });

  test("knows the layers of an image in another compression by what they unpack to", async () => {
    const cache = fixture("app-zstd-oci-index");
    const plain = fixture("app-uncompressed");
    // A cache is no image, but its layers are those of the same build.
    const run = await cacheport(["inspect", cache, "--image", fixture("app-oci-index"), "--json"]);
    expect(run.code).toBe(0);
    expect(run.json().image.added.layers).toBeGreaterThan(0);
    const other = await cacheport(["inspect", plain, "--image", plain, "--json"]);
    expect(other.json().image.added).toEqual({ layers: 0, bytes: 0 });
  });
});

test("--contents says what is in each layer", async () => {
  const location = fixture("app-image-manifest");
  const run = await cacheport(["inspect", location, "--contents"]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  expect(run.stdout).toMatch(/^LAYER .*HOLDS$/m);
  const { layers } = (await cacheport(["inspect", location, "--contents", "--json"])).json();
  const { digest, contents } = layers.find((layer: any) => layer.contents?.files > 1);
  const files = (await cacheport(["inspect", location, "--files", digest, "--json"])).json();
  const listed = files.filter(({ type }: any) => type !== "directory");
  expect(contents.files).toBe(listed.length);
  const inside = listed.filter(({ path }: any) => path.startsWith(`${contents.path}/`));
  if (contents.path !== ".") expect(inside.length / listed.length).toBeGreaterThanOrEqual(0.8);
});
