/** Archives of images without an index.json are read as layouts are. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { LayoutArchive } from "../src/archive-reader.ts";
import { makeTar } from "./helpers/archives.ts";
import type { TestMember } from "./helpers/archives.ts";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { hexOf, STYLES, testImage } from "./helpers/docker-archive.ts";
import { failure } from "./helpers/errors.ts";
import {
  addBlob,
  blobFile,
  layoutFaults,
  readDocument,
  readIndex,
  writeLayout,
} from "./helpers/layout.ts";
import { shell } from "./helpers/shell.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const ONE = testImage(["team/app:1.0", "quay.io/team/app:1.0"], ["base", "tools", "one"]);
const TWO = testImage(["team/app:2.0"], ["base", "tools", "two", "tools"]);
const BARE = testImage(null, ["base"]);

const styles = Object.entries(STYLES);

/** Writes a tar into a folder of its own. */
function tarFile(members: TestMember[], pack = (bytes: Uint8Array): Uint8Array => bytes): string {
  const path = join(tempFolder(), "images.tar");
  writeFileSync(path, pack(makeTar(members)));
  return path;
}

const plainBytes = (bytes: Buffer): Buffer =>
  bytes[0] === 0x1f ? gunzipSync(bytes) : bytes[0] === 0x28 ? zstdDecompressSync(bytes) : bytes;

/** What a layout says of an image: the digest of its config and of each unpacked layer. */
function contentOf(layout: string, digest: string): { config: string; layers: string[] } {
  const { config, layers } = readDocument(layout, digest);
  return {
    config: config.digest.slice(7),
    layers: layers.map((layer: any) => {
      const bytes = readFileSync(blobFile(layout, layer.digest));
      const kind = bytes[0] === 0x1f ? "+gzip" : bytes[0] === 0x28 ? "+zstd" : "";
      expect(layer.mediaType).toBe(`application/vnd.oci.image.layer.v1.tar${kind}`);
      return hexOf(plainBytes(bytes));
    }),
  };
}

const packed = ({ config, layers }: typeof ONE) => ({
  config: hexOf(config),
  layers: layers.map(hexOf),
});

describe.each(styles)("an archive in the way of %s", (_style, make) => {
  test.each<[string, ((bytes: Uint8Array) => Uint8Array) | undefined, boolean]>([
    ["a file", undefined, false],
    ["a pipe", undefined, true],
    ["a file with gzip", gzipSync, false],
    ["a pipe with zstd", zstdCompressSync, true],
  ])("is copied from %s, with all its images and names", async (_from, pack, isPipe) => {
    const path = tarFile(make([ONE, TWO, BARE]), pack);
    const layout = join(tempFolder(), "layout");
    const run = await cacheport(["copy", "--all", isPipe ? "-" : path, layout], {
      stdin: isPipe ? readFileSync(path) : "",
    });
    expect(run.stderr).toBe("");
    expect(layoutFaults(layout)).toEqual([]);
    const entries = readIndex(layout).manifests.map(({ digest, annotations }: any) => [
      annotations?.["io.containerd.image.name"],
      annotations?.["org.opencontainers.image.ref.name"],
      contentOf(layout, digest),
    ]);
    expect(entries).toEqual([
      ["docker.io/team/app:1.0", "1.0", packed(ONE)],
      ["quay.io/team/app:1.0", "1.0", packed(ONE)],
      ["docker.io/team/app:2.0", "2.0", packed(TWO)],
      [undefined, undefined, packed(BARE)],
    ]);
    expect(readdirSync(join(layout, ".."))).toEqual(["layout"]);
  });

  test("is read by name in place, and its layers are compressed on the way when asked for", async () => {
    const path = tarFile(make([ONE, TWO]));
    const list = (await cacheport(["ls", path, "--json"])).json<any[]>();
    expect(list.map(({ kind, platform }) => [kind, platform?.architecture])).toEqual(
      Array(3).fill(["image", "amd64"]),
    );
    const verify = await cacheport(["verify", path, "--deep"]);
    expect([verify.code, verify.stderr]).toEqual([0, ""]);
    const layout = join(tempFolder(), "layout");
    const args = ["copy", `${path}:team/app:2.0`, `${layout}:x`, "--compression", "zstd"];
    expect((await cacheport(args)).stderr).toBe("");
    const [entry] = readIndex(layout).manifests;
    expect(contentOf(layout, entry.digest)).toEqual(packed(TWO));
    const types = readDocument(layout, entry.digest).layers.map((layer: any) => layer.mediaType);
    expect(new Set(types)).toEqual(new Set(["application/vnd.oci.image.layer.v1.tar+zstd"]));
  });

  test("is added to as a layout with a manifest.json that lists every image", async () => {
    const path = tarFile(make([ONE, TWO]));
    for (const args of [
      ["tag", `${path}:team/app:2.0`, "team/app:new"],
      ["untag", `${path}:quay.io/team/app:1.0`],
    ])
      expect((await cacheport(args)).stderr).toBe("");
    const archive = await LayoutArchive.open(path);
    const items = JSON.parse(
      Buffer.from((await archive.readMember("manifest.json")) ?? "").toString(),
    );
    expect(items.map(({ Config, RepoTags }: any) => [Config, RepoTags])).toEqual([
      [`blobs/sha256/${hexOf(ONE.config)}`, ["team/app:1.0"]],
      [`blobs/sha256/${hexOf(TWO.config)}`, ["team/app:2.0", "team/app:new"]],
    ]);
    await archive.close();
    const verify = await cacheport(["verify", path, "--deep"]);
    expect([verify.code, verify.stderr]).toEqual([0, ""]);
  });
});

