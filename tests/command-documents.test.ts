/** Documents of every kind through the commands: what they list is never left behind. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { cacheport } from "./helpers/binary.ts";
import {
  addBlob,
  blobFile,
  digestOfName,
  layoutFaults,
  readIndex,
  snapshot,
  writeLayout,
} from "./helpers/layout.ts";
import { shell } from "./helpers/shell.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { sha256, TestRegistry } from "./helpers/test-registry.ts";

const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json";

/** An image of one layer. @returns The descriptors of manifest and layer */
function addImage(layout: string, content: string) {
  const config = addBlob(layout, { architecture: content }, "application/x.config+json");
  const layer = addBlob(layout, content, "text/plain");
  const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] };
  return { manifest: addBlob(layout, document, OCI_MANIFEST), layer };
}

describe("indexes that share their entries", () => {
  /** Each of seven indexes lists the next one thirty times. */
  const shared = (): string => {
    const layout = tempFolder();
    let child = addImage(layout, "deep").manifest;
    for (let level = 0; level < 7; level++) {
      const manifests = Array.from({ length: 30 }, (_, n) => ({
        ...child,
        annotations: { n: String(n) },
      }));
      child = addBlob(layout, { schemaVersion: 2, mediaType: OCI_INDEX, manifests }, OCI_INDEX);
    }
    writeLayout(layout, [child]);
    return layout;
  };

  test.each([
    ["verify", []],
    ["ls", []],
    ["ls", ["--tree"]],
    ["inspect", []],
    ["gc", ["--dry-run"]],
  ])("%s %p reads each document once", async (command, options) => {
    const run = await cacheport([command, shared(), ...options]);
    expect(run.code).toBe(0);
  });

  test("copy moves each of them once", async () => {
    const target = join(tempFolder(), "target");
    const run = await cacheport(["copy", shared(), target, "--json"]);
    expect(run.json().blobs.copied).toBe(9);
  });

  test("a tree shows the entries of a document once, and says so after that", async () => {
    const run = await cacheport(["ls", shared(), "--tree"]);
    expect(run.stdout.split("\n").length).toBeLessThan(250);
    expect(run.stdout.match(/\(as above\)$/gm)?.length).toBe(29 * 7);
    const json = await cacheport(["ls", shared(), "--tree", "--json"]);
    const [first, second] = json.json()[0].children;
    expect(first.children).toHaveLength(30);
    expect([first.repeated, second.repeated, second.children]).toEqual([false, true, []]);
  });
});

describe("an artifact manifest", () => {
  test.each([ARTIFACT, "application/vnd.cncf.oras.artifact.manifest.v1+json"])(
    "of type %s is copied with its blobs",
    async (mediaType) => {
      const source = tempFolder();
      const blob = addBlob(source, "scan result", "text/plain");
      writeLayout(source, [addBlob(source, { mediaType, blobs: [blob] }, mediaType)]);
      const target = join(tempFolder(), "target");
      expect((await cacheport(["copy", source, target])).code).toBe(0);
      expect(existsSync(blobFile(target, blob.digest))).toBe(true);
      expect((await cacheport(["verify", target])).code).toBe(0);
    },
  );
});

