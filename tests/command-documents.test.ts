/** Documents of every kind through the commands: what they list is never left behind. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { addBlob, blobFile, readIndex, snapshot, writeLayout } from "./helpers/layout.ts";
import { tempFolder } from "./helpers/temp.ts";

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

  test("stays as it is when others get a name beside it", async () => {
    const layout = layoutWith({ digest: `blake3:${"ab".repeat(32)}`, size: 10, x: 1.5 });
    const odd = JSON.stringify(readIndex(layout).manifests[1]);
    expect((await cacheport(["copy", `${layout}:good`, `${layout}:again`])).code).toBe(0);
    expect(JSON.stringify(readIndex(layout).manifests[1])).toBe(odd);
  });
});
