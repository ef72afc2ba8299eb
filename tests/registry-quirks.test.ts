/** Registries with the quirks of those that exist: what is copied is there, whatever they answer. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Digest } from "../src/digest.ts";
import { failure } from "./helpers/errors.ts";
import { describeBytes, noise, openRepository, started } from "./helpers/registry-client.ts";
import { ask, repositoryFaults } from "./helpers/registry-commands.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry, sha256 } from "./helpers/test-registry.ts";
import type { TestRegistryOptions } from "./helpers/test-registry.ts";

const LAYER = noise(2_500_000);
const layer = describeBytes(LAYER);

function storeOf(bytes: Uint8Array) {
  return {
    location: "test",
    stat: async () => bytes.length,
    read: async () => bytes,
    locate: async () => undefined,
    open: async () => new Blob([bytes as Uint8Array<ArrayBuffer>]).stream(),
  };
}

async function pushed(options: TestRegistryOptions, chunkSize = 700_000) {
  const registry = await started(TestRegistry.start(options));
  const repository = openRepository(`${registry.domain}/app`, { chunkSize });
  const put = () => repository.put(layer, { store: storeOf(LAYER) });
  return { registry, repository, put, blobs: registry.repository("app").blobs };
}

describe("an upload", () => {
  test.each([200, 201, 204])("is not ended by a PATCH that is answered %d", async (patchStatus) => {
    const { registry, put, blobs } = await pushed({ patchStatus, chunkMinLength: 10 });
    expect(await put()).toBe("copied");
    expect(sha256(blobs.get(layer.digest)!)).toBe(layer.digest);
    expect(registry.requests("PATCH")).toHaveLength(4);
    expect(registry.requests("PUT")).toHaveLength(1);
  });

  test.each(["short", "relative", "off by one"] as const)(
    "sends each piece once where the Range is %s",
    async (range) => {
      const { registry, put, blobs } = await pushed({ range, chunkMinLength: 10 });
      expect(await put()).toBe("copied");
      expect(sha256(blobs.get(layer.digest)!)).toBe(layer.digest);
      const pieces = registry.requests("PATCH").map(({ headers }) => headers["content-range"]);
      expect(pieces).toEqual(["0-699999", "700000-1399999", "1400000-2099999", "2100000-2499999"]);
    },
  );

  test("goes on from what a registry took that took only a part", async () => {
    const { put, blobs } = await pushed({ range: "partial", chunkMinLength: 10 });
    expect(await put()).toBe("copied");
    expect(sha256(blobs.get(layer.digest)!)).toBe(layer.digest);
  });

  test("goes by one PATCH where the whole blob in one PUT is refused", async () => {
    const { registry, put, blobs } = await pushed({ patchOnly: true });
    expect(await put()).toBe("copied");
    expect(sha256(blobs.get(layer.digest)!)).toBe(layer.digest);
    expect(registry.requests("PATCH")).toHaveLength(1);
  });

  test("never says that a repository is not there that took the POST", async () => {
    const { registry, put } = await pushed({});
    registry.faults.push({ method: "PUT", path: /uploads/, times: 9, answer: { status: 404 } });
    registry.faults.push({ method: "PATCH", path: /uploads/, times: 9, answer: { status: 404 } });
    const error = await failure(put);
    expect(error.code).toBe("REGISTRY_FAILED");
    expect(error.message).not.toContain("no such repository");
    expect(registry.requests("PATCH")).toHaveLength(1);
  });

  test("that is answered 202 counts when the blob is there", async () => {
    const { registry, put } = await pushed({});
    registry.faults.push({ method: "PUT", path: /uploads/, answer: { status: 202 } });
    expect(await put()).toBe("copied");
    expect(registry.requests("PUT")).toHaveLength(2);
  });

  test("of a sha512 blob counts where the registry names it by sha256", async () => {
    const { registry, repository } = await pushed({ canonical: "sha256" });
    const digest = `sha512:${createHash("sha512").update(LAYER).digest("hex")}` as Digest;
    const put = () => repository.put({ ...layer, digest }, { store: storeOf(LAYER) });
    expect(await put()).toBe("copied");
    registry.faults.push({ method: "HEAD", path: /blobs/, times: 9, answer: { status: 404 } });
    expect((await failure(put)).code).toBe("REGISTRY_REJECTED");
  });
});

describe("an answer to HEAD is a hint", () => {
  test.each([403, 405, 500, 503, "zero", "wrong"] as const)("%s", async (head) => {
    const registry = await started(TestRegistry.start({ head }));
    const at = `${registry.domain}/team/cache`;
    const layout = fixture("app-image-manifest");
    const first = await ask(registry, ["copy", layout, `${at}:a`, "--json"]);
    expect([first.code, first.stderr]).toEqual([0, ""]);
    expect(repositoryFaults(registry, "team/cache")).toEqual([]);
    const again = await ask(registry, ["copy", layout, `${at}:a`, "--json"]);
    expect(again.code).toBe(0);
    // Where HEAD fails in itself the blobs are sent again, which costs and harms nothing.
    if (head !== 500 && head !== 503) expect(again.json().blobs.copied).toBe(0);
    const listed = await ask(registry, ["ls", at, "--json"]);
    expect([listed.code, listed.json()[0].kind]).toEqual([0, "cache"]);
    const checked = await ask(registry, ["verify", `${at}:a`, "--json"]);
    expect(checked.json()).toMatchObject({ ok: true, problems: [] });
    const back = join(tempFolder(), "back");
    expect((await ask(registry, ["copy", `${at}:a`, back])).code).toBe(0);
  });
});

test("a layer of any JSON type is read as the blob that it is", async () => {
  const registry = await started(TestRegistry.start({ manifestFault: true }));
  for (const mediaType of ["application/json", "", "application/vnd.acme.manifest.v1+json"]) {
    const bytes = Buffer.from(`{"type":"${mediaType}"}`);
    const config = Buffer.from("{}");
    const digest = registry.addBlob("app", bytes);
    registry.addManifest(
      "app",
      {
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: {
          mediaType: "application/vnd.oci.empty.v1+json",
          digest: registry.addBlob("app", config),
          size: 2,
        },
        layers: [{ mediaType, digest, size: bytes.length }],
      },
      "x",
    );
    const target = join(tempFolder(), "layout");
    const run = await ask(registry, ["copy", `${registry.domain}/app:x`, target]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.requests.filter((line) => line.includes(digest))).toEqual([
      `GET app/blobs/${digest}`,
    ]);
  }
});