test("images whose layers lie where a layout has its blobs are listed, large ones too", async () => {
  const content = makeTar([{ name: "large", content: Buffer.alloc(5_000_000, "x") }]);
  const diffIds = [`sha256:${hexOf(content)}`];
  const config = JSON.stringify({ rootfs: { type: "layers", diff_ids: diffIds } });
  const blob = (bytes: Uint8Array | string): TestMember => ({
    name: `blobs/sha256/${hexOf(bytes)}`,
    content: bytes,
  });
  const [Config, Layer] = [blob(config).name, blob(content).name];
  const members = [
    blob(config),
    blob(content),
    list({ Config, RepoTags: ["app:1"], Layers: [Layer] }),
  ];
  for (const pack of [undefined, gzipSync]) {
    const listed = await cacheport(["ls", "--json", tarFile(members, pack)]);
    expect(listed.json()).toMatchObject([{ imageName: "docker.io/library/app:1", kind: "image" }]);
  }
  const piped = await cacheport(["ls", "-"], { stdin: makeTar(members) });
  expect([piped.code, piped.stderr]).toEqual([2, expect.stringContaining("to a file first")]);
});

test("of two images with one name the last has it, as docker load does it", async () => {
  const [a, b] = [testImage(["app:1"], ["a"]), testImage(["app:1"], ["b"])];
  const archive = await LayoutArchive.open(tarFile(STYLES.skopeo([a, b])));
  const { descriptor } = await archive.resolve({ name: "app:1" });
  const manifest = JSON.parse(Buffer.from(await archive.read(descriptor, 10_000)).toString());
  expect(manifest.config.digest).toBe(`sha256:${hexOf(b.config)}`);
  await archive.close();
});

const item = { Config: "c", RepoTags: null, Layers: ["l"] };
const config: TestMember = { name: "c", content: BARE.config };
const layer: TestMember = { name: "l", content: BARE.layers[0] as Uint8Array };
const list = (...items: object[]): TestMember => ({
  name: "manifest.json",
  content: JSON.stringify(items),
});
const through = (linkname: string): TestMember => ({ name: "l", typeflag: "2", linkname });

const WRONG: [string, TestMember[], string, RegExp][] = [
  ["lists no image", [list()], "LAYOUT_INVALID", /lists none/],
  ["is no list", [{ name: "manifest.json", content: "{}" }], "DOCUMENT_INVALID", /Array/],
  ["names a config that is not there", [list(item), layer], "ARCHIVE_INVALID", /config "c"/],
  ["names a layer that is not there", [list(item), config], "ARCHIVE_INVALID", /layer "l"/],
  [
    "names a layer that is a link to nothing",
    [list(item), config, through("x")],
    "ARCHIVE_INVALID",
    /layer "l"/,
  ],
  [
    "names a layer that is a link to itself",
    [list(item), config, through("l")],
    "ARCHIVE_INVALID",
    /layer "l"/,
  ],
  [
    "names a layer that is a link out of the archive",
    [list(item), config, through("../../etc/passwd")],
    "ARCHIVE_INVALID",
    /outside/,
  ],
  [
    "names a layer that is a link to a file of the machine",
    [list(item), config, through("/etc/passwd")],
    "ARCHIVE_INVALID",
    /outside/,
  ],
  [
    "names a config out of the archive",
    [list({ ...item, Config: "../c" }), config, layer],
    "ARCHIVE_INVALID",
    /outside/,
  ],
  [
    "has fewer layers than diffIDs",
    [list({ ...item, Layers: [] }), config, layer],
    "DOCUMENT_INVALID",
    /1 diffIDs and manifest.json 0 layers/,
  ],
];