describe("an entry of index.json that cannot be used", () => {
  /** A layout with a sound image and an odd entry. */
  const layoutWith = (odd: object): string => {
    const layout = tempFolder();
    const named = (name: string) => ({
      annotations: { "org.opencontainers.image.ref.name": name },
    });
    const good = { ...addImage(layout, "good").manifest, ...named("good") };
    writeLayout(layout, [good, { mediaType: OCI_MANIFEST, ...odd, ...named("odd") }]);
    return layout;
  };

  test.each([
    ["a digest of another algorithm", { digest: `blake3:${"ab".repeat(32)}`, size: 10 }],
    ["a digest that is cut short", { digest: "sha256:abcd", size: 10 }],
    ["a negative size", { digest: `sha256:${"0".repeat(64)}`, size: -5 }],
    ["neither digest nor size", {}],
  ])("with %s is shown, and the others are used", async (_what, odd) => {
    const layout = layoutWith(odd);
    const [good, shown] = (await cacheport(["ls", layout, "--json"])).json();
    expect([good.kind, good.problem]).toEqual(["artifact", null]);
    expect([shown.kind, shown.refName]).toEqual([null, "odd"]);
    expect(shown.digest).toBe((odd as { digest?: string }).digest ?? "");
    expect(shown.problem).toContain("entry 2 of 2");
    expect((await cacheport(["ls", layout, "--tree"])).stdout).toContain("entry 2 of 2");

    const target = join(tempFolder(), "target");
    expect((await cacheport(["copy", `${layout}:good`, target])).code).toBe(0);
    expect((await cacheport(["verify", `${layout}:good`])).code).toBe(0);

    const verified = await cacheport(["verify", layout, "--json"]);
    expect(verified.code).toBe(4);
    expect(verified.json().problems.map((problem: any) => problem.code)).toEqual(["ENTRY_INVALID"]);
    expect(verified.json().blobs).toBe(3);
  });

  test("makes refuse what would need it, with nothing changed", async () => {
    const layout = layoutWith({ digest: `blake3:${"ab".repeat(32)}`, size: 10 });
    const before = snapshot(layout);
    const target = join(tempFolder(), "target");
    for (const args of [
      ["copy", `${layout}:odd`, target],
      ["copy", "--all", layout, target],
      ["verify", `${layout}:odd`],
      ["gc", layout, "--grace", "0"],
      ["copy", `${layout}:good`, `${layout}:odd`],
    ]) {
      const run = await cacheport(args);
      expect([args.join(" "), run.code]).toEqual([args.join(" "), 4]);
      expect(run.stderr).toContain("blake3");
    }
    expect(existsSync(target)).toBe(false);
    expect(snapshot(layout)).toEqual(before);
  });

  test("is removed by untag, and then nothing stands in the way", async () => {
    const layout = layoutWith({ digest: `blake3:${"ab".repeat(32)}`, size: 10 });
    expect((await cacheport(["untag", `${layout}:odd`])).code).toBe(0);
    expect((await cacheport(["verify", layout])).code).toBe(0);
    expect((await cacheport(["gc", layout, "--grace", "0"])).code).toBe(0);
  });

  test("stays as it is when others get a name beside it", async () => {
    const layout = layoutWith({ digest: `blake3:${"ab".repeat(32)}`, size: 10, x: 1.5 });
    const odd = JSON.stringify(readIndex(layout).manifests[1]);
    expect((await cacheport(["copy", `${layout}:good`, `${layout}:again`])).code).toBe(0);
    expect(JSON.stringify(readIndex(layout).manifests[1])).toBe(odd);
  });
});

