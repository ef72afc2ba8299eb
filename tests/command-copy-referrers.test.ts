/** `copy --referrers`: what refers to content goes with it, from and to every kind of place. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { hasPeers, peerOutput, PEERS_REGISTRY } from "./helpers/buildkit.ts";
import { addBlob, layoutFaults, readDocument, readIndex, writeLayout } from "./helpers/layout.ts";
import { load, repositoryFaults } from "./helpers/registry-commands.ts";
import { started } from "./helpers/registry-client.ts";
import { tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const REF_NAME = "org.opencontainers.image.ref.name";
const SUBJECT = "io.containerd.manifest.subject";

/** An index of two images; an SBOM of the index, a signature of one image, and one of the SBOM. */
function signedLayout(): { layout: string; top: any; image: any; digests: string[]; tag: string } {
  const layout = tempFolder();
  const config = addBlob(layout, "{}", "application/vnd.oci.empty.v1+json");
  const make = (content: object) =>
    addBlob(
      layout,
      { schemaVersion: 2, mediaType: MANIFEST, config, layers: [], ...content },
      MANIFEST,
    );
  const layer = (text: string) => addBlob(layout, text, "application/vnd.oci.image.layer.v1.tar");
  const [image, second] = ["one", "two"].map((text) => make({ layers: [layer(text)] }));
  const top = addBlob(
    layout,
    { schemaVersion: 2, mediaType: INDEX, manifests: [image, second] },
    INDEX,
  );
  const sbom = make({ artifactType: "x/sbom", subject: top, layers: [layer("sbom")] });
  const signature = make({
    artifactType: "x/signature",
    subject: image,
    layers: [layer("signature")],
  });
  const signed = make({
    artifactType: "x/signature",
    subject: sbom,
    layers: [layer("of the sbom")],
  });
  const cosign = make({ layers: [layer("cosign")] });
  make({ artifactType: "x/other", subject: cosign, layers: [layer("stranger")] });
  const tag = `${top.digest.replace(":", "-")}.sig`;
  writeLayout(layout, [
    { ...top, annotations: { [REF_NAME]: "app" } },
    sbom,
    signature,
    { ...signed, annotations: { [SUBJECT]: sbom.digest } },
    { ...cosign, annotations: { [REF_NAME]: tag } },
  ]);
  return {
    layout,
    top,
    image,
    digests: [sbom, signature, signed, cosign].map((one) => one.digest),
    tag,
  };
}

const copy = async (...args: string[]): Promise<any> => {
  const run = await cacheport(["copy", "--referrers", "--json", ...args]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  return run.json();
};

/** Every digest that index.json lists, and that no name but the two walks over. */
function expectWhole(layout: string, { top, digests, tag }: ReturnType<typeof signedLayout>): void {
  const { manifests } = readIndex(layout);
  const listed = new Map<string, any>(manifests.map((entry: any) => [entry.digest, entry]));
  for (const digest of [top.digest, ...digests]) expect([...listed.keys()]).toContain(digest);
  const names = manifests.flatMap((entry: any) => entry.annotations?.[REF_NAME] ?? []);
  expect(names.toSorted()).toEqual(["app", tag].toSorted());
  expect(layoutFaults(layout)).toEqual([]);
}

describe("referrers travel", () => {
  test("between folders and tars, once each however often they are copied", async () => {
    const made = signedLayout();
    const [tar, back] = [join(tempFolder(), "a.tar"), join(tempFolder(), "back")];
    for (let round = 0; round < 2; round++) {
      const value = await copy(`${made.layout}:app`, tar);
      expect(value.digest).toBe(made.top.digest);
      expect(value.referrers.map((one: any) => one.digest).toSorted()).toEqual(
        made.digests.toSorted(),
      );
    }
    await copy(`${tar}:app`, back);
    expectWhole(back, made);
    expect(readIndex(back).manifests).toHaveLength(5);
    for (const digest of made.digests.slice(0, 3)) {
      const entry = readIndex(back).manifests.find((one: any) => one.digest === digest);
      expect(entry.annotations[SUBJECT]).toBe(readDocument(back, digest).subject.digest);
    }
  });

  test.each([
    ["with the referrers API", true],
    ["without it", false],
  ])("to and from a registry %s", async (_title, referrers) => {
    const made = signedLayout();
    const registry = await started(TestRegistry.start({ referrers }));
    const place = `${registry.domain}/app`;
    await copy(`${made.layout}:app`, `${place}:app`);
    const { manifests } = registry.repository("app");
    for (const digest of made.digests) expect(manifests.has(digest as any)).toBe(true);
    expect(repositoryFaults(registry, "app")).toEqual([]);
    const back = join(tempFolder(), "back");
    await copy(`${place}:app`, back);
    expectWhole(back, made);
  });

  test("between registries, one of which knows only the tag scheme", async () => {
    const made = signedLayout();
    const [from, to] = await Promise.all([
      started(TestRegistry.start({ referrers: true })),
      started(TestRegistry.start({ referrers: false })),
    ]);
    load(from, "app", made.layout);
    from.repository("app").tags.delete(undefined as never);
    await copy(`${from.domain}/app:app`, `${to.domain}/copy:app`);
    const back = join(tempFolder(), "back");
    await copy(`${to.domain}/copy:app`, back);
    expectWhole(back, made);
  });

  test("only when asked for, and not with other digests", async () => {
    const made = signedLayout();
    const plain = join(tempFolder(), "plain");
    expect((await cacheport(["copy", `${made.layout}:app`, plain])).code).toBe(0);
    expect(readIndex(plain).manifests).toHaveLength(1);
    const run = await cacheport([
      "copy",
      "--referrers",
      "--compression",
      "zstd",
      `${made.layout}:app`,
      plain,
    ]);
    expect(run.code).toBe(2);
    const dry = await copy("--dry-run", `${made.layout}:app`, plain);
    expect(dry.referrers).toHaveLength(4);
    expect(readIndex(plain).manifests).toHaveLength(1);
  });

  test.skipIf(!hasPeers)("oras discovers them in the reference registry", async () => {
    const made = signedLayout();
    const place = `${PEERS_REGISTRY}/referrers-${process.pid}-${Date.now()}`;
    await copy(`${made.layout}:app`, `${place}:app`);
    const found = await peerOutput(
      "oras",
      "discover",
      "--plain-http",
      "--format",
      "json",
      `${place}:app`,
    );
    const digests = JSON.stringify(JSON.parse(found));
    for (const digest of [made.digests[0], made.digests[2]])
      expect(digests).toContain(digest as string);
  });
});