test.each(WRONG)(
  "an archive whose manifest.json %s is refused",
  async (_title, members, code, words) => {
    const error = await failure(() => LayoutArchive.open(tarFile(members)));
    expect(error.code).toBe(code as never);
    expect(error.message).toMatch(words);
  },
);

test("a layer that is not what its image says is not copied", async () => {
  const path = tarFile([list(item), config, { ...layer, content: "other bytes" }]);
  const layout = join(tempFolder(), "layout");
  const run = await cacheport(["copy", path, layout]);
  expect(run.code).toBe(4);
  expect(run.stderr).toContain("its bytes have the digest");
  expect(existsSync(join(layout, "index.json"))).toBe(false);
});

test("docker-archive: before the path is understood, as a source and as a target", async () => {
  const path = tarFile(STYLES.skopeo([ONE, TWO]));
  const target = join(tempFolder(), "new.tar");
  const run = await cacheport([
    "copy",
    `docker-archive:${path}:team/app:2.0`,
    `docker-archive:${target}:team/app:3.0`,
  ]);
  expect(run.stderr).toBe("");
  const listed = await shell(tempFolder(), `tar -xOf "${target}" manifest.json`);
  expect(listed.json()).toMatchObject([
    { Config: `blobs/sha256/${hexOf(TWO.config)}`, RepoTags: ["team/app:3.0"] },
  ]);
});

/** What tar(1) finds in an archive: the names of its members, and each image of manifest.json. */
async function seenByTar(path: string): Promise<{ names: string[]; items: any[] }> {
  const listed = await shell(tempFolder(), `tar -tf "${path}"; tar -xOf "${path}" manifest.json`);
  expect(listed.stderr).toBe("");
  const lines = listed.stdout.trim().split("\n");
  return { names: lines.slice(0, -1), items: JSON.parse(lines.at(-1) ?? "") };
}

