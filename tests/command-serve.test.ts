/** The served registry, asked as the OCI distribution specification's conformance tests ask. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { CONTRACTS } from "../src/cli-contracts.ts";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import {
  addBlob,
  blobFile,
  layoutFaults,
  readDocument,
  readIndex,
  writeLayout,
} from "./helpers/layout.ts";
import { noise } from "./helpers/registry-client.ts";
import { serve } from "./helpers/served.ts";
import type { Served } from "./helpers/served.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { sha256 } from "./helpers/test-registry.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const APP = "app-image-manifest";

const fixtureDigest = (name: string): string => readIndex(fixture(name)).manifests[0].digest;

const errorCode = async (response: Response): Promise<string> =>
  ((await response.json()) as any).errors[0].code;

describe("pull", () => {
  test("a manifest by tag and by digest, with its type and digest", async () => {
    await using registry = await serve("--name", "team/app", fixture(APP));
    const digest = fixtureDigest(APP);
    const bytes = readFileSync(blobFile(fixture(APP), digest));
    for (const reference of ["latest", digest]) {
      const path = `/v2/team/app/manifests/${reference}`;
      const found = await registry.ask(path);
      expect(found.status).toBe(200);
      expect(Buffer.from(await found.arrayBuffer())).toEqual(bytes);
      const head = await registry.ask(path, { method: "HEAD" });
      expect(await head.text()).toBe("");
      for (const { headers } of [found, head]) {
        expect(headers.get("content-type")).toBe(MANIFEST);
        expect(headers.get("docker-content-digest")).toBe(digest);
        expect(headers.get("content-length")).toBe(String(bytes.length));
      }
    }
    expect((await registry.ask("/v2/")).status).toBe(200);
  });

  test.each([
    ["/v2/app/manifests/nothing", 404, "MANIFEST_UNKNOWN"],
    [`/v2/app/manifests/sha256:${"0".repeat(64)}`, 404, "MANIFEST_UNKNOWN"],
    [`/v2/app/blobs/sha256:${"0".repeat(64)}`, 404, "BLOB_UNKNOWN"],
    ["/v2/app/blobs/sha256:12", 400, "DIGEST_INVALID"],
    ["/v2/app/blobs/..%2f..%2findex.json", 400, "DIGEST_INVALID"],
    ["/v2/other/manifests/latest", 404, "NAME_UNKNOWN"],
    ["/v2/other/tags/list", 404, "NAME_UNKNOWN"],
    ["/v2/app/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"],
    ["/v2/app/nothing", 404, "UNSUPPORTED"],
    ["/", 404, "UNSUPPORTED"],
    ["/v2/%E0%A4%A/tags/list", 400, "UNSUPPORTED"],
  ])("%s is answered with %d %s", async (path, status, code) => {
    await using registry = await serve("--name", "app", fixture(APP));
    const response = await registry.ask(path);
    expect(response.status).toBe(status);
    expect(await errorCode(response)).toBe(code);
  });

  test.each([
    ["bytes=0-9", 206, 0, 10],
    ["bytes=10-", 206, 10, undefined],
    ["bytes=-5", 206, -5, undefined],
    ["bytes=5-5", 206, 5, 6],
    ["bytes=0-99999999", 206, 0, undefined],
    ["bytes=9-3", 200, 0, undefined],
    ["bytes=0-1,3-4", 200, 0, undefined],
    ["lines=0-1", 200, 0, undefined],
  ])(
    "a blob asked for with %s, from a folder, a tar and a compressed tar",
    async (range, status, start, end) => {
      const folder = tempFolder();
      const [tar, packed] = [join(folder, "a.tar"), join(folder, "b.tar.gz")];
      for (const path of [tar, packed])
        expect((await cacheport(["copy", fixture(APP), path])).code).toBe(0);
      await using registry = await serve("--name", "app", fixture(APP), tar, packed);
      const { layers } = readDocument(fixture(APP), fixtureDigest(APP));
      const { digest, size } = layers[0];
      const whole = readFileSync(blobFile(fixture(APP), digest));
      for (const { name } of registry.repositories) {
        const response = await registry.ask(`/v2/${name}/blobs/${digest}`, { headers: { range } });
        expect(response.status).toBe(status);
        const wanted = whole.subarray(start, end);
        expect(Buffer.from(await response.arrayBuffer())).toEqual(wanted);
        expect(response.headers.get("content-length")).toBe(String(wanted.length));
        const from = start < 0 ? size + start : start;
        const text = `bytes ${from}-${from + wanted.length - 1}/${size}`;
        expect(response.headers.get("content-range")).toBe(status === 206 ? text : null);
      }
      const beyond = await registry.ask(`/v2/app/blobs/${digest}`, {
        headers: { range: `bytes=${size}-` },
      });
      expect(beyond.status).toBe(416);
    },
  );

  test("tags are sorted and come in pages", async () => {
    const layout = fixtureCopy(APP);
    for (const tag of ["b", "c", "a"]) expect((await cacheport(["tag", layout, tag])).code).toBe(0);
    await using registry = await serve("--name", "app", layout);
    const all: string[] = [];
    let path = "/v2/app/tags/list?n=2";
    for (let page = 0; path !== ""; page++) {
      expect(page).toBeLessThan(3);
      const response = await registry.ask(path);
      const { name, tags } = (await response.json()) as any;
      expect(name).toBe("app");
      all.push(...tags);
      path = /^<([^>]+)>; rel="next"$/.exec(response.headers.get("link") ?? "")?.[1] ?? "";
    }
    expect(all).toEqual(["a", "b", "c", "latest"]);
    const none = (await (await registry.ask("/v2/app/tags/list?n=0")).json()) as any;
    expect(none.tags).toEqual([]);
  });

  test("a location with a name offers that one alone", async () => {
    await using registry = await serve("--name", "app", `${fixture("grown")}:main`);
    expect(registry.repositories[0]?.tags).toEqual(["main"]);
    expect((await registry.ask("/v2/app/manifests/main")).status).toBe(200);
    expect((await registry.ask("/v2/app/manifests/feature")).status).toBe(404);
  });

  test("referrers are listed by subject and artifact type", async () => {
    const layout = tempFolder();
    const config = addBlob(layout, "{}", "application/vnd.oci.empty.v1+json");
    const image = addBlob(
      layout,
      { schemaVersion: 2, mediaType: MANIFEST, config, layers: [] },
      MANIFEST,
    );
    const referrer = (artifactType: string) =>
      addBlob(
        layout,
        {
          schemaVersion: 2,
          mediaType: MANIFEST,
          artifactType,
          config,
          layers: [],
          subject: image,
          annotations: { a: "b" },
        },
        MANIFEST,
      );
    const [one, two] = [referrer("x/one"), referrer("x/two")];
    const name = { "org.opencontainers.image.ref.name": "latest" };
    writeLayout(layout, [{ ...image, annotations: name }, one, two]);
    await using registry = await serve("--name", "app", layout);
    const path = `/v2/app/referrers/${image.digest}`;
    const all = (await (await registry.ask(path)).json()) as any;
    expect(all.manifests).toEqual([
      { ...one, annotations: { a: "b" }, artifactType: "x/one" },
      { ...two, annotations: { a: "b" }, artifactType: "x/two" },
    ]);
    const filtered = await registry.ask(`${path}?artifactType=x/two`);
    expect(filtered.headers.get("oci-filters-applied")).toBe("artifactType");
    expect(((await filtered.json()) as any).manifests.map((m: any) => m.digest)).toEqual([
      two.digest,
    ]);
    const none = await registry.ask(`/v2/app/referrers/sha256:${"0".repeat(64)}`);
    expect([none.status, ((await none.json()) as any).manifests]).toEqual([200, []]);
  });

  test("another host name than this machine's is not answered, so that no web page can read", async () => {
    await using registry = await serve("--name", "app", fixture(APP));
    const stranger = await registry.ask("/v2/app/tags/list", { headers: { host: "evil.example" } });
    expect([stranger.status, await errorCode(stranger)]).toEqual([403, "DENIED"]);
    const own = await registry.ask("/v2/app/tags/list", { headers: { host: "localhost:1" } });
    expect(own.status).toBe(200);
  });

  test("nothing can be pushed without --writable", async () => {
    const layout = fixtureCopy(APP);
    const before = readFileSync(join(layout, "index.json"));
    await using registry = await serve("--name", "app", layout);
    for (const [method, path] of [
      ["POST", "/v2/app/blobs/uploads/"],
      ["PUT", "/v2/app/manifests/new"],
      ["DELETE", "/v2/app/manifests/latest"],
    ] as const)
      expect(
        (await registry.ask(path, { method, body: method === "PUT" ? "{}" : null })).status,
      ).toBe(405);
    expect(readFileSync(join(layout, "index.json"))).toEqual(before);
  });

  test("a registry's blobs are fetched once into --cache", async () => {
    await using origin = await serve("--name", "app", fixture(APP));
    const cache = join(tempFolder(), "cache");
    await using registry = await serve("--cache", cache, "--plain-http", `${origin.host}/app`);
    const { layers } = readDocument(fixture(APP), fixtureDigest(APP));
    await registry.ask("/v2/app/manifests/latest");
    for (let round = 0; round < 2; round++) {
      for (const { digest } of layers) {
        const bytes = Buffer.from(
          await (await registry.ask(`/v2/app/blobs/${digest}`)).arrayBuffer(),
        );
        expect(sha256(bytes)).toBe(digest);
      }
    }
    const { stderr } = await origin.end();
    for (const { digest } of layers)
      expect(
        stderr.split("\n").filter((line) => line.startsWith(`GET /v2/app/blobs/${digest} `)),
      ).toHaveLength(1);
    expect(layoutFaults(cache)).toEqual([]);
  });
});

/** Pushes bytes as one blob. */
async function pushBlob(registry: Served, bytes: Uint8Array): Promise<string> {
  const digest = sha256(bytes);
  const begun = await registry.ask("/v2/app/blobs/uploads/", { method: "POST" });
  expect(begun.status).toBe(202);
  const done = await registry.ask(`${begun.headers.get("location")}?digest=${digest}`, {
    method: "PUT",
    body: bytes,
  });
  expect(done.status).toBe(201);
  return digest;
}

