/** What refers to a manifest is found at its new place, and lists of it are believed with care. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Descriptor } from "../src/descriptor.ts";
import type { Digest } from "../src/digest.ts";
import { referrersTag } from "../src/registry-referrers.ts";
import { failure } from "./helpers/errors.ts";
import { openRepository, started } from "./helpers/registry-client.ts";
import { ask } from "./helpers/registry-commands.ts";
import { tempFolder } from "./helpers/temp.ts";
import { TestRegistry, sha256 } from "./helpers/test-registry.ts";
import type { TestRegistryOptions } from "./helpers/test-registry.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const EMPTY = "application/vnd.oci.empty.v1+json";

interface Stored {
  bytes: Uint8Array;
  descriptor: Descriptor;
}

function stored(document: object, mediaType = MANIFEST): Stored {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...document }));
  return { bytes, descriptor: { mediaType, digest: sha256(bytes) as Digest, size: bytes.length } };
}

const CONFIG = Buffer.from("{}");
const config = { mediaType: EMPTY, digest: sha256(CONFIG), size: 2 };
const IMAGE = stored({ config, layers: [] });
const subject = IMAGE.descriptor;
const SBOM = stored({
  artifactType: "application/spdx+json",
  config,
  layers: [config],
  subject,
  annotations: { by: "test" },
});
const SIGNATURE = stored({
  config: { ...config, mediaType: "application/x.sig" },
  layers: [],
  subject,
});

/** A layout with an image, and what refers to it, as `oras attach` leaves them. */
function layoutWith(...documents: Stored[]): string {
  const layout = tempFolder();
  mkdirSync(join(layout, "blobs", "sha256"), { recursive: true });
  const add = (bytes: Uint8Array) =>
    writeFileSync(join(layout, "blobs", "sha256", sha256(bytes).slice(7)), bytes);
  for (const { bytes } of [IMAGE, ...documents]) add(bytes);
  add(CONFIG);
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  const named = { "org.opencontainers.image.ref.name": "app" };
  const manifests = [
    { ...subject, annotations: named },
    ...documents.map(({ descriptor }) => descriptor),
  ];
  writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
  return layout;
}

async function copied(options: TestRegistryOptions, ...documents: Stored[]) {
  const registry = await started(TestRegistry.start(options));
  const at = `${registry.domain}/app`;
  const run = await ask(registry, ["copy", "--all", layoutWith(...documents), at, "--json"]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  const { tags, manifests } = registry.repository("app");
  /** The list under the tag, as another client reads it. */
  const list = () => {
    const digest = tags.get(`sha256-${subject.digest.slice(7)}`);
    return digest && JSON.parse(Buffer.from(manifests.get(digest)!.bytes).toString());
  };
  return { registry, run, at, list, tags, manifests };
}

describe("copy --all to a registry without the referrers API", () => {
  test("keeps the list under the tag, with what each referrer is", async () => {
    const { list, at } = await copied({}, SBOM, SIGNATURE);
    const { manifests, ...rest } = list();
    expect(rest).toEqual({ schemaVersion: 2, mediaType: INDEX });
    expect(
      manifests.toSorted((a: any, b: any) => a.artifactType.localeCompare(b.artifactType)),
    ).toEqual([
      {
        ...SBOM.descriptor,
        artifactType: "application/spdx+json",
        annotations: { by: "test" },
      },
      { ...SIGNATURE.descriptor, artifactType: "application/x.sig" },
    ]);
    const found = await openRepository(at).listReferrers(subject.digest);
    expect(found).toHaveLength(2);
  });

  test("adds to a list that is there, and nothing twice", async () => {
    const { registry, at, list } = await copied({}, SIGNATURE);
    for (let round = 0; round < 2; round++)
      expect((await ask(registry, ["copy", "--all", layoutWith(SBOM), at])).code).toBe(0);
    expect(list().manifests).toHaveLength(2);
  });

  test("loses no entry of writers at the same time in one program", async () => {
    const registry = await started(TestRegistry.start());
    const repository = openRepository(`${registry.domain}/app`);
    await repository.put(config as Descriptor, { bytes: CONFIG });
    const many = Array.from({ length: 8 }, (_, index) =>
      stored({ config, layers: [], subject, annotations: { n: `${index}` } }),
    );
    await Promise.all(many.map(({ descriptor, bytes }) => repository.put(descriptor, { bytes })));
    expect(await repository.listReferrers(subject.digest)).toHaveLength(8);
  });

  test("does not overwrite a tag that stands for something else", async () => {
    const registry = await started(TestRegistry.start());
    const repository = openRepository(`${registry.domain}/app`);
    await repository.put(config as Descriptor, { bytes: CONFIG });
    const other = registry.addManifest(
      "app",
      { schemaVersion: 2, mediaType: MANIFEST, config, layers: [config] },
      referrersTag(subject.digest),
    );
    const error = await failure(() => repository.put(SBOM.descriptor, { bytes: SBOM.bytes }));
    expect(error.code).toBe("REGISTRY_REJECTED");
    expect(registry.repository("app").tags.get(referrersTag(subject.digest))).toBe(other);
  });

  test("takes a deleted referrer out of the list", async () => {
    const { at, list } = await copied({}, SBOM, SIGNATURE);
    await openRepository(at).deleteManifest(SBOM.descriptor.digest);
    expect(list().manifests.map(({ digest }: any) => digest)).toEqual([
      SIGNATURE.descriptor.digest,
    ]);
  });
});

test("a registry with the referrers API gets no tag, and is asked by the API", async () => {
  const { tags, at, registry } = await copied({ referrers: true }, SBOM, SIGNATURE);
  expect([...tags.keys()]).toEqual(["app"]);
  const found = await openRepository(at).listReferrers(subject.digest);
  expect(found.map(({ digest }) => digest).toSorted()).toEqual(
    [SBOM.descriptor.digest, SIGNATURE.descriptor.digest].toSorted(),
  );
  expect(registry.requests("GET", /referrers/)).toHaveLength(1);
});

test("a registry that takes the tag for the image itself is not believed", async () => {
  const { registry, at } = await copied({});
  const own = registry.answer;
  registry.answer = (request) =>
    own({ ...request, url: request.url.replace(/manifests\/sha256-/, "manifests/sha256:") });
  const repository = openRepository(at);
  expect(await repository.listReferrers(subject.digest)).toEqual([]);
  registry.seen.length = 0;
  const lists = () => registry.requests("PUT", /manifests\/sha256-/).length;
  await failure(() => repository.put(SBOM.descriptor, { bytes: SBOM.bytes }));
  expect(lists()).toBeLessThanOrEqual(1);
});

test("an answer to the API that is a page and no list leads to the tag", async () => {
  const { registry, at } = await copied({}, SBOM);
  registry.faults.push({ path: /referrers/, times: 9, answer: { status: 200, body: "<html>" } });
  expect(await openRepository(at).listReferrers(subject.digest)).toHaveLength(1);
});

test("the tag of a long digest is cut as the specification says", () => {
  expect(referrersTag(`sha512:${"ab".repeat(64)}` as Digest)).toBe(`sha512-${"ab".repeat(32)}`);
});