describe("an archive with a manifest.json", () => {
  test("is never appended to: a name that moves leaves one of each member", async () => {
    const source = tarFile(STYLES.crane([ONE, TWO]));
    const path = join(tempFolder(), "image.tar");
    const target = `type=docker,dest=${path},name=team/app:x`;
    for (const [name, image] of [
      ["team/app:1.0", ONE],
      ["team/app:2.0", TWO],
    ] as const) {
      // The second time as any other archive: that it is for docker load shows in itself.
      const to = image === ONE ? target : `${path}:team/app:x`;
      expect((await cacheport(["copy", "-q", `${source}:${name}`, to])).stderr).toBe("");
      const { names, items } = await seenByTar(path);
      expect(new Set(names).size).toBe(names.length);
      expect(items.map(({ Config, RepoTags }) => [Config, RepoTags])).toEqual([
        [`blobs/sha256/${hexOf(image.config)}`, ["team/app:x"]],
      ]);
    }
    const before = readFileSync(path);
    await cacheport(["copy", `${source}:team/app:2.0`, `${path}:team/app:x`]);
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("of several images is written with type=docker; what is no image is refused", async () => {
    const source = tarFile(STYLES.oldDocker([ONE, TWO]));
    const path = join(tempFolder(), "images.tar");
    const run = await cacheport(["copy", "-q", "--all", source, `type=docker,dest=${path}`]);
    expect(run.stderr).toBe("");
    const before = await seenByTar(path);
    expect(before.items.map(({ RepoTags }) => RepoTags)).toEqual([
      ["team/app:1.0", "quay.io/team/app:1.0"],
      ["team/app:2.0"],
    ]);
    const cache = fixture("app-image-manifest");
    const refused = await cacheport(["copy", cache, `type=docker,dest=${path},name=cache:1`]);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("is no image")]);
    // Beside images, under a plain name, anything may stand.
    expect((await cacheport(["copy", "-q", cache, `${path}:cache`])).stderr).toBe("");
    expect((await seenByTar(path)).items).toEqual(before.items);
    expect((await cacheport(["verify", "--deep", path])).code).toBe(0);
  });

  test("keeps what docker save says of its layers beside their paths", async () => {
    const layer = `sha256:${hexOf(ONE.layers[0] as Uint8Array)}`;
    const path = join(tempFolder(), "images.tar");
    const source = tarFile(STYLES.skopeo([ONE]));
    await cacheport(["copy", `${source}:team/app:1.0`, `type=docker,dest=${path},name=a:1`]);
    const folder = tempFolder();
    await shell(folder, `tar -xf "${path}"`);
    const file = join(folder, "manifest.json");
    const [item] = JSON.parse(readFileSync(file, "utf8"));
    const LayerSources = { [layer]: { mediaType: "x/y", size: 1, digest: layer } };
    writeFileSync(file, JSON.stringify([{ ...item, LayerSources }]));
    await shell(folder, `tar -cf "${path}" *`);
    expect((await cacheport(["tag", path, "b:2"])).stderr).toBe("");
    const { items } = await seenByTar(path);
    expect(items).toEqual([{ ...item, RepoTags: ["a:1", "b:2"], LayerSources }]);
  });

  test("lists the one image of an index around an attested index; what is broken stands in no way", async () => {
    const layout = join(tempFolder(), "layout");
    const index = "application/vnd.oci.image.index.v1+json";
    const image = "application/vnd.oci.image.manifest.v1+json";
    const layer = addBlob(
      layout,
      ONE.layers[0] as Uint8Array,
      "application/vnd.oci.image.layer.v1.tar",
    );
    const config = addBlob(layout, BARE.config, "application/vnd.oci.image.config.v1+json");
    const manifest = addBlob(
      layout,
      { schemaVersion: 2, mediaType: image, config, layers: [layer] },
      image,
    );
    const empty = addBlob(layout, "{}", "application/vnd.oci.empty.v1+json");
    const attestation = {
      ...addBlob(layout, { schemaVersion: 2, mediaType: image, config: empty, layers: [] }, image),
      annotations: { "vnd.docker.reference.type": "attestation-manifest" },
    };
    const inner = addBlob(
      layout,
      { schemaVersion: 2, mediaType: index, manifests: [manifest, attestation] },
      index,
    );
    const outer = addBlob(
      layout,
      { schemaVersion: 2, mediaType: index, manifests: [inner] },
      index,
    );
    writeLayout(layout, [outer]);
    const path = join(tempFolder(), "image.tar");
    const to = `type=docker,dest=${path},name=team/app:1`;
    expect((await cacheport(["copy", "-q", layout, to])).stderr).toBe("");
    const expected = [{ Config: `blobs/sha256/${hexOf(BARE.config)}`, RepoTags: ["team/app:1"] }];
    expect((await seenByTar(path)).items).toMatchObject(expected);

    const folder = tempFolder();
    await shell(folder, `tar -xf "${path}"; tar -cf "${path}" *`);
    const { manifests } = readIndex(folder);
    const broken = { ...addBlob(folder, "{", image), annotations: {} };
    writeLayout(folder, [...manifests, broken]);
    await shell(folder, `tar -cf "${path}" *`);
    expect((await cacheport(["tag", `${path}:team/app:1`, "team/app:2"])).stderr).toBe("");
    expect((await seenByTar(path)).items[0].RepoTags).toEqual(["team/app:1", "team/app:2"]);
  });

  test("gets content that was embedded in a descriptor alone as a blob when it is copied there", async () => {
    const layout = join(tempFolder(), "layout");
    const image = "application/vnd.oci.image.manifest.v1+json";
    const layer = addBlob(
      layout,
      BARE.layers[0] as Uint8Array,
      "application/vnd.oci.image.layer.v1.tar",
    );
    const config = {
      ...addBlob(layout, BARE.config, "application/vnd.oci.image.config.v1+json"),
      data: Buffer.from(BARE.config).toString("base64"),
    };
    await Bun.file(blobFile(layout, config.digest)).delete();
    const manifest = { schemaVersion: 2, mediaType: image, config, layers: [layer] };
    writeLayout(layout, [addBlob(layout, manifest, image)]);
    const path = join(tempFolder(), "image.tar");
    await shell(layout, `tar -cf "${path}" *`);
    const to = `type=docker,dest=${path},name=app:1`;
    for (const source of [layout, path]) {
      expect((await cacheport(["copy", "-q", source, to])).stderr).toBe("");
      const { names, items } = await seenByTar(path);
      expect(names).toContain(`blobs/sha256/${hexOf(BARE.config)}`);
      expect(items).toMatchObject([{ RepoTags: ["app:1"] }]);
    }
  });

  test("loses no name to eight tags at once", async () => {
    const path = join(tempFolder(), "images.tar");
    const source = tarFile(STYLES.skopeo([ONE]));
    await cacheport(["copy", `${source}:team/app:1.0`, `type=docker,dest=${path},name=a:0`]);
    const tags = Array.from({ length: 8 }, (_, n) => `a:${n + 1}`);
    const runs = await Promise.all(tags.map((tag) => cacheport(["tag", path, tag])));
    // Several names are one content, so "the only entry" is meant by all of them.
    expect(runs.map(({ code }) => code)).toEqual(tags.map(() => 0));
    const { items } = await seenByTar(path);
    expect(items).toHaveLength(1);
    expect(items[0].RepoTags.toSorted()).toEqual(["a:0", ...tags]);
    expect(readdirSync(join(path, ".."))).toEqual(["images.tar"]);
  });
});