async function pushManifest(
  registry: Served,
  reference: string,
  document: object,
): Promise<Response> {
  return registry.ask(`/v2/app/manifests/${reference}`, {
    method: "PUT",
    headers: { "content-type": MANIFEST },
    body: JSON.stringify(document),
  });
}

const CONFIG = Buffer.from("{}");
const blob = (mediaType: string, bytes: Uint8Array) => ({
  mediaType,
  digest: sha256(bytes),
  size: bytes.length,
});

function image(layer: Uint8Array, extra: object = {}): object {
  return {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: blob("application/vnd.oci.image.config.v1+json", CONFIG),
    layers: [blob("application/vnd.oci.image.layer.v1.tar", layer)],
    ...extra,
  };
}

describe("push", () => {
  test.each(["a folder that is there", "a new folder", "a new tar"])(
    "an image into %s",
    async (kind) => {
      const target =
        kind === "a folder that is there"
          ? fixtureCopy(APP)
          : join(tempFolder(), kind === "a new tar" ? "new.tar" : "new");
      const layer = noise(3_000_000);
      {
        await using registry = await serve("--writable", "--name", "app", target);
        await pushBlob(registry, CONFIG);
        await pushBlob(registry, layer);
        const put = await pushManifest(registry, "v1", image(layer));
        expect(put.status).toBe(201);
        const digest = put.headers.get("docker-content-digest");
        expect((await registry.ask(`/v2/app/manifests/${digest}`)).status).toBe(200);
        const { tags } = (await (await registry.ask("/v2/app/tags/list")).json()) as any;
        expect(tags).toContain("v1");
        const back = await registry.ask(`/v2/app/blobs/${sha256(layer)}`);
        expect(Buffer.compare(Buffer.from(await back.arrayBuffer()), layer)).toBe(0);
      }
      const out = join(tempFolder(), "out");
      expect((await cacheport(["copy", `${target}:v1`, out])).code).toBe(0);
      expect(layoutFaults(out)).toEqual([]);
      expect(readDocument(out, readIndex(out).manifests[0].digest)).toEqual(image(layer));
    },
  );

  test("a blob comes in pieces, in their order, and its state can be asked for", async () => {
    await using registry = await serve("--writable", "--name", "app", join(tempFolder(), "new"));
    const bytes = noise(100_000);
    const begun = await registry.ask("/v2/app/blobs/uploads/", { method: "POST" });
    const location = begun.headers.get("location") as string;
    const piece = (from: number, to: number) =>
      registry.ask(location, {
        method: "PATCH",
        headers: { "content-range": `${from}-${to - 1}` },
        body: bytes.subarray(from, to),
      });
    const first = await piece(0, 40_000);
    expect([first.status, first.headers.get("range")]).toEqual([202, "0-39999"]);
    const wrong = await piece(50_000, 60_000);
    expect([wrong.status, wrong.headers.get("range")]).toEqual([416, "0-39999"]);
    const state = await registry.ask(location);
    expect([state.status, state.headers.get("range")]).toEqual([204, "0-39999"]);
    expect((await piece(40_000, 90_000)).status).toBe(202);
    const digest = sha256(bytes);
    const last = await registry.ask(`${location}?digest=${digest}`, {
      method: "PUT",
      body: bytes.subarray(90_000),
    });
    expect(last.status).toBe(201);
    const back = await registry.ask(last.headers.get("location") as string);
    expect(Buffer.compare(Buffer.from(await back.arrayBuffer()), bytes)).toBe(0);
    expect((await registry.ask(location)).status).toBe(404);
  });

  test("a blob of another digest is refused, and is not there", async () => {
    await using registry = await serve("--writable", "--name", "app", join(tempFolder(), "new"));
    const digest = `sha256:${"1".repeat(64)}`;
    const response = await registry.ask(`/v2/app/blobs/uploads/?digest=${digest}`, {
      method: "POST",
      body: noise(1000),
    });
    expect([response.status, await errorCode(response)]).toEqual([400, "DIGEST_INVALID"]);
    expect((await registry.ask(`/v2/app/blobs/${digest}`)).status).toBe(404);
  });

  test("a blob of another repository is taken over with mount", async () => {
    await using registry = await serve(
      "--writable",
      "--name",
      "app",
      "--name",
      "other",
      join(tempFolder(), "a"),
      fixtureCopy(APP),
    );
    const { layers } = readDocument(fixture(APP), fixtureDigest(APP));
    const path = `/v2/app/blobs/uploads/?mount=${layers[0].digest}&from=other`;
    expect((await registry.ask(path, { method: "POST" })).status).toBe(201);
    expect((await registry.ask(`/v2/app/blobs/${layers[0].digest}`)).status).toBe(200);
    const missing = `/v2/app/blobs/uploads/?mount=sha256:${"0".repeat(64)}&from=other`;
    expect((await registry.ask(missing, { method: "POST" })).status).toBe(202);
  });

  test("a manifest whose blobs were not pushed, of another digest, or that is none is refused", async () => {
    const target = join(tempFolder(), "new");
    await using registry = await serve("--writable", "--name", "app", target);
    const missing = await pushManifest(registry, "v1", image(noise(10)));
    expect([missing.status, await errorCode(missing)]).toEqual([400, "MANIFEST_BLOB_UNKNOWN"]);
    const other = await pushManifest(registry, `sha256:${"0".repeat(64)}`, image(noise(10)));
    expect([other.status, await errorCode(other)]).toEqual([400, "DIGEST_INVALID"]);
    for (const body of ["", "[]", '{"a":1}', '{"things":[]}', "<html>"]) {
      const headers = { "content-type": MANIFEST };
      const none = await registry.ask("/v2/app/manifests/v1", { method: "PUT", headers, body });
      expect([none.status, await errorCode(none)]).toEqual([400, "MANIFEST_INVALID"]);
    }
    expect((await registry.ask("/v2/app/tags/list").then((r) => r.json())) as any).toEqual({
      name: "app",
      tags: [],
    });
  });

  test("what was pushed without a tag is listed when it ends: nothing that was taken is lost", async () => {
    const target = join(tempFolder(), "new");
    await using registry = await serve("--writable", "--name", "app", target);
    const layer = noise(1000);
    await pushBlob(registry, CONFIG);
    await pushBlob(registry, layer);
    const digest = sha256(JSON.stringify(image(layer)));
    const put = await pushManifest(registry, digest, image(layer, {}));
    expect(put.status).toBe(201);
    expect((await registry.ask(`/v2/app/manifests/${digest}`)).status).toBe(200);
    const { code, stderr } = await registry.end("SIGTERM");
    expect(code).toBe(0);
    expect(stderr).toContain("1 manifests without a tag");
    expect(readIndex(target).manifests.map((one: any) => one.digest)).toEqual([digest]);
    expect(layoutFaults(target)).toEqual([]);
  });

  test("a referrer's subject is told back", async () => {
    await using registry = await serve("--writable", "--name", "app", fixtureCopy(APP));
    await pushBlob(registry, CONFIG);
    const subject = blob(MANIFEST, readFileSync(blobFile(fixture(APP), fixtureDigest(APP))));
    const document = image(CONFIG, { subject });
    const put = await pushManifest(registry, "sbom", document);
    expect([put.status, put.headers.get("oci-subject")]).toEqual([201, subject.digest]);
    const found = (await (await registry.ask(`/v2/app/referrers/${subject.digest}`)).json()) as any;
    expect(found.manifests).toHaveLength(1);
  });

  test("eight clients push at once and every tag is there", async () => {
    const target = join(tempFolder(), "new");
    await using registry = await serve("--writable", "--name", "app", target);
    await Promise.all(
      Array.from({ length: 8 }, async (_, n) => {
        const layer = noise(200_000, n + 1);
        await pushBlob(registry, CONFIG);
        await pushBlob(registry, layer);
        expect((await pushManifest(registry, `tag-${n}`, image(layer))).status).toBe(201);
      }),
    );
    await registry.end();
    expect(readIndex(target).manifests).toHaveLength(8);
    expect(layoutFaults(target)).toEqual([]);
  });

  test("killed in the middle, it leaves the names that were there and no left-overs for long", async () => {
    const target = fixtureCopy(APP);
    const registry = await serve("--writable", "--name", "app", target);
    await pushBlob(registry, noise(1_000_000));
    await registry.end("SIGKILL");
    expect(layoutFaults(target)).toEqual([]);
    expect((await cacheport(["copy", fixture("multi-cache"), `${target}:other`])).code).toBe(0);
    const { json } = await cacheport(["verify", target, "--json"]);
    expect(json().problems.filter((one: any) => one.severity === "error")).toEqual([]);
  });
});

