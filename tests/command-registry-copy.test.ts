/** `copy` from, to and between registries, through the binary. */
import { beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import {
  addBlob,
  digestOfName,
  layoutFaults,
  readDocument,
  readIndex,
  writeLayout,
} from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { ask, load, repositoryFaults } from "./helpers/registry-commands.ts";
import { blobNames, fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

const FIXTURES = [
  "app-docker-list",
  "app-image-manifest",
  "app-oci-index",
  "app-uncompressed",
  "dup-oci-index",
  "image-attested",
  "image-inline",
  "multi-cache",
  "multi-image",
];
const firstDigest = (name: string): string => readIndex(fixture(name)).manifests[0].digest;

let one: TestRegistry;
/** Another host, which mounts nothing. */
let two: TestRegistry;
beforeAll(async () => {
  one = await started(TestRegistry.start({ pageSize: 2 }));
  two = await started(TestRegistry.start({ mount: false }));
});

let count = 0;
const fresh = (registry: TestRegistry) => {
  const name = `team/copy-${++count}`;
  const content = registry.repository(name);
  return { name, content, at: `${registry.domain}/${name}` };
};
const contentOf = ({ blobs, manifests }: any): string[] =>
  [...blobs.keys(), ...manifests.keys()].map((digest) => digest.slice(7)).toSorted();

describe("from place to place", () => {
  test.each(FIXTURES)(
    "%s has the same digests after folder, registry, tar, registry and folder",
    async (name) => {
      const [first, second] = [fresh(one), fresh(two)];
      const folder = tempFolder();
      const way = [
        fixture(name),
        `${first.at}:x`,
        `${folder}/x.tar:x`,
        `${second.at}:x`,
        `${folder}/back:x`,
      ];
      for (let step = 1; step < way.length; step++) {
        const [from, to] = [way[step - 1] as string, way[step] as string];
        const run = await ask(one, ["copy", from, to, "--json"]);
        expect([run.code, run.stderr]).toEqual([0, ""]);
        const { digest, mediaType, size, names } = run.json();
        expect(digest).toBe(firstDigest(name));
        expect(names).toEqual(["x"]);
        expect(run.json().entries).toEqual([{ digest, mediaType, size, names }]);
      }
      for (const { name: repository, content } of [first, second]) {
        const registry = repository === first.name ? one : two;
        expect(repositoryFaults(registry, repository)).toEqual([]);
        expect(contentOf(content)).toEqual(blobNames(fixture(name)));
      }
      expect(digestOfName(`${folder}/back`, "x")).toBe(firstDigest(name));
      expect(blobNames(`${folder}/back`)).toEqual(blobNames(fixture(name)));
      expect(layoutFaults(`${folder}/back`)).toEqual([]);
    },
  );

  test("registry to registry needs no disk", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    load(one, source.name, fixture("app-oci-index"), "main");
    // Larger than what is kept in memory whole.
    const big = one.addBlob(source.name, new Uint8Array(9_000_000).fill(7));
    one.addManifest(
      source.name,
      {
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: {
          mediaType: "application/vnd.oci.empty.v1+json",
          digest: one.addBlob(source.name, Buffer.from("{}")),
          size: 2,
        },
        layers: [{ mediaType: "x/y", digest: big, size: 9_000_000 }],
      },
      "big",
    );
    const cwd = tempFolder();
    const env = { TMPDIR: join(cwd, "missing"), HOME: join(cwd, "missing") };
    const run = await ask(two, ["copy", "--all", source.at, target.at], {
      cwd,
      env,
    });
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(readdirSync(cwd)).toEqual([]);
    expect(contentOf(target.content)).toEqual(contentOf(source.content));
    expect(repositoryFaults(two, target.name)).toEqual([]);
  });

  test("through a pipe in both directions", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    load(one, source.name, fixture("app-oci-index"), "main");
    const child = Bun.spawn(
      ["sh", "-c", '"$0" copy "$1" - -q | "$0" copy - "$2" -q'].concat(
        BINARY,
        `${source.at}:main`,
        `${target.at}:piped`,
      ),
      { env: { PATH: process.env["PATH"], HOME: "/nonexistent" } },
    );
    expect(await child.exited).toBe(0);
    expect(target.content.tags.get("piped")).toBe(firstDigest("app-oci-index"));
    expect(repositoryFaults(two, target.name)).toEqual([]);
  });
});