describe("what nobody knows the children of", () => {
  const layoutOf = (document: (layer: object) => object, type: string, entry = type): string => {
    const layout = tempFolder();
    const layer = addBlob(layout, "precious", "text/plain");
    const made = addBlob(layout, document(layer), type);
    writeLayout(layout, [{ ...made, mediaType: entry }]);
    return layout;
  };
  const CASES: [string, () => string][] = [
    [
      "Docker schema 1",
      () =>
        layoutOf(
          ({ digest }: any) => ({ schemaVersion: 1, fsLayers: [{ blobSum: digest }] }),
          "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
    ],
    [
      "a type that nobody knows",
      () => layoutOf((layer) => ({ things: [layer] }), "application/vnd.example.thing.v1+json"),
    ],
    [
      "a type that nobody knows, without a name for it",
      () => layoutOf((layer) => ({ schemaVersion: 3, parts: { a: layer } }), "", ""),
    ],
    [
      "a manifest with blobs beside its layers",
      () =>
        layoutOf(
          (layer) => ({ mediaType: OCI_MANIFEST, layers: [], blobs: [layer] }),
          OCI_MANIFEST,
        ),
    ],
    [
      "an index with such a thing in it",
      () => {
        const layout = layoutOf((layer) => ({ things: [layer] }), "application/x+json");
        const manifests = readIndex(layout).manifests;
        writeLayout(layout, [addBlob(layout, { mediaType: OCI_INDEX, manifests }, OCI_INDEX)]);
        return layout;
      },
    ],
  ];

  test.each(CASES)(
    "%s: copy and gc refuse, verify says that it did not look inside",
    async (_what, make) => {
      const layout = make();
      const before = snapshot(layout);
      const target = join(tempFolder(), "target");
      const copy = await cacheport(["copy", layout, target, "--json"]);
      expect(copy.code).toBe(4);
      expect(copy.json().error.code).toBe("DOCUMENT_UNKNOWN");
      expect(existsSync(target)).toBe(false);
      const verify = await cacheport(["verify", layout, "--json"]);
      expect(verify.code).toBe(4);
      expect(verify.json().problems.map((problem: any) => problem.code)).toEqual([
        "DOCUMENT_UNKNOWN",
      ]);
      expect((await cacheport(["gc", layout, "--grace", "0"])).code).toBe(4);
      expect(snapshot(layout)).toEqual(before);
    },
  );

  test.each([
    "",
    "application/octet-stream",
    "application/vnd.oci.image.manfest.v1+json",
    "application/json",
    "text/plain",
  ])("a manifest that an index lists as %p is known by its bytes", async (mediaType) => {
    const layout = tempFolder();
    const { manifest, layer } = addImage(layout, "deep");
    const manifests = [{ ...manifest, mediaType }];
    writeLayout(layout, [addBlob(layout, { mediaType: OCI_INDEX, manifests }, OCI_INDEX)]);
    const target = join(tempFolder(), "target");
    expect((await cacheport(["copy", layout, target])).code).toBe(0);
    expect(existsSync(blobFile(target, layer.digest))).toBe(true);
    const before = snapshot(target);
    expect((await cacheport(["gc", target, "--grace", "0"])).code).toBe(0);
    expect(snapshot(target)).toEqual(before);
    const verify = await cacheport(["verify", target, "--json"]);
    expect(verify.json().ok).toBe(true);
    expect(verify.json().problems.map((problem: any) => problem.code)).toEqual([
      "MEDIA_TYPE_MISMATCH",
    ]);
    // Also where an entry announces it rightly.
    writeLayout(layout, [manifest, ...readIndex(layout).manifests]);
    const both = await cacheport(["verify", layout, "--json"]);
    expect(both.json().problems.map((problem: any) => problem.code)).toEqual([
      "MEDIA_TYPE_MISMATCH",
    ]);
    // A layer behind it is missed as any other.
    rmSync(blobFile(target, layer.digest), { force: true });
    expect((await cacheport(["verify", target])).code).toBe(4);
    expect((await cacheport(["copy", target, join(tempFolder(), "again")])).code).toBe(4);
  });
});

describe("a subject", () => {
  test("that the source has is copied with what refers to it", async () => {
    const source = tempFolder();
    const { manifest, layer } = addImage(source, "signed");
    const config = addBlob(source, "{}", "application/vnd.oci.empty.v1+json");
    const signature = { mediaType: OCI_MANIFEST, config, layers: [], subject: manifest };
    writeLayout(source, [addBlob(source, signature, OCI_MANIFEST)]);
    const target = join(tempFolder(), "target");
    expect((await cacheport(["copy", source, target])).code).toBe(0);
    expect(existsSync(blobFile(target, layer.digest))).toBe(true);
    const verify = await cacheport(["verify", target, "--json"]);
    expect(verify.json().problems).toEqual([]);
  });

  test("keeps its referrers reachable for verify as for gc", async () => {
    const layout = tempFolder();
    const { manifest } = addImage(layout, "signed");
    const config = addBlob(layout, "{}", "application/vnd.oci.empty.v1+json");
    const note = addBlob(layout, "signature", "text/plain");
    addBlob(layout, { mediaType: OCI_MANIFEST, config, layers: [note], subject: manifest });
    writeLayout(layout, [manifest]);
    const before = snapshot(layout);
    expect((await cacheport(["verify", layout, "--json"])).json().problems).toEqual([]);
    await cacheport(["gc", layout, "--grace", "0"]);
    expect(snapshot(layout)).toEqual(before);
  });
});

describe("content that is embedded in a descriptor", () => {
  const config = (data: string) => ({
    mediaType: "application/vnd.oci.empty.v1+json",
    digest: sha256(Buffer.from("{}")),
    size: 2,
    data,
  });
  const document = (data: string) => ({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: config(data),
    layers: [],
  });
  const EMBEDDED = Buffer.from("{}").toString("base64");

  test("is taken where the blob is absent, from a folder, a tar and a registry", async () => {
    const folder = tempFolder();
    writeLayout(folder, [addBlob(folder, document(EMBEDDED), OCI_MANIFEST)]);
    const tar = join(tempFolder(), "layout.tar");
    await shell(folder, `tar -cf ${tar} .`);
    const registry = await TestRegistry.start({ lenient: true });
    try {
      registry.addManifest("a/b", document(EMBEDDED), "x");
      for (const source of [folder, tar, `${registry.domain}/a/b:x`]) {
        expect((await cacheport(["verify", source, "--deep"])).code).toBe(0);
        const target = join(tempFolder(), "target");
        expect((await cacheport(["copy", source, target])).code).toBe(0);
        expect(readFileSync(blobFile(target, config("").digest), "utf8")).toBe("{}");
        expect((await cacheport(["copy", source, `${registry.domain}/c/d:y`])).code).toBe(0);
        expect(registry.repository("c/d").blobs.has(config("").digest)).toBe(true);
        registry.repositories.delete("c/d");
      }
    } finally {
      registry.stop();
    }
  });

  test("counts only if it is the descriptor's", async () => {
    const folder = tempFolder();
    const wrong = Buffer.from("[]").toString("base64");
    writeLayout(folder, [addBlob(folder, document(wrong), OCI_MANIFEST)]);
    expect((await cacheport(["copy", folder, join(tempFolder(), "target")])).code).toBe(4);
    const verify = await cacheport(["verify", folder, "--json"]);
    expect(verify.json().problems.map((problem: any) => problem.code)).toEqual([
      "BLOB_MISSING",
      "DATA_MISMATCH",
    ]);
  });
});

describe("an index of several platforms", () => {
  const LINUX = (architecture: string) => ({ os: "linux", architecture });
  const image = (layout: string, architecture: string) => {
    const config = addBlob(layout, LINUX(architecture), "application/vnd.oci.image.config.v1+json");
    return addBlob(layout, { mediaType: OCI_MANIFEST, config, layers: [] }, OCI_MANIFEST);
  };
  const digestOfPlatform = async (layout: string, platform: string): Promise<string> =>
    (await cacheport(["resolve", layout, "--platform", platform])).stdout.trim();

  test("of which one is there says which, and how to get it", async () => {
    const layout = tempFolder();
    const [amd, arm] = [image(layout, "amd64"), image(layout, "arm64")];
    const manifests = [
      { ...arm, platform: LINUX("arm64") },
      { ...amd, platform: LINUX("amd64") },
    ];
    writeLayout(layout, [addBlob(layout, { mediaType: OCI_INDEX, manifests }, OCI_INDEX)]);
    rmSync(blobFile(layout, arm.digest), { force: true });
    const target = join(tempFolder(), "target");
    const run = await cacheport(["copy", layout, target]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("linux/amd64");
    expect(run.stderr).toContain("--platform linux/amd64");
    expect(run.stderr).not.toContain("linux/arm64");
    expect((await cacheport(["copy", layout, target, "--platform", "linux/amd64"])).code).toBe(0);
  });

  test("gives the one that is asked for, though another entry of it cannot be used", async () => {
    const layout = tempFolder();
    const amd = image(layout, "amd64");
    const manifests = [
      { mediaType: OCI_MANIFEST, digest: "blake3:ab", size: 1, platform: LINUX("arm64") },
      { ...amd, platform: LINUX("amd64") },
    ];
    writeLayout(layout, [addBlob(layout, { mediaType: OCI_INDEX, manifests }, OCI_INDEX)]);
    const target = join(tempFolder(), "target");
    expect((await cacheport(["copy", layout, target])).code).toBe(4);
    expect((await cacheport(["copy", layout, target, "--platform", "linux/amd64"])).code).toBe(0);
    expect((await cacheport(["verify", target])).code).toBe(0);
    expect((await cacheport(["resolve", layout, "--platform", "linux/arm64"])).code).toBe(3);
  });

  test("is searched to the one child that is no attestation", async () => {
    const layout = tempFolder();
    const attested = (architecture: string) => {
      const child = image(layout, architecture);
      const attestation = {
        ...addImage(layout, `attests ${architecture}`).manifest,
        platform: { os: "unknown", architecture: "unknown" },
        annotations: { "vnd.docker.reference.type": "attestation-manifest" },
      };
      const document = { mediaType: OCI_INDEX, manifests: [attestation, child] };
      return { child, index: addBlob(layout, document, OCI_INDEX) };
    };
    const [amd, arm] = [attested("amd64"), attested("arm64")];
    const named = { ...arm.index, platform: LINUX("arm64") };
    for (const manifests of [
      [{ ...amd.index, platform: LINUX("amd64") }, named],
      // Neither index nor manifest names a platform: the configs do.
      [amd.index, arm.index],
      [amd.child, arm.child],
    ]) {
      writeLayout(layout, [addBlob(layout, { mediaType: OCI_INDEX, manifests }, OCI_INDEX)]);
      expect(await digestOfPlatform(layout, "linux/arm64")).toBe(arm.child.digest);
      expect(await digestOfPlatform(layout, "linux/amd64")).toBe(amd.child.digest);
      const none = await cacheport(["resolve", layout, "--platform", "linux/s390x"]);
      expect(none.code).toBe(3);
      expect(none.stderr).toContain("linux/amd64, linux/arm64");
    }
  });
});

describe("a document without mediaType", () => {
  test("is pushed as what it is, whatever it was served as", async () => {
    const registry = await TestRegistry.start();
    try {
      const blob = (text: string, mediaType: string) => ({
        mediaType,
        digest: registry.addBlob("a/b", Buffer.from(text)),
        size: text.length,
      });
      const served = (config: string, tag: string): string => {
        const document = { schemaVersion: 2, config: blob("{}", config), layers: [] };
        return registry.addManifest("a/b", document, tag, "application/json");
      };
      const types = {
        oci: ["application/vnd.oci.image.config.v1+json", OCI_MANIFEST],
        docker: [
          "application/vnd.docker.container.image.v1+json",
          "application/vnd.docker.distribution.manifest.v2+json",
        ],
      };
      for (const [tag, [config = "", expected]] of Object.entries(types)) {
        const digest = served(config, tag);
        const run = await cacheport([
          "copy",
          `${registry.domain}/a/b:${tag}`,
          `${registry.domain}/c/d:${tag}`,
        ]);
        expect(run.code).toBe(0);
        expect(registry.repository("c/d").manifests.get(digest)?.mediaType).toBe(
          expected as string,
        );
      }
    } finally {
      registry.stop();
    }
  });
});

describe("verify of a registry", () => {
  test("says which blob it does not get, what it belongs to, and goes on", async () => {
    const lost = new Set<string>();
    const registry = await TestRegistry.start({ lost });
    try {
      const blob = (text: string) => ({
        mediaType: "text/plain",
        digest: registry.addBlob("a/b", Buffer.from(text)),
        size: text.length,
      });
      const layers = ["one", "two", "three"].map(blob);
      const document = { mediaType: OCI_MANIFEST, config: blob("{}"), layers };
      registry.addManifest("a/b", document, "x");
      lost.add(layers[1]!.digest);
      const run = await cacheport(["verify", `${registry.domain}/a/b:x`, "--json"]);
      expect(run.code).toBe(4);
      const { blobs, problems } = run.json();
      expect(blobs).toBe(4);
      expect(problems).toHaveLength(1);
      expect(problems[0].digest).toBe(layers[1]!.digest);
      expect(problems[0].belongsTo).toEqual([{ name: "x", platform: null, role: "layer 2" }]);
      const text = await cacheport(["verify", `${registry.domain}/a/b:x`]);
      expect(text.stdout).toContain('it is layer 2 of "x"');
    } finally {
      registry.stop();
    }
  });
});

describe("an image with a layer of an unknown type", () => {
  const build = (types: string[], diffIds: string[]): string => {
    const layout = tempFolder();
    const layers = types.map((type, n) => addBlob(layout, gzipSync(`layer ${n}`), type));
    const rootfs = { type: "layers", diff_ids: diffIds };
    const config = addBlob(
      layout,
      { os: "linux", architecture: "amd64", rootfs },
      "application/vnd.oci.image.config.v1+json",
    );
    writeLayout(layout, [
      addBlob(layout, { mediaType: OCI_MANIFEST, config, layers }, OCI_MANIFEST),
    ]);
    return layout;
  };
  const TAR = "application/vnd.oci.image.layer.v1.tar";
  const diffId = (n: number): string => sha256(Buffer.from(`layer ${n}`));
  const codes = async (layout: string): Promise<string[]> =>
    (await cacheport(["verify", layout, "--deep", "--json"]))
      .json()
      .problems.map((problem: any) => problem.code);

  test("is checked in all that can be, and the rest is said", async () => {
    const types = [`${TAR}+gzip`, `${TAR}+gzpi`];
    expect(await codes(build(types, [diffId(0), diffId(1)]))).toEqual(["LAYER_UNCHECKED"]);
    expect(await codes(build(types, [diffId(0)]))).toEqual(["DIFF_IDS_COUNT", "LAYER_UNCHECKED"]);
    expect(await codes(build(types, [diffId(1), diffId(1)]))).toEqual([
      "DIFF_ID_MISMATCH",
      "LAYER_UNCHECKED",
    ]);
    expect(await codes(build([`${TAR}+gzpi`], []))).toEqual(["DIFF_IDS_COUNT", "LAYER_UNCHECKED"]);
  });

  test("an artifact with an empty image config is none", async () => {
    expect(await codes(build(["application/wasm"], []))).toEqual(["LAYER_UNCHECKED"]);
  });
});

describe("a copy that fails", () => {
  /** A layout with a large layer, and a manifest that wants another one as well. */
  const incomplete = (): string => {
    const layout = tempFolder();
    const config = addBlob(layout, "{}", "application/vnd.oci.empty.v1+json");
    const large = addBlob(layout, randomBytes(3_000_000), "text/plain");
    const gone = addBlob(layout, "gone", "text/plain");
    const document = { mediaType: OCI_MANIFEST, config, layers: [large, gone] };
    writeLayout(layout, [addBlob(layout, document, OCI_MANIFEST)]);
    rmSync(blobFile(layout, gone.digest), { force: true });
    return layout;
  };

  test.each([
    ["copy", (source: string, target: string) => ["copy", source, target]],
    ["copy --all", (source: string, target: string) => ["copy", "--all", source, target]],
  ])("%s leaves nothing, or a layout that opens", async (_what, args) => {
    const source = incomplete();
    const target = join(tempFolder(), "target");
    expect((await cacheport(args(source, target))).code).toBe(4);
    if (existsSync(target)) {
      const ls = await cacheport(["ls", target, "--json"]);
      expect([ls.code, ls.json()]).toEqual([0, []]);
      expect((await cacheport(["verify", target])).code).toBe(0);
    }
    // The same command goes on once the source is whole.
    addBlob(source, "gone");
    expect((await cacheport(args(source, target))).code).toBe(0);
    expect(layoutFaults(target)).toEqual([]);
  });

  test("changes nothing of a layout that is there", async () => {
    const target = tempFolder();
    writeLayout(target, [addImage(target, "old").manifest]);
    const index = readFileSync(join(target, "index.json"), "utf8");
    expect((await cacheport(["copy", incomplete(), `${target}:new`])).code).toBe(4);
    expect(readFileSync(join(target, "index.json"), "utf8")).toBe(index);
  });
});

describe("a name that stands for what is not there", () => {
  test("is answered with the manifest that lies there without a name", async () => {
    const layout = tempFolder();
    const { manifest, layer } = addImage(layout, "cache");
    const named = { annotations: { "org.opencontainers.image.ref.name": "main" } };
    writeLayout(layout, [{ ...manifest, digest: sha256("other"), ...named }]);
    for (const args of [
      ["copy", layout, join(tempFolder(), "target")],
      ["convert", layout],
      ["inspect", layout],
    ]) {
      const run = await cacheport(args);
      expect(run.code).toBe(4);
      expect(run.stderr).toContain(`cacheport tag ${layout}@${manifest.digest} main`);
    }
    const run = await cacheport(["tag", `${layout}@${manifest.digest}`, "main"]);
    expect(run.code).toBe(0);
    expect((await cacheport(["verify", `${layout}:main`])).code).toBe(0);
    // A blob that a manifest lacks is another matter.
    rmSync(blobFile(layout, layer.digest), { force: true });
    const other = await cacheport(["copy", layout, join(tempFolder(), "target")]);
    expect(other.stderr).not.toContain("cacheport tag");
  });
});

describe("copy says where it went and what it displaced", () => {
  const source = (): string => {
    const layout = tempFolder();
    const named = { annotations: { "org.opencontainers.image.ref.name": "v1" } };
    writeLayout(layout, [{ ...addImage(layout, "content").manifest, ...named }]);
    return layout;
  };

  test("to a new folder, then over other content", async () => {
    const target = join(tempFolder(), "target");
    const text = await cacheport(["copy", source(), target]);
    expect(text.stdout).toMatch(new RegExp(`^to: +folder ${target} \\(new\\)$`, "m"));
    const other = tempFolder();
    const { manifest } = addImage(other, "other");
    writeLayout(other, [manifest]);
    const dry = await cacheport(["copy", other, `${target}:v1`, "--dry-run", "--json"]);
    const from = digestOfName(target, "v1");
    const run = await cacheport(["copy", other, `${target}:v1`, "--json"]);
    for (const { to, moved } of [dry.json(), run.json()]) {
      expect(to).toEqual({ kind: "folder", location: target, new: false });
      expect(moved).toEqual([{ name: "v1", from, to: manifest.digest }]);
    }
    const again = await cacheport(["copy", other, `${target}:v1`]);
    expect(again.stdout).not.toContain("was sha256");
  });

  test("into a registry and an archive", async () => {
    const registry = await TestRegistry.start();
    try {
      const at = `${registry.domain}/a/b`;
      const first = await cacheport(["copy", source(), `${at}:v1`, "--json"]);
      expect(first.json()).toMatchObject({
        to: { kind: "registry", location: at, new: true },
        moved: [],
      });
      const other = tempFolder();
      const { manifest } = addImage(other, "other");
      writeLayout(other, [manifest]);
      const second = await cacheport(["copy", other, `${at}:v1`]);
      expect(second.stdout).toContain(`was ${first.json().digest}, now ${manifest.digest}`);
      const tar = join(tempFolder(), "x.tar");
      const third = await cacheport(["copy", `${at}:v1`, tar, "--json"]);
      expect(third.json().to).toEqual({ kind: "archive", location: tar, new: true });
      // docker load takes the image's name from the archive.
      expect(third.json().names).toEqual([`${at}:v1`]);
      const [entry] = (await cacheport(["ls", tar, "--json"])).json();
      expect([entry.imageName, entry.refName]).toEqual([`${at}:v1`, "v1"]);
    } finally {
      registry.stop();
    }
  });
});

describe("what BuildKit's import can lose of a cache", () => {
  test("is said by verify and inspect, with the command that cures it", async () => {
    const layout = fixtureCopy("leaves");
    const verify = await cacheport(["verify", layout, "--json"]);
    expect(verify.code).toBe(0);
    const [problem, ...others] = verify.json().problems;
    expect([problem.code, problem.severity, others]).toEqual(["IMPORT_LOSES_LINKS", "warning", []]);
    expect(problem.message).toContain("4 of the 24 links");
    expect(problem.message).toContain("in 2 of 2 orders");
    expect((await cacheport(["verify", layout])).stdout).toContain(`"cacheport heal ${layout}"`);
    const inspect = (await cacheport(["inspect", layout, "--json"])).json();
    expect(inspect.importLosses).toMatchObject({ links: 24, lost: 4, orders: 2, losing: 2 });
    expect(inspect.problems[0].message).toContain("cacheport heal");

    expect((await cacheport(["heal", layout])).code).toBe(0);
    expect((await cacheport(["verify", layout, "--json"])).json().problems).not.toContainEqual(
      expect.objectContaining({ code: "IMPORT_LOSES_LINKS" }),
    );
    const healed = (await cacheport(["inspect", layout, "--json"])).json();
    expect([healed.importLosses, healed.problems]).toEqual([null, []]);
  });

  test("is not said of a cache that loses nothing", async () => {
    for (const name of ["multi-cache-amd64", "app-oci-index", "dup-oci-index"]) {
      const inspect = (await cacheport(["inspect", fixture(name), "--json"])).json();
      expect([name, inspect.importLosses, inspect.problems]).toEqual([name, null, []]);
    }
  });
});

describe("an artifact manifest is shown as what it is", () => {
  test("by ls and inspect, with what it lists", async () => {
    const layout = tempFolder();
    const blob = addBlob(layout, "scan result", "text/plain");
    const document = { mediaType: ARTIFACT, artifactType: "vuln-scan", blobs: [blob] };
    writeLayout(layout, [addBlob(layout, document, ARTIFACT)]);
    const [listed] = (await cacheport(["ls", layout, "--json"])).json();
    expect([listed.kind, listed.contentSize]).toEqual(["artifact", blob.size]);
    const inspect = (await cacheport(["inspect", layout, "--json"])).json();
    expect([inspect.kind, inspect.artifactType, inspect.children]).toEqual([
      "artifact",
      "vuln-scan",
      [blob],
    ]);
  });
});

describe("inspect --conflicts", () => {
  test("shows the records that hold results with different content", async () => {
    const layout = tempFolder();
    const tar = "application/vnd.oci.image.layer.v1.tar";
    const layers = ["one", "two", "three"].map((text) => addBlob(layout, text, tar));
    const at = (layer: number, day: number) => ({
      layer,
      createdAt: `2026-01-0${day}T00:00:00Z`,
    });
    const records = [
      { layers: [at(0, 1), at(1, 2)], digest: sha256("fetch") },
      { layers: [at(2, 1), at(2, 2)], digest: sha256("same") },
    ];
    const config = addBlob(
      layout,
      { layers: layers.map(({ digest }) => ({ blob: digest, parent: -1 })), records },
      "application/vnd.buildkit.cacheconfig.v0",
    );
    writeLayout(layout, [
      addBlob(layout, { mediaType: OCI_MANIFEST, config, layers }, OCI_MANIFEST),
    ]);
    const { conflicts, kind } = (
      await cacheport(["inspect", layout, "--conflicts", "--json"])
    ).json();
    expect(kind).toBe("cache");
    expect(conflicts).toEqual([
      {
        cache: 0,
        record: 0,
        digest: sha256("fetch"),
        names: [],
        results: [
          { layer: layers[1]!.digest, createdAt: at(1, 2).createdAt },
          { layer: layers[0]!.digest, createdAt: at(0, 1).createdAt },
        ],
      },
    ]);
    const text = await cacheport(["inspect", layout, "--conflicts"]);
    expect(text.stdout).toContain("1 record has results that differ");
    expect((await cacheport(["inspect", layout, "--json"])).json().conflicts).toBeUndefined();
    const image = await cacheport(["inspect", fixture("image-dir"), "--conflicts"]);
    expect(image.code).toBe(4);
  });
});
