/** Registries with the quirks of those that exist: what is copied is there, whatever they answer. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
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

test.each([403, 405, 500, "zero", "wrong"] as const)(
  "a blob that is asked for by its digest has the size of its bytes, whatever HEAD says: %s",
  async (head) => {
    const registry = await started(TestRegistry.start({ head, manifestFault: true }));
    const bytes = Buffer.from('{"a":"blob"}');
    const at = `${registry.domain}/app@${registry.addBlob("app", bytes)}`;
    const run = await ask(registry, ["resolve", at, "--json"]);
    expect([run.code, run.json().size]).toEqual([0, bytes.length]);
    expect((await ask(registry, ["cat", at])).stdout).toBe(bytes.toString());
  },
);

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

/** A repository with some tags. */
async function tagged(count: number, options: TestRegistryOptions) {
  const registry = await started(TestRegistry.start(options));
  for (let index = 0; index < count; index++)
    registry.addManifest("app", { schemaVersion: 2, layers: [] }, `t${1000 + index}`);
  const at = `${registry.domain}/app`;
  return { registry, at, tags: () => openRepository(at).listNames() };
}

describe("a list of tags", () => {
  test.each([
    [500, ["n=1000", "n=100"]],
    [50, ["n=1000", "n=100", ""]],
  ])("is asked for in smaller pages where more than %d are refused", async (largestPage, asked) => {
    const { registry, tags } = await tagged(5, { largestPage });
    expect(await tags()).toHaveLength(5);
    const queries = registry.requests("GET", /tags/).map(({ url }) => url.split("?")[1] ?? "");
    expect(queries).toEqual(asked);
  });

  test.each([
    ["of the inner host", (target: string) => `<http://registry.inner:8080${target}>; rel="next"`],
    ["without rel", (target: string) => `<${target}>`],
    ["with several relations", (target: string) => `<${target}>; rel="next last"`],
    ["without quotes, among others", (target: string) => `</x>; rel=prev, <${target}>; rel=next`],
  ])("goes on by a Link %s", async (_, link) => {
    const { tags } = await tagged(5, { pageSize: 2, link });
    expect(await tags()).toEqual(["t1000", "t1001", "t1002", "t1003", "t1004"]);
  });

  test("of a page that has a million is refused at once", async () => {
    const { registry, at } = await tagged(1, {});
    const names = Array.from({ length: 1_000_000 }, (_, index) => `"t${index}"`);
    registry.faults.push({
      path: /tags/,
      times: 9,
      answer: { status: 200, body: `{"name":"app","tags":[${names.join(",")}]}` },
    });
    const run = await ask(registry, ["ls", at, "--json"]);
    expect(run.json().error).toMatchObject({ code: "REGISTRY_FAILED" });
    expect(run.requests).toHaveLength(1);
  });

  test("on one thing costs one document, however many there are", async () => {
    const { registry, at } = await tagged(200, {});
    const run = await ask(registry, ["ls", at, "--json"]);
    expect(run.json()).toHaveLength(200);
    expect(run.requests.filter((line) => line.startsWith("GET"))).toHaveLength(2);
  });
});

test("ls --names asks for the pages of the list and nothing else", async () => {
  const { registry, at } = await tagged(200, { pageSize: 90 });
  const run = await ask(registry, ["ls", at, "--names"]);
  expect(run.stdout.trimEnd().split("\n")).toHaveLength(200);
  expect(run.requests.filter((line) => !line.includes("tags/list"))).toEqual([]);
  expect(run.requests).toHaveLength(3);
  const json = await ask(registry, ["ls", at, "--names", "--json"]);
  expect(json.json().slice(0, 2)).toEqual(["t1000", "t1001"]);
  const layout = await ask(registry, ["ls", fixture("app-oci-index"), "--names"]);
  expect(layout.stdout).toBe("latest\n");
});

