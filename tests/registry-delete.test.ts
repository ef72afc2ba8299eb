/** Deleting one tag deletes nothing that anything else names, whatever the registry can do. */
import { describe, expect, test } from "bun:test";
import type { Digest } from "../src/digest.ts";
import { failure } from "./helpers/errors.ts";
import { openRepository, started } from "./helpers/registry-client.ts";
import { TestRegistry, sha256 } from "./helpers/test-registry.ts";
import type { Answer } from "./helpers/test-registry.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";

const refused = (status: number, code: string): Answer => ({
  status,
  body: JSON.stringify({ errors: [{ code, message: code }] }),
});
/** The reference registry, version 2: digests alone. */
const DIGESTS_ONLY = { tag: refused(400, "DIGEST_INVALID") };
const NOTHING = { tag: refused(405, "UNSUPPORTED"), manifest: refused(405, "UNSUPPORTED") };
const ODD = { tag: refused(400, "DIGEST_INVALID"), manifest: refused(400, "DIGEST_INVALID") };

async function filled(deletion = {}) {
  const registry = await started(TestRegistry.start({ deletion }));
  const config = { mediaType: "x/y", digest: registry.addBlob("app", Buffer.from("c")), size: 1 };
  const add = (content: object, tag?: string, mediaType = MANIFEST) =>
    registry.addManifest("app", { schemaVersion: 2, mediaType, ...content }, tag) as Digest;
  const one = add({ config, layers: [] }, "one");
  const { tags, manifests } = registry.repository("app");
  return {
    registry,
    add,
    config,
    one,
    tags,
    manifests,
    repository: openRepository(`${registry.domain}/app`),
  };
}

describe("deleteTag", () => {
  test("deletes by name where that is possible, in one request", async () => {
    const { registry, repository, tags, manifests, one } = await filled();
    expect(await repository.deleteTag("one")).toBe("tag");
    expect([tags.size, manifests.has(one)]).toEqual([0, true]);
    expect(registry.requests("DELETE")).toHaveLength(1);
  });

  test("deletes the manifest where nothing else names it", async () => {
    const { repository, tags, manifests } = await filled(DIGESTS_ONLY);
    expect(await repository.deleteTag("one")).toBe("manifest");
    expect([tags.size, manifests.size]).toEqual([0, 0]);
  });

  test("leaves the manifest where another tag, an index or a referrer names it", async () => {
    for (const kind of ["tag", "index", "nested", "referrer"]) {
      const { repository, tags, manifests, one, add, config } = await filled(DIGESTS_ONLY);
      const entry = { mediaType: MANIFEST, digest: one, size: manifests.get(one)!.bytes.length };
      if (kind === "tag") tags.set("two", one);
      if (kind === "index") add({ manifests: [entry] }, "two", INDEX);
      if (kind === "nested") {
        const inner = add({ manifests: [entry] }, undefined, INDEX);
        const size = manifests.get(inner)!.bytes.length;
        add({ manifests: [{ mediaType: INDEX, digest: inner, size }] }, "two", INDEX);
      }
      if (kind === "referrer") {
        const referrer = add({ config, layers: [], subject: entry });
        const size = manifests.get(referrer)!.bytes.length;
        const list = { manifests: [{ mediaType: MANIFEST, digest: referrer, size }] };
        add(list, `sha256-${one.slice(7)}`, INDEX);
      }
      const [others, before] = [tags.size - 1, manifests.size];
      expect(await repository.deleteTag("one")).toBe("placeholder");
      // Every document is still there, the placeholder is gone, and so is the one tag.
      expect([tags.has("one"), tags.size, manifests.has(one)]).toEqual([false, others, true]);
      expect(manifests.size).toBe(before);
    }
  });

  test.each([
    ["405", NOTHING],
    ["400 to everything", ODD],
  ])(
    "ends with exit code 5 and changes nothing where %s is all that comes",
    async (_, deletion) => {
      const { registry, repository, tags, one } = await filled(deletion);
      tags.set("two", one);
      const error = await failure(() => repository.deleteTag("one"));
      expect([error.code, error.exitCode]).toEqual(["REGISTRY_UNSUPPORTED", 5]);
      expect(Object.fromEntries(tags)).toEqual({ one, two: one });
      expect(registry.requests("PUT")).toEqual([]);
    },
  );

  test("gives the tag back when the placeholder cannot be deleted after all", async () => {
    const { registry, repository, tags, one } = await filled(DIGESTS_ONLY);
    tags.set("two", one);
    let deletions = 0;
    const own = registry.answer;
    registry.answer = (request) =>
      request.method === "DELETE" && ++deletions === 3 ? refused(403, "DENIED") : own(request);
    expect((await failure(() => repository.deleteTag("one"))).code).toBe("REGISTRY_DENIED");
    expect(Object.fromEntries(tags)).toEqual({ one, two: one });
  });

  test("a tag that is not there is told", async () => {
    for (const deletion of [{}, DIGESTS_ONLY]) {
      const { repository } = await filled(deletion);
      expect((await failure(() => repository.deleteTag("none"))).code).toBe("NAME_NOT_FOUND");
    }
  });
});

test("deleteManifest takes its tags along, and says where nothing can be deleted", async () => {
  const { repository, tags, one } = await filled();
  await repository.deleteManifest(one);
  expect(tags.size).toBe(0);
  expect((await failure(() => repository.deleteManifest(one))).code).toBe("BLOB_NOT_FOUND");
  const other = await filled(NOTHING);
  const error = await failure(() => other.repository.deleteManifest(other.one));
  expect([error.code, error.exitCode]).toEqual(["REGISTRY_UNSUPPORTED", 5]);
});

describe("publishIfAbsent", () => {
  test("writes a tag that is not there and leaves one that is", async () => {
    const { registry, repository, tags, manifests, one } = await filled();
    const { bytes } = manifests.get(one)!;
    const root = { descriptor: { mediaType: MANIFEST, digest: one, size: bytes.length }, bytes };
    expect(await repository.publishIfAbsent(root, "new")).toBeUndefined();
    expect(tags.get("new")).toBe(one);
    expect(registry.requests("PUT").at(-1)?.headers["if-none-match"]).toBe("*");
    const other = Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, layers: [] }),
    );
    const descriptor = { mediaType: MANIFEST, digest: sha256(other) as Digest, size: other.length };
    const puts = registry.requests("PUT").length;
    const present = await repository.publishIfAbsent({ descriptor, bytes: other }, "new");
    expect(present?.digest).toBe(one);
    expect(registry.requests("PUT")).toHaveLength(puts);
  });

  test("takes the registry's word when another writer was there first", async () => {
    const { registry, repository, tags, manifests, one } = await filled();
    const { bytes } = manifests.get(one)!;
    const root = { descriptor: { mediaType: MANIFEST, digest: one, size: bytes.length }, bytes };
    registry.faults.push({
      method: "PUT",
      path: /manifests/,
      answer: () => {
        tags.set("new", one);
        return { status: 412 };
      },
    });
    expect((await repository.publishIfAbsent(root, "new"))?.digest).toBe(one);
  });
});