describe("the command", () => {
  test("prints what its contract says", async () => {
    await using registry = await serve("--name", "app", fixture(APP));
    expect(v.is(CONTRACTS["serve"] as v.GenericSchema, registry.value)).toBe(true);
  });

  test.each([
    [["--name", "A", fixture(APP)], 'Cannot serve repository "A"'],
    [[fixture(APP), fixture(APP)], 'Cannot serve two repositories called "app-image-manifest"'],
    [["--name", "a", "--name", "b", fixture(APP)], "more names than locations"],
    [["--writable", `${fixture(APP)}:latest`], "it names one entry"],
    [["--port", "99999", fixture(APP)], "--port"],
  ])("%p is refused", async (args, message) => {
    const { code, stderr } = await cacheport(["serve", "--port", "0", ...args]);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });

  test("says that the port is taken, and how to go on", async () => {
    await using registry = await serve(fixture(APP));
    const port = registry.host.split(":")[1] as string;
    const { code, stderr } = await cacheport(["serve", "--port", port, fixture(APP)]);
    expect(code).toBe(1);
    expect(stderr).toContain("another program does");
    expect(stderr).toContain("--port 0");
  });

  test("ends with 0 when it is interrupted", async () => {
    const registry = await serve(fixture(APP));
    expect((await registry.end("SIGINT")).code).toBe(0);
  });

  test("large layers pass through without being held in memory", async () => {
    const layout = tempFolder();
    const size = 600 * 2 ** 20;
    const path = join(layout, "large");
    Bun.spawnSync(["truncate", "-s", String(size), path]);
    const hash = new Bun.CryptoHasher("sha256");
    const zeros = new Uint8Array(2 ** 20);
    for (let n = 0; n < 600; n++) hash.update(zeros);
    const digest = `sha256:${hash.digest("hex")}`;
    const config = addBlob(layout, "{}", "application/vnd.oci.image.config.v1+json");
    const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size };
    const manifest = addBlob(
      layout,
      { schemaVersion: 2, mediaType: MANIFEST, config, layers: [layer] },
      MANIFEST,
    );
    Bun.spawnSync(["mv", path, blobFile(layout, digest)]);
    const annotations = { "org.opencontainers.image.ref.name": "latest" };
    writeLayout(layout, [{ ...manifest, annotations }]);
    const target = join(tempFolder(), "new");
    await using source = await serve("--name", "app", layout);
    const child = Bun.spawn(
      [BINARY, "serve", "--port", "0", "--json", "--writable", "--name", "app", target],
      {
        stdout: "pipe",
        stderr: "ignore",
      },
    );
    const { value } = await child.stdout.getReader().read();
    const { port } = JSON.parse(new TextDecoder().decode(value));
    const run = await cacheport([
      "copy",
      "--plain-http",
      `${source.host}/app`,
      `127.0.0.1:${port}/app`,
    ]);
    expect([run.code, run.stderr]).toEqual([0, expect.any(String)]);
    // What the system reports of a child at its end begins with the size of its parent.
    const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
    expect(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024).toBeLessThan(200 * 2 ** 20);
    child.kill("SIGINT");
    await child.exited;
    expect(layoutFaults(target)).toEqual([]);
  });
});