describe("what is asked for", () => {
  test("the children of an index-shaped cache are fetched and put as blobs", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    const digest = load(one, source.name, fixture("app-oci-index"), "main");
    const read = await ask(one, ["copy", `${source.at}:main`, target.at]);
    expect(read.code).toBe(0);
    const children = JSON.parse(
      readFileSync(join(fixture("app-oci-index"), "blobs/sha256", digest.slice(7)), "utf8"),
    ).manifests;
    const blobs = new Set<string>(children.map((child: any) => child.digest));
    expect(read.requests.toSorted()).toEqual(
      [
        `GET ${source.name}/manifests/main`,
        ...[...blobs].map((blob) => `GET ${source.name}/blobs/${blob}`),
      ].toSorted(),
    );
    const manifests = two.requests("PUT", new RegExp(`${target.name}/manifests`));
    expect(manifests.map(({ url }) => url)).toEqual([`/v2/${target.name}/manifests/main`]);
    // What is there is not moved again.
    const again = await ask(two, ["copy", `${source.at}:main`, target.at, "--json"]);
    expect(again.json().blobs).toEqual({ copied: 0, skipped: 9, bytes: 0 });
    expect(again.writes).toEqual([`PUT ${target.name}/manifests/main`]);
  });

  test("within one host blobs are mounted, or uploaded where that is refused", async () => {
    for (const registry of [one, two]) {
      const [source, target] = [fresh(registry), fresh(registry)];
      load(registry, source.name, fixture("app-image-manifest"), "main");
      const run = await ask(registry, ["copy", `${source.at}:main`, target.at, "--json"]);
      expect(run.code).toBe(0);
      const posts = run.writes.filter((line) => line.startsWith("POST"));
      expect(posts).toHaveLength(9);
      const from = `&from=${encodeURIComponent(source.name)}`;
      expect(posts.every((line) => line.endsWith(from))).toBe(true);
      const uploads = run.writes.filter((line) => /^PUT .*uploads/.test(line));
      expect(uploads).toHaveLength(registry === one ? 0 : 9);
      expect(run.json().blobs).toEqual(
        registry === one
          ? { copied: 0, skipped: 9, bytes: 0 }
          : { copied: 9, skipped: 0, bytes: 1_183_434 },
      );
      expect(repositoryFaults(registry, target.name)).toEqual([]);
    }
  });

  test("--platform copies one manifest with its blobs", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    load(one, source.name, fixture("multi-image"), "multi");
    const index = readDocument(fixture("multi-image"), firstDigest("multi-image"));
    const arm = index.manifests.find(({ platform }: any) => platform.architecture === "arm64");
    const run = await ask(two, [
      "copy",
      `${source.at}:multi`,
      `${target.at}:arm`,
      "--platform",
      "linux/arm64",
      "--json",
    ]);
    expect(run.json().digest).toBe(arm.digest);
    expect([...target.content.manifests.keys()]).toEqual([arm.digest]);
    expect(target.content.blobs.size).toBeLessThan(source.content.blobs.size);
    expect(repositoryFaults(two, target.name)).toEqual([]);
  });

  test("an artifact with an empty config, a subject and an unknown type", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    const config = {
      mediaType: "application/vnd.oci.empty.v1+json",
      digest: one.addBlob(source.name, Buffer.from("{}")),
      size: 2,
    };
    const digest = one.addManifest(
      source.name,
      {
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        artifactType: "application/x.thing",
        config,
        layers: [
          {
            mediaType: "text/plain",
            digest: one.addBlob(source.name, Buffer.from("hello")),
            size: 5,
          },
        ],
        subject: { ...config, digest: `sha256:${"0".repeat(64)}` },
      },
      "thing",
    );
    const run = await ask(two, ["copy", `${source.at}:thing`, target.at, "--json"]);
    expect(run.json()).toMatchObject({ digest, shape: null, names: ["thing"] });
    // The list of what refers to its subject comes on top: this registry does not keep it.
    const there = contentOf(target.content);
    expect(there).toEqual(expect.arrayContaining(contentOf(source.content)));
    expect([...target.content.tags.keys()].toSorted()).toEqual([
      `sha256-${"0".repeat(64)}`,
      "thing",
    ]);
  });

  test("--dry-run reads the name, asks what it would displace, and nothing else", async () => {
    const [source, target] = [fresh(one), fresh(one)];
    load(one, source.name, fixture("app-oci-index"), "main");
    const run = await ask(one, ["copy", `${source.at}:main`, `${target.at}:x`, "--dry-run"]);
    expect(run.code).toBe(0);
    expect(run.requests).toEqual([
      `GET ${source.name}/manifests/main`,
      `HEAD ${target.name}/manifests/x`,
    ]);
  });

  test("progress in JSON lines tells of each blob and of the whole", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    load(one, source.name, fixture("app-image-manifest"), "main");
    const run = await cacheport([
      "copy",
      `${source.at}:main`,
      target.at,
      "--progress=json",
      "--json",
    ]);
    const events = run.stderr
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    const ended = events.filter(({ event }) => event === "end");
    expect(ended).toHaveLength(9);
    expect(ended.every(({ outcome }) => outcome === "copied")).toBe(true);
    const { outcomes, bytes } = events.at(-1);
    expect([outcomes, bytes]).toEqual([{ copied: 9 }, 1_183_434]);
    expect(run.json().blobs).toEqual({ copied: 9, skipped: 0, bytes });
  });
});