describe("what a server says", () => {
  test("in Warning headers is shown once each, redacted and in one line", async () => {
    const registry = await started(
      TestRegistry.start({ basic: { username: "u", password: "s3cret" } }),
    );
    registry.addManifest("app", { schemaVersion: 2, layers: [] }, "a");
    const own = registry.answer;
    registry.answer = async (request) => {
      const answer = await own(request);
      if (answer.status === 401) return answer;
      const warning = '299 - "Old \\"api\\"; s3cret", 299 - "Second", 110 - "stale"';
      return { ...answer, headers: { ...answer.headers, warning } };
    };
    const args = ["ls", `${registry.domain}/app`, "--username", "u", "--password-stdin"];
    const run = await ask(registry, args, { stdin: "s3cret" });
    expect(run.code).toBe(0);
    const lines = run.stderr.trimEnd().split("\n");
    expect(lines.map((line) => line.replace(/^.*warns: /, ""))).toEqual([
      'Old "api"; [secret]',
      "Second",
    ]);
  });

  test.each([
    [
      "<html><head><style>x{}</style><title>T</title></head><h1>Quota &nbsp; reached</h1>",
      "Quota reached",
    ],
    ['{"message":"namespace is archived"}', "namespace is archived"],
    ['{"error":{"code":17,"message":"no seat","detail":"left"}}', "no seat: left"],
    ["plain\u001b[31m words\n here", "plain [31m words here"],
  ])("outside of its form for errors is shown: %s", async (body, words) => {
    const registry = await started(TestRegistry.start());
    registry.faults.push({ path: /manifests/, times: 9, answer: { status: 418, body } });
    const run = await ask(registry, ["resolve", `${registry.domain}/app:a`, "--json"]);
    expect(run.json().error.message).toContain(`(418 ${words})`);
  });

  test("at length is cut", async () => {
    const registry = await started(TestRegistry.start());
    const body = "word ".repeat(10_000);
    registry.faults.push({ path: /manifests/, times: 9, answer: { status: 418, body } });
    const run = await ask(registry, ["resolve", `${registry.domain}/app:a`, "--json"]);
    expect(run.json().error.message.length).toBeLessThan(500);
  });
});

test.each([
  ["text/html", "<html><body>Please <b>log in</b> to the wireless network</body></html>", "log in"],
  ["application/json", '{"error":"login required"}', "login required"],
  ["application/vnd.oci.image.manifest.v1+json", "[]", ""],
  ["application/json", '"ok"', "ok"],
  ["text/plain", "", "empty"],
])("a success of the type %s that is no manifest gets no tag", async (type, body, words) => {
  const portal = await started(TestRegistry.start());
  const headers = { "content-type": type };
  portal.faults.push({ path: /manifests/, times: 99, answer: { status: 200, headers, body } });
  const target = join(tempFolder(), "layout");
  const run = await ask(portal, ["copy", `${portal.domain}/app:a`, target, "--json"]);
  expect(run.code).toBe(4);
  expect(run.json().error.code).toBe("DOCUMENT_INVALID");
  expect(run.json().error.message).toContain(words);
  expect(existsSync(join(target, "index.json"))).toBeFalse();
});

test("a page that answers everything takes no content", async () => {
  const portal = await started(TestRegistry.start());
  const page = { status: 200, headers: { "content-type": "text/html" }, body: "<p>Log in</p>" };
  portal.answer = ({ url }) => (url === "/v2/" ? { status: 200 } : page);
  const layout = fixture("app-image-manifest");
  const run = await ask(portal, ["copy", layout, `${portal.domain}/app:a`, "--json"]);
  expect(run.code).not.toBe(0);
  const registry = await started(TestRegistry.start());
  registry.faults.push({ method: "PUT", path: /manifests/, times: 99, answer: page });
  const put = await ask(registry, ["copy", layout, `${registry.domain}/app:a`, "--json"]);
  expect([put.code, put.json().error.code]).toEqual([1, "REGISTRY_FAILED"]);
  expect(put.json().error.message).toContain("Log in");
});

