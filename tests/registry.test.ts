import { beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { hintOf } from "../src/cli-hints.ts";
import type { ContentReader } from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import type { Digest } from "../src/digest.ts";
import {
  CACHE_CONFIG,
  DOCKER_LIST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_GZIP,
  OCI_MANIFEST,
} from "../src/media-types.ts";
import { failure } from "./helpers/errors.ts";
import {
  describeBytes,
  noise,
  openRepository,
  readAll,
  started,
} from "./helpers/registry-client.ts";
import { tempFolder } from "./helpers/temp.ts";
import { TestRegistry, sha256 } from "./helpers/test-registry.ts";

const encoder = new TextEncoder();
const LAYER = noise(3 * 1024 * 1024 + 17);
const layer = describeBytes(LAYER, OCI_LAYER_GZIP);
const CONFIG = encoder.encode('{"layers":[]}');
const config = describeBytes(CONFIG, CACHE_CONFIG);

function document(mediaType: string, value: object) {
  const bytes = encoder.encode(JSON.stringify({ schemaVersion: 2, mediaType, ...value }));
  return { bytes, descriptor: describeBytes(bytes, mediaType) };
}
const image = document(OCI_MANIFEST, { config, layers: [layer] });
const index = document(OCI_INDEX, { manifests: [layer, config] });
const list = document(DOCKER_LIST, { manifests: [layer, config] });

/** A store that gives one blob, from a stream or from a file. */
function storeOf(bytes: Uint8Array, path?: string): ContentReader {
  return {
    location: "test",
    stat: async () => bytes.length,
    read: async () => bytes,
    open: async () =>
      new ReadableStream({
        start(controller) {
          const step = 1_000_003;
          for (let at = 0; at < bytes.length; at += step)
            controller.enqueue(bytes.subarray(at, at + step));
          controller.close();
        },
      }),
    locate: async () =>
      path === undefined ? undefined : { path, offset: 5, size: bytes.length, disposable: false },
  };
}

let registry: TestRegistry;
beforeAll(async () => {
  registry = await started(TestRegistry.start({ pageSize: 2 }));
});

let count = 0;
/** A repository of its own for each test. */
function fresh(options = {}) {
  const name = `test/r${++count}`;
  const repository = openRepository(`${registry.domain}/${name}`, options);
  return { name, repository, content: registry.repository(name) };
}

describe("put", () => {
  test("uploads a blob once, from memory, a file or a stream", async () => {
    const path = join(tempFolder(), "blob");
    writeFileSync(path, Buffer.concat([Buffer.from("12345"), LAYER, LAYER]));
    for (const source of [
      { bytes: LAYER },
      { store: storeOf(LAYER, path) },
      { store: storeOf(LAYER) },
    ]) {
      const { name, repository, content } = fresh();
      let moved = 0;
      const onBytes = (bytes: number) => (moved += bytes);
      expect(await repository.put(layer, source, { onBytes })).toBe("copied");
      expect(moved).toBe(LAYER.length);
      expect(sha256(content.blobs.get(layer.digest)!)).toBe(layer.digest);
      expect(await repository.put(layer, source)).toBe("skipped");
      const puts = registry.requests("PUT", new RegExp(name));
      expect(puts).toHaveLength(1);
      expect(puts[0]?.headers["content-length"]).toBe(String(LAYER.length));
    }
  });

  test("an empty blob is uploaded as well", async () => {
    const { repository, content } = fresh();
    const empty = describeBytes(new Uint8Array());
    const store = storeOf(new Uint8Array());
    expect(await repository.put(empty, { store })).toBe("copied");
    expect(content.blobs.get(empty.digest)).toHaveLength(0);
  });

  test("refuses bytes that are not what the descriptor says, and stores nothing", async () => {
    const wrong = Uint8Array.from(LAYER);
    wrong[wrong.length - 1]! ^= 1;
    const longer = Buffer.concat([LAYER, Buffer.from("x")]);
    const cases: [Uint8Array, string][] = [
      [wrong, "DIGEST_MISMATCH"],
      [LAYER.subarray(1), "SIZE_MISMATCH"],
      [longer, "SIZE_MISMATCH"],
    ];
    for (const [bytes, code] of cases) {
      for (const source of [{ bytes }, { store: storeOf(bytes) }]) {
        const { repository, content } = fresh();
        const error = await failure(() => repository.put(layer, source));
        expect(error.code).toBe(code as never);
        expect(content.blobs.size).toBe(0);
      }
    }
  });

  test("a wrong file is found out by the registry and told as a wrong digest", async () => {
    const wrong = Uint8Array.from(LAYER);
    wrong[7]! ^= 1;
    const path = join(tempFolder(), "blob");
    writeFileSync(path, Buffer.concat([Buffer.from("12345"), wrong]));
    const { repository, content } = fresh();
    const error = await failure(() => repository.put(layer, { store: storeOf(LAYER, path) }));
    expect(error.code).toBe("DIGEST_MISMATCH");
    expect(content.blobs.size).toBe(0);
  });

  test("mounts a blob from another repository of the same host", async () => {
    const from = fresh();
    from.content.blobs.set(layer.digest, LAYER);
    const to = fresh();
    const outcome = await to.repository.put(layer, { store: from.repository });
    expect(outcome).toBe("mounted");
    expect(registry.requests("GET", new RegExp(from.name))).toHaveLength(0);
  });

  test("streams between repositories where there is no mount, with few requests at once", async () => {
    const strange = await started(TestRegistry.start({ mount: false }));
    const blobs = Array.from({ length: 8 }, (_, seed) => noise(1_500_000, seed + 1));
    for (const blob of blobs) strange.addBlob("from", blob);
    const from = openRepository(`${strange.domain}/from`);
    const to = openRepository(`${strange.domain}/to`);
    const outcomes = await Promise.all(
      blobs.map((blob) => to.put(describeBytes(blob), { store: from })),
    );
    expect(outcomes).toEqual(blobs.map(() => "copied"));
    expect(strange.busiest).toBeLessThanOrEqual(4);
    expect(strange.repository("to").blobs.size).toBe(8);
  });

  test("one job suffices for a copy within one host", async () => {
    const strange = await started(TestRegistry.start({ mount: false }));
    strange.addBlob("from", LAYER);
    const from = openRepository(`${strange.domain}/from`, { jobs: 1 });
    const to = openRepository(`${strange.domain}/to`, { jobs: 1 });
    expect(await to.put(layer, { store: from })).toBe("copied");
  });

  test("sends pieces where the registry says so, or refuses the whole", async () => {
    const demanding = await started(TestRegistry.start({ chunkMinLength: 700_000 }));
    const first = openRepository(`${demanding.domain}/app`, { chunkSize: 10 });
    expect(await first.put(layer, { store: storeOf(LAYER) })).toBe("copied");
    expect(demanding.requests("PATCH")).toHaveLength(5);
    const path = join(tempFolder(), "blob");
    writeFileSync(path, Buffer.concat([Buffer.from("12345"), LAYER]));
    for (const source of [undefined, path]) {
      const { name, repository, content } = fresh({ chunkSize: 1024 * 1024 });
      registry.faults.push({
        method: "PUT",
        path: new RegExp(`${name}/blobs`),
        answer: { status: 413 },
      });
      await repository.put(layer, { store: storeOf(LAYER, source) });
      expect(registry.requests("PATCH", new RegExp(name))).toHaveLength(4);
      expect(sha256(content.blobs.get(layer.digest)!)).toBe(layer.digest);
    }
  });

  test("a document goes to the manifests, with its type as Content-Type", async () => {
    const { name, repository, content } = fresh();
    await repository.put(layer, { bytes: LAYER });
    await repository.put(config, { bytes: CONFIG });
    await repository.put(image.descriptor, { bytes: image.bytes });
    expect(content.manifests.has(image.descriptor.digest)).toBe(true);
    const [put] = registry.requests("PUT", new RegExp(`${name}/manifests`));
    expect(put?.headers["content-type"]).toBe(OCI_MANIFEST);
  });
});

describe("publish", () => {
  async function filled(options = {}) {
    const found = fresh(options);
    found.content.blobs.set(layer.digest, LAYER);
    found.content.blobs.set(config.digest, CONFIG);
    return found;
  }

  test("names the root with its tags, or stores it by its digest", async () => {
    const { repository, content } = await filled();
    await repository.publish([
      {
        ...image,
        names: [
          { kind: "set", name: { refName: "v1" } },
          {
            kind: "set",
            name: { imageName: `${repository.location}:v2` },
          },
        ],
      },
      { ...index, names: [{ kind: "list" }] },
    ]);
    expect([...content.tags]).toEqual([
      ["v1", image.descriptor.digest],
      ["v2", image.descriptor.digest],
    ]);
    expect(content.manifests.has(index.descriptor.digest)).toBe(true);
  });

  test("replaces a tag only while it stands for what it stood for", async () => {
    const { repository, content } = await filled();
    const names = [{ kind: "set", name: { refName: "main" } }] as const;
    await repository.publish([{ ...index, names }]);
    const { entry } = await repository.resolve({ name: "main" });
    const replace = [{ kind: "replace", entry: entry! }] as const;
    await repository.publish([{ ...image, names: replace }]);
    expect(content.tags.get("main")).toBe(image.descriptor.digest);
    const error = await failure(() => repository.publish([{ ...list, names: replace }]));
    expect(error.code).toBe("NAME_CHANGED");
    expect(content.tags.get("main")).toBe(image.descriptor.digest);
  });

  test.each([
    ["an OCI index", index],
    ["a Docker manifest list", list],
  ])("a strict registry's refusal of %s is explained", async (shape, root) => {
    const strict = await started(TestRegistry.start({ strict: true }));
    strict.addBlob("app", LAYER);
    strict.addBlob("app", CONFIG);
    const repository = openRepository(`${strict.domain}/app`);
    const names = [{ kind: "set", name: { refName: "main" } }] as const;
    const error = await failure(() => repository.publish([{ ...root, names }]));
    expect(error.code).toBe("REGISTRY_REJECTED");
    expect(error.message).toContain(`this registry does not take caches in the shape of ${shape}`);
    expect(hintOf(error)).toContain(`${strict.domain}/app:main --to image-manifest`);
    expect(strict.repository("app").tags.size).toBe(0);
    await repository.publish([{ ...image, names }]);
    expect(strict.repository("app").tags.get("main")).toBe(image.descriptor.digest);
  });
});

describe("resolve", () => {
  test("takes the digest and the type from the bytes", async () => {
    const { name, repository } = fresh();
    registry.addManifest(name, JSON.parse(decode(image.bytes)), "latest", "x/y");
    for (const query of [{}, { name: "latest" }]) {
      const { descriptor, entry } = await repository.resolve(query);
      expect(descriptor).toEqual(image.descriptor);
      expect(entry?.refName).toBe("latest");
    }
    expect(await repository.resolve({ digest: image.descriptor.digest })).toEqual({
      descriptor: image.descriptor,
      entry: undefined,
    });
    const both = await repository.resolve({
      name: "latest",
      digest: image.descriptor.digest,
    });
    expect(both.entry?.refName).toBe("latest");
  });

  test("a document without a type has the one of the Content-Type, else of its form", async () => {
    const { name, repository } = fresh();
    registry.addManifest(name, { manifests: [] }, "a", `${OCI_INDEX}; x=y`);
    registry.addManifest(name, { manifests: [], x: 1 }, "b", "text/plain");
    const { descriptor } = await repository.resolve({ name: "a" });
    expect(descriptor.mediaType).toBe(OCI_INDEX);
    const other = await repository.resolve({ name: "b" });
    expect(other.descriptor.mediaType).toBe(OCI_INDEX);
  });

  test("a document that was resolved is not fetched again", async () => {
    const { name, repository } = fresh();
    registry.addManifest(name, JSON.parse(decode(image.bytes)), "latest");
    const { descriptor } = await repository.resolve({});
    await repository.read(descriptor, 4096);
    expect(registry.requests("GET", new RegExp(name))).toHaveLength(1);
    const wrong = { ...descriptor, size: 3 };
    expect((await failure(() => repository.read(wrong, 4096))).code).toBe("SIZE_MISMATCH");
  });

  test("says which tags there are when the one asked for is not", async () => {
    const { name, repository } = fresh();
    registry.addManifest(name, JSON.parse(decode(image.bytes)), "main");
    const error = await failure(() => repository.resolve({ name: "nope" }));
    expect(error.code).toBe("NAME_NOT_FOUND");
    expect(error.hint).toBe("The tags there are: main");
    const none = openRepository(`${registry.domain}/no/such`);
    expect((await failure(() => none.resolve({}))).code).toBe("NAME_NOT_FOUND");
    expect((await failure(() => none.list())).code).toBe("LOCATION_NOT_FOUND");
  });

  test("a digest may name a blob", async () => {
    const { repository, content } = fresh();
    content.blobs.set(layer.digest, LAYER);
    const { descriptor } = await repository.resolve({ digest: layer.digest });
    expect(descriptor.size).toBe(LAYER.length);
    expect(await readAll(await repository.open(descriptor))).toEqual(Buffer.from(LAYER));
    const error = await failure(() => repository.resolve({ digest: config.digest }));
    expect(error.code).toBe("BLOB_NOT_FOUND");
  });

  test("a digest header that lies is found out", async () => {
    const { name, repository } = fresh();
    registry.addManifest(name, JSON.parse(decode(image.bytes)), "latest");
    registry.faults.push({
      method: "GET",
      path: new RegExp(`${name}/manifests`),
      answer: {
        status: 200,
        headers: { "docker-content-digest": layer.digest },
        body: image.bytes,
      },
    });
    const error = await failure(() => repository.resolve({}));
    expect(error.code).toBe("DIGEST_MISMATCH");
  });

  test("a document over the limit is refused while it arrives", async () => {
    const { name, repository } = fresh({
      limits: { manifest: 100, config: 100, depth: 8 },
    });
    registry.addManifest(name, JSON.parse(decode(image.bytes)), "latest");
    const error = await failure(() => repository.resolve({}));
    expect(error.code).toBe("DOCUMENT_TOO_LARGE");
    expect((await failure(() => repository.read(layer, 10))).code).toBe("DOCUMENT_TOO_LARGE");
  });
});

describe("reading", () => {
  test("the content's own type decides where it is asked for", async () => {
    const { name, repository, content } = fresh();
    content.blobs.set(config.digest, CONFIG);
    content.manifests.set(image.descriptor.digest, {
      mediaType: OCI_MANIFEST,
      bytes: image.bytes,
    });
    expect(await repository.read(config, 4096)).toEqual(Buffer.from(CONFIG));
    await repository.read(image.descriptor, 4096);
    const asked = registry
      .requests("GET", new RegExp(name))
      .map(({ url }) => url.split("/").at(-2));
    expect(asked).toEqual(["blobs", "manifests"]);
    const untyped = { ...layer, mediaType: "" };
    content.blobs.set(layer.digest, LAYER);
    expect(await repository.stat(untyped)).toBe(LAYER.length);
    expect(await readAll(await repository.open(untyped))).toHaveLength(LAYER.length);
  });

  test("what is not there is missing", async () => {
    const { repository } = fresh();
    expect(await repository.stat(layer)).toBeUndefined();
    expect(await repository.locate()).toBeUndefined();
    for (const run of [() => repository.read(config, 4096), () => repository.open(layer)])
      expect((await failure(run)).code).toBe("BLOB_MISSING");
  });

  test("a stream that is given up leaves its place to others", async () => {
    const { repository, content } = fresh({ jobs: 1 });
    content.blobs.set(layer.digest, LAYER);
    for (let round = 0; round < 3; round++) {
      const stream = await repository.open(layer);
      const reader = stream.getReader();
      expect((await reader.read()).value?.length).toBeGreaterThan(0);
      await reader.cancel();
    }
  });
});

describe("names", () => {
  test("list reads all pages and describes each tag", async () => {
    const { name, repository } = fresh();
    const tags = ["a", "b", "c", "d", "e"];
    for (const tag of tags) registry.addManifest(name, JSON.parse(decode(image.bytes)), tag);
    const entries = await repository.list();
    expect(entries.map((entry) => entry.refName)).toEqual(tags);
    expect(entries[0]?.descriptor).toEqual(image.descriptor);
  });

  test("a next page on another host or without end is refused", async () => {
    const { name, repository } = fresh();
    registry.repository(name).tags.set("a", layer.digest);
    for (const link of ["http://other.test/v2/x/tags/list", "?n=1"]) {
      registry.faults.push({
        path: new RegExp(`${name}/tags/list`),
        times: link.startsWith("http") ? 1 : 100,
        answer: {
          status: 200,
          headers: { link: `<${link}>; rel=next` },
          body: '{"tags":["a"]}',
        },
      });
      const error = await failure(() => repository.listNames());
      expect(error.code).toBe("REGISTRY_FAILED");
    }
    registry.faults.length = 0;
  });

  test("deletes a tag, and a manifest with its tags", async () => {
    const { name, repository, content } = fresh();
    for (const tag of ["a", "b"]) registry.addManifest(name, JSON.parse(decode(image.bytes)), tag);
    await repository.deleteTag("a");
    expect([...content.tags.keys()]).toEqual(["b"]);
    await repository.deleteManifest(image.descriptor.digest);
    expect(content.tags.size + content.manifests.size).toBe(0);
    expect((await failure(() => repository.deleteTag("a"))).code).toBe("NAME_NOT_FOUND");
  });

  test("a name that holds no tag of this repository is refused", async () => {
    const { repository } = fresh();
    for (const name of ["", "a b", "x/y", "../z"])
      expect((await failure(() => repository.resolve({ name }))).code).toBe("REFERENCE_INVALID");
  });
});

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

test("the image config of a document is read as a blob", async () => {
  const { repository, content } = fresh();
  const bytes = encoder.encode("{}");
  const descriptor: Descriptor = {
    mediaType: OCI_CONFIG,
    digest: sha256(bytes) as Digest,
    size: 2,
  };
  content.blobs.set(descriptor.digest, bytes);
  expect(await repository.read(descriptor, 10)).toHaveLength(2);
});