describe("names", () => {
  test("--all copies the tags of all pages, each document read once", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    for (const tag of ["a", "b", "c", "d"]) load(one, source.name, fixture("app-oci-index"), tag);
    load(one, source.name, fixture("multi-image"), "e");
    const run = await ask(one, ["copy", "-a", source.at, target.at, "--json"]);
    expect(run.code).toBe(0);
    expect(run.json()).toMatchObject({
      digest: null,
      shape: null,
      names: ["a", "b", "c", "d", "e"],
    });
    expect(Object.fromEntries(target.content.tags)).toEqual(
      Object.fromEntries(source.content.tags),
    );
    expect(repositoryFaults(two, target.name)).toEqual([]);
    const reads = run.requests.filter((line) => line.startsWith("GET"));
    expect(new Set(reads).size).toBe(reads.length);
    const folder = join(tempFolder(), "all");
    const back = await ask(one, ["copy", "--all", source.at, folder]);
    expect(back.code).toBe(0);
    expect(
      readIndex(folder).manifests.map(
        (entry: any) => entry.annotations["org.opencontainers.image.ref.name"],
      ),
    ).toEqual(["a", "b", "c", "d", "e"]);
    expect(layoutFaults(folder)).toEqual([]);
  });

  test("an image name in a layout becomes its tag", async () => {
    const target = fresh(one);
    const run = await ask(one, ["copy", fixture("multi-image"), target.at, "--json"]);
    expect(run.json().names).toEqual(["2"]);
    expect([...target.content.tags.keys()]).toEqual(["2"]);
    const more = await ask(one, [
      "copy",
      fixture("multi-image"),
      `${target.at}:3`,
      "--json",
      "--tag",
      "4",
      "--tag",
      `${target.at}:5`,
    ]);
    expect(more.json().names).toEqual(["3", "4", "5"]);
    expect([...target.content.tags.keys()]).toEqual(["2", "3", "4", "5"]);
  });

  test("a name that a repository cannot give is refused before anything moves", async () => {
    const target = fresh(one);
    for (const command of ["copy", "convert"]) {
      const run = await ask(one, [
        command,
        fixture("app-oci-index"),
        target.at,
        "--tag",
        "other.example/app:1",
      ]);
      expect(run.code).toBe(2);
      expect(run.stderr).toContain("a repository has tags only");
      expect(run.requests).toEqual([]);
    }
    const layout = tempFolder();
    const entry = (name: string, text: string) => ({
      ...addBlob(layout, text, "text/plain"),
      annotations: { "org.opencontainers.image.ref.name": name },
    });
    writeLayout(layout, [entry("no/tag at all", "x")]);
    const untagged = await ask(one, ["copy", layout, target.at]);
    expect(untagged.code).toBe(2);
    expect(untagged.stderr).toContain("it holds no tag");
    writeLayout(layout, [entry("a.example/x:1", "x"), entry("b.example/y:1", "y")]);
    const clash = await ask(one, ["copy", "--all", layout, target.at]);
    expect(clash.code).toBe(3);
    expect(clash.stderr).toContain('would be called "1"');
    expect([...untagged.requests, ...clash.requests]).toEqual([]);
  });

  test("an index is tagged after the manifests that it lists, though they have tags too", async () => {
    const layout = tempFolder();
    const source = fixture("multi-image");
    mkdirSync(join(layout, "blobs"));
    for (const blob of blobNames(source)) {
      const bytes = readFileSync(join(source, "blobs/sha256", blob));
      addBlob(layout, bytes);
    }
    const [index] = readIndex(source).manifests;
    const [child] = readDocument(source, index.digest).manifests;
    const named = (descriptor: any, name: string) => ({
      ...descriptor,
      annotations: { "org.opencontainers.image.ref.name": name },
    });
    writeLayout(layout, [named(index, "all"), named(child, "one")]);
    const strict = await started(TestRegistry.start({ strict: true }));
    const run = await ask(strict, ["copy", "--all", layout, `${strict.domain}/x`, "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.json().names).toEqual(["all", "one"]);
    expect(repositoryFaults(strict, "x")).toEqual([]);
  });

  test("a blob that is damaged on the way is told, and nothing is tagged", async () => {
    const [source, target] = [fresh(one), fresh(two)];
    load(one, source.name, fixture("app-oci-index"), "main");
    const [digest, bytes] = [...source.content.blobs].find(
      ([, blob]) => blob.length > 1_000_000,
    ) as [string, Uint8Array];
    source.content.blobs.set(digest, Buffer.from(bytes).fill(0, 99, 100));
    const run = await ask(two, ["copy", `${source.at}:main`, target.at, "--json"]);
    expect(run.code).toBe(4);
    expect(run.json().error.code).toBe("DIGEST_MISMATCH");
    expect(run.json().error.message).toContain(digest);
    expect(target.content.tags.size).toBe(0);
    expect(target.content.blobs.has(digest)).toBe(false);
    const folder = tempFolder();
    writeFileSync(join(folder, "mine"), "");
    const local = await ask(one, ["copy", `${source.at}:main`, `${folder}/x`]);
    expect(local.code).toBe(4);
    expect(existsSync(join(folder, "x", "index.json"))).toBeFalse();
  });
});
