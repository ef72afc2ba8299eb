/** Documents of every kind through the commands: what they list is never left behind. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { addBlob, blobFile, writeLayout } from "./helpers/layout.ts";
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