test("a Location without the registry's port is taken to its port, and that is said", async () => {
  const registry = await started(TestRegistry.start());
  const own = registry.answer;
  registry.answer = async (request) => {
    const answer = await own(request);
    const location = answer.headers?.["location"];
    return location === undefined
      ? answer
      : { ...answer, headers: { ...answer.headers, location: `http://127.0.0.1${location}` } };
  };
  const at = `${registry.domain}/team/cache:a`;
  const run = await ask(registry, ["copy", fixture("app-image-manifest"), at]);
  expect(run.code).toBe(0);
  expect(repositoryFaults(registry, "team/cache")).toEqual([]);
  expect(run.stderr.match(/without its port/g)).toHaveLength(1);
});

test.each(["absent", "promised", "failed"] as const)(
  "blobs that the registry says it has and cannot give (%s) are found, and sent with --check-target",
  async (lostAs) => {
    const lost = new Set<string>();
    const registry = await started(TestRegistry.start({ lost, lostAs }));
    const at = `${registry.domain}/team/cache:a`;
    const layout = fixture("app-image-manifest");
    expect((await ask(registry, ["copy", layout, at])).code).toBe(0);
    const blobs = [...registry.repository("team/cache").blobs];
    const [digest] = blobs.find(([, bytes]) => bytes.length > 1_000_000)!;
    lost.add(digest);
    const believed = await ask(registry, ["copy", layout, at, "--json"]);
    expect(believed.json().blobs.copied).toBe(0);
    const checked = await ask(registry, ["verify", at, "--json"]);
    const code = lostAs === "absent" ? "BLOB_MISSING" : "BLOB_UNREADABLE";
    expect([checked.code, checked.json().ok]).toEqual([4, false]);
    expect(checked.json().problems).toMatchObject([{ code, digest }]);
    const target = join(tempFolder(), "layout");
    const copied = await ask(registry, ["copy", at, target, "--json"]);
    expect([copied.code, copied.json().error.code]).toEqual([4, code]);
    const proved = await ask(registry, ["copy", layout, at, "--check-target", "--json"]);
    expect([proved.code, proved.json().blobs.copied]).toEqual([0, 1]);
    expect((await ask(registry, ["verify", at])).code).toBe(0);
  },
);

describe("misleading words", () => {
  test.each([
    ["no certificate", "hello\n", "no certificate in PEM form"],
    ["a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate"],
    ["a damaged one", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged"],
    ["nothing", "", "no certificate"],
  ])("a --ca-file with %s is told as that", async (_, text, words) => {
    const registry = await started(TestRegistry.start());
    const path = join(tempFolder(), "ca.pem");
    writeFileSync(path, text);
    const run = await ask(registry, ["ls", `${registry.domain}/app`, "--ca-file", path, "--json"]);
    expect(run.code).toBe(2);
    expect(run.json().error.message).toContain(words);
  });

  test.each(["127.0.0.1:99999/app", "[fe80::1]/app:a"])("%s is wrong usage", async (at) => {
    const registry = await started(TestRegistry.start());
    const run = await ask(registry, ["ls", at, "--json"]);
    expect([run.code, run.json().error.code === "INTERNAL"]).toEqual([2, false]);
  });

  test("a port that is silent to TLS is asked once", async () => {
    let connections = 0;
    const silent = createServer(() => (connections += 1)).listen(0, "127.0.0.1");
    await new Promise((resolve) => silent.once("listening", resolve));
    const { port } = silent.address() as AddressInfo;
    const repository = openRepository(`127.0.0.1:${port}/app`, { insecure: true, deadlineMs: 600 });
    const error = await failure(() => repository.listNames());
    silent.close();
    expect(error.message).toContain("does not answer to TLS");
    expect(connections).toBe(1);
  });
});