test("kill -9 while an archive is unpacked leaves what the next run removes", async () => {
  const folder = tempFolder();
  const path = tarFile(STYLES.skopeo([ONE, TWO]), gzipSync);
  const child = Bun.spawn([BINARY, "copy", "--all", "-", join(folder, "layout")], {
    stdin: "pipe",
    stdout: "ignore",
    stderr: "ignore",
  });
  void child.stdin.write(readFileSync(path).subarray(0, 1000));
  await child.stdin.flush();
  while (!readdirSync(folder).some((name) => name.startsWith(".cacheport-run-")))
    await Bun.sleep(1);
  child.kill("SIGKILL");
  await child.exited;
  expect(readdirSync(folder)).toHaveLength(1);
  expect((await cacheport(["copy", "-q", "--all", path, join(folder, "layout")])).stderr).toBe("");
  expect(readdirSync(folder)).toEqual(["layout"]);
});

describe("a layout in a folder of a tar", () => {
  const index = JSON.stringify({ schemaVersion: 2, manifests: [] });
  const inFolder = (folder: string): TestMember[] => [
    { name: `${folder}/oci-layout`, content: '{"imageLayoutVersion":"1.0.0"}' },
    { name: `${folder}/index.json`, content: index },
  ];

  test.each([".cache", "./out/cache"])("%s is found", async (folder) => {
    const archive = await LayoutArchive.open(
      tarFile([{ name: "README.md", content: "x" }, ...inFolder(folder)]),
    );
    expect(await archive.list()).toEqual([]);
    await archive.close();
  });

  test("is found beside a manifest.json of something else", async () => {
    const page = { name: "manifest.json", content: '{"short_name":"page"}' };
    const archive = await LayoutArchive.open(tarFile([page, ...inFolder(".cache")]));
    await archive.close();
  });

  test("is not chosen among several", async () => {
    const members = [...inFolder("one"), ...inFolder("two")];
    const error = await failure(() => LayoutArchive.open(tarFile(members)));
    expect(error.code).toBe("LAYOUT_INVALID");
    expect(error.message).toContain('2, in "one", "two"');
  });

  test("is not changed: other things may lie beside it", async () => {
    const path = tarFile(inFolder(".cache"));
    const before = readFileSync(path);
    for (const options of [[], ["--rewrite"]]) {
      const source = tarFile(STYLES.crane([ONE]));
      const run = await cacheport(["copy", `${source}:team/app:1.0`, path, ...options]);
      expect(run.code).toBe(2);
      expect(run.stderr).toContain('its layout is in a folder of it, ".cache/"');
    }
    expect(readFileSync(path).equals(before)).toBe(true);
  });
});
