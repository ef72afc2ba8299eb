import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { layoutFaults } from "./helpers/layout.ts";
import { layoutOf } from "./helpers/layer-cache.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { s3Error, TestS3 } from "./helpers/test-s3-server.ts";

const LAYOUT = join(fixture("object-s3"), "layout");
const DOCUMENT = readFileSync(join(fixture("object-s3"), "s3.json"), "utf8");
const BLOBS = [...new Set<string>(JSON.parse(DOCUMENT).layers.map(({ blob }: any) => blob))];
const MIB = 1024 * 1024;

const s3 = new TestS3();
afterAll(() => s3.stop());
beforeEach(() => {
  s3.objects.clear();
  s3.uploads.clear();
  s3.fault = undefined;
  s3.pageSize = 1000;
  s3.takeRequests();
});

const run = (args: string[], env: Record<string, string> = {}) =>
  cacheport([...args, "--progress=none"], { env });
const good = async (...args: string[]) => {
  const done = await run(args);
  expect([done.stderr, done.code]).toEqual(["", 0]);
  return done;
};
const named = (): string[] => s3.keys().filter((key) => key.startsWith("b/manifests/"));
const fill = (): void => {
  for (const blob of BLOBS)
    s3.put(`b/blobs/${blob}`, readFileSync(join(LAYOUT, "blobs", ...blob.split(":"))));
  s3.put("b/manifests/buildkit", DOCUMENT);
};

describe("what a store is asked", () => {
  test("few blobs are asked for by themselves, many by one list; the name comes last", async () => {
    await good("convert", LAYOUT, s3.location(), "--jobs", "1");
    const first = s3.takeRequests();
    expect(first.filter((line) => line.startsWith("HEAD"))).toHaveLength(2);
    expect(first.filter((line) => line.includes("prefix=blobs/"))).toHaveLength(1);
    expect(first.at(-1)).toBe("PUT /b/manifests/buildkit");
    await good("convert", LAYOUT, s3.location(), "--jobs", "1");
    const again = s3.takeRequests();
    expect(again.filter((line) => line.startsWith("PUT"))).toEqual(["PUT /b/manifests/buildkit"]);
  });

  test("a list of several pages is read to its end", async () => {
    s3.pageSize = 1;
    fill();
    expect((await good("verify", s3.location(), "--json")).json()).toMatchObject({
      ok: true,
      problems: [],
    });
    expect(
      s3.takeRequests().filter((line) => line.includes("continuation-token")).length,
    ).toBeGreaterThan(2);
  });

  test("few headers are signed, the body is sent as it is, and the secret is nowhere", async () => {
    await good("convert", LAYOUT, s3.location());
    for (const { headers, method, size } of s3.seen) {
      expect(headers["authorization"]).toMatch(
        /^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE\/\d{8}\/us-east-1\/s3\/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=[0-9a-f]{64}$/,
      );
      expect(headers["content-encoding"]).toBeUndefined();
      expect(headers["transfer-encoding"]).toBeUndefined();
      expect(Object.keys(headers).filter((name) => name.startsWith("x-amz-checksum"))).toEqual([]);
      if (method === "PUT") expect(headers["content-length"]).toBe(String(size));
      expect(JSON.stringify(headers)).not.toContain("hushhush");
    }
  });

  test("a blob that is older than touch_refresh is made young, one that is younger is left alone", async () => {
    fill();
    const [old] = BLOBS as [string];
    s3.put(
      `b/blobs/${old}`,
      readFileSync(join(LAYOUT, "blobs", ...old.split(":"))),
      25 * 3_600_000,
    );
    await good("convert", LAYOUT, s3.location());
    const copies = s3.seen.filter(({ headers }) => headers["x-amz-copy-source"] !== undefined);
    expect(copies.map(({ path }) => path)).toEqual([`/b/blobs/${old}`]);
    expect(copies[0]?.headers).toMatchObject({ "x-amz-metadata-directive": "REPLACE" });
    s3.takeRequests();
    s3.put(
      `b/blobs/${old}`,
      readFileSync(join(LAYOUT, "blobs", ...old.split(":"))),
      25 * 3_600_000,
    );
    await good("convert", LAYOUT, `${s3.location()},touch_refresh=26h`);
    expect(s3.seen.some(({ headers }) => headers["x-amz-copy-source"] !== undefined)).toBe(false);
  });

  test("a blob of the wrong size under a right key is written anew", async () => {
    fill();
    s3.put(`b/blobs/${BLOBS[0]}`, "cut");
    await good("convert", LAYOUT, s3.location());
    expect((await good("verify", s3.location(), "--deep", "--json")).json().ok).toBe(true);
  });
});

describe("a store that fails", () => {
  test("503 SlowDown and 429 are waited for, as long as they ask", async () => {
    let left = 3;
    s3.fault = ({ method }) => {
      if (method !== "PUT" || left-- <= 0) return undefined;
      return left === 1
        ? new Response(null, { status: 429, headers: { "retry-after": "1" } })
        : s3Error(503, "SlowDown");
    };
    const start = performance.now();
    await good("convert", LAYOUT, s3.location());
    expect(performance.now() - start).toBeGreaterThan(1000);
    expect(s3.text("b/manifests/buildkit")).toBe(DOCUMENT);
  });

  test("a store that is busy for ever is an error, and nothing has a name", async () => {
    s3.fault = ({ method }) => (method === "PUT" ? s3Error(503, "SlowDown") : undefined);
    const { code, stderr } = await run([
      "convert",
      LAYOUT,
      `${s3.location()},retry_max_attempts=2`,
    ]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("SlowDown")]);
    expect(named()).toEqual([]);
  });

  test("403 without the right to list: writing goes on, reading says what may be missing", async () => {
    s3.fault = ({ method, path }) => {
      if (path.includes("list-type")) return s3Error(403, "AccessDenied");
      const isThere = s3.objects.has(path.slice(1));
      return (method === "HEAD" || method === "GET") && !isThere
        ? method === "HEAD"
          ? new Response(null, { status: 403 })
          : s3Error(403, "AccessDenied")
        : undefined;
    };
    await good("convert", LAYOUT, s3.location());
    expect(s3.text("b/manifests/buildkit")).toBe(DOCUMENT);
    const read = await run(["ls", `${s3.location()},name=none`]);
    expect(read.code).toBe(5);
    expect(read.stderr).toContain("without s3:ListBucket S3 answers 403 for what is not there");
  });

  test("credentials that run out in the middle are looked up again", async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "count"), "");
    // A program that prints other keys each time it is asked.
    writeFileSync(
      join(folder, "config"),
      `[default]\ncredential_process = printf x >> ${folder}/count; printf '{"Version":1,"AccessKeyId":"AKID%s","SecretAccessKey":"secret%s","SessionToken":"token%s"}' $(wc -c < ${folder}/count) $(wc -c < ${folder}/count) $(wc -c < ${folder}/count)\n`,
    );
    let writes = 0;
    s3.fault = ({ method, headers }) =>
      headers["x-amz-security-token"] === "token1" && method === "PUT" && ++writes > 1
        ? s3Error(400, "ExpiredToken")
        : undefined;
    const location = s3.location().replace(/,access_key_id=.*$/, "");
    const env = {
      AWS_CONFIG_FILE: join(folder, "config"),
      AWS_SHARED_CREDENTIALS_FILE: join(folder, "none"),
    };
    const { code, stderr } = await run(["convert", LAYOUT, location], env);
    expect([stderr, code]).toEqual(["", 0]);
    expect(s3.text("b/manifests/buildkit")).toBe(DOCUMENT);
    const tokens = new Set(s3.seen.map(({ headers }) => headers["x-amz-security-token"]));
    expect([...tokens]).toEqual(["token1", "token2"]);
  });

  test("credentials that run out and are not replaced are refused, with the store's word", async () => {
    s3.fault = () => s3Error(400, "ExpiredToken");
    const { code, stderr } = await run(["ls", s3.location()]);
    expect([code, stderr]).toEqual([5, expect.stringContaining("ExpiredToken")]);
    expect(stderr).not.toContain("hushhush");
  });

  test("a bucket of another region is found there, and another host is sent nothing", async () => {
    let moved = 0;
    s3.fault = ({ headers }) => {
      if (/\/eu-west-3\/s3/.test(headers["authorization"] ?? "")) return undefined;
      moved++;
      return new Response("<Error><Code>PermanentRedirect</Code></Error>", {
        status: 301,
        headers: { "x-amz-bucket-region": "eu-west-3" },
      });
    };
    fill();
    expect((await good("cat", s3.location())).stdout).toBe(DOCUMENT);
    expect(moved).toBe(1);
    const other = new TestS3();
    s3.fault = () => new Response(null, { status: 307, headers: { location: `${other.url}/b/x` } });
    const { code, stderr } = await run(["cat", s3.location()]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("the bucket is somewhere else")]);
    expect(other.seen).toEqual([]);
    await other.stop();
  });

  test("a download that breaks off goes on where it was", async () => {
    fill();
    const [blob] = BLOBS as [string];
    const bytes = readFileSync(join(LAYOUT, "blobs", ...blob.split(":")));
    let broken = 0;
    s3.fault = ({ method, path, headers }) => {
      if (method !== "GET" || !path.endsWith(blob) || headers["range"] || broken++ > 0)
        return undefined;
      return new Response(
        new ReadableStream({
          async start(controller) {
            controller.enqueue(bytes.subarray(0, 10));
            // Else the server would announce ten bytes.
            await Bun.sleep(50);
            controller.close();
          },
        }),
      );
    };
    const back = join(tempFolder(), "back");
    await good("convert", s3.location(), back);
    expect(layoutFaults(back)).toEqual([]);
    expect(broken).toBeGreaterThan(0);
  });
});

describe("content that is wrong", () => {
  test("a cut object under a right key ends a conversion, and nothing has a name", async () => {
    fill();
    const [blob] = BLOBS as [string];
    s3.put(`b/blobs/${blob}`, s3.text(`b/blobs/${blob}`)?.slice(0, 5) ?? "");
    const back = join(tempFolder(), "back");
    const { code, stderr } = await run(["convert", s3.location(), back]);
    expect([code, stderr]).toEqual([4, expect.stringContaining(blob)]);
    const index = await cacheport(["ls", back]);
    expect(index.stdout).not.toContain("buildkit");
    // Nor by a copy on the server, which nobody would hash.
    const copied = await run(["convert", s3.location(), `${s3.location()},prefix=copy/`]);
    expect([copied.code, copied.stderr]).toEqual([4, expect.stringContaining(blob)]);
    expect(named()).toEqual(["b/manifests/buildkit"]);
  });

  test.each([100, 40 * MIB])(
    "a blob of %d bytes that are others than its name says is never seen",
    async (size) => {
      const bytes = Buffer.alloc(size, "a");
      const { layout, blob } = layoutOf(
        Buffer.concat([bytes.subarray(1), Buffer.from("b")]),
        bytes,
      );
      const { code, stderr } = await run(["convert", layout, s3.location()]);
      expect([code, stderr]).toEqual([4, expect.stringContaining(blob)]);
      expect(s3.keys()).toEqual([]);
      // What was sent in parts is thrown away, not left to be paid for.
      expect([...s3.uploads.keys()]).toEqual([]);
      expect(
        s3.seen.some(({ method, path }) => method === "POST" && !path.includes("uploads")),
      ).toBe(false);
    },
  );

  test("a large blob goes in parts of at most 16 MiB, four at a time, and arrives whole", async () => {
    const bytes = Buffer.alloc(100 * MIB);
    for (let at = 0; at < bytes.length; at += 4096)
      bytes.writeUInt32LE((at * 2654435761) % 2 ** 32, at);
    const { layout, blob } = layoutOf(bytes);
    let running = 0;
    let most = 0;
    s3.fault = async ({ path }) => {
      if (!path.includes("partNumber")) return undefined as never;
      most = Math.max(most, ++running);
      await Bun.sleep(20);
      running--;
      return undefined as never;
    };
    await good("convert", layout, s3.location());
    const parts = s3.seen.filter(({ path }) => path.includes("partNumber"));
    expect(Math.max(...parts.map(({ size }) => size))).toBeLessThanOrEqual(16 * MIB);
    expect(parts.reduce((sum, { size }) => sum + size, 0)).toBe(bytes.length);
    expect(most).toBeLessThanOrEqual(4);
    const stored = s3.objects.get(`b/blobs/${blob}`)?.bytes ?? new Uint8Array();
    expect(`sha256:${createHash("sha256").update(stored).digest("hex")}`).toBe(blob);
  });

  test("a part that is refused ends the upload and throws the others away", async () => {
    const { layout } = layoutOf(Buffer.alloc(40 * MIB, "z"));
    s3.fault = ({ path }) =>
      path.includes("partNumber=2") ? s3Error(403, "AccessDenied") : undefined;
    const { code } = await run(["convert", layout, s3.location()]);
    expect(code).toBe(5);
    expect([...s3.uploads.keys()]).toEqual([]);
    expect(s3.keys()).toEqual([]);
  });

  test("an answer of success with an error in it is an error", async () => {
    const { layout } = layoutOf(Buffer.alloc(17 * MIB, "z"));
    s3.fault = ({ method, path }) =>
      method === "POST" && path.includes("uploadId")
        ? new Response("<Error><Code>InternalError</Code><Message>x</Message></Error>")
        : undefined;
    const { code, stderr } = await run(["convert", layout, s3.location()]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("InternalError")]);
    expect(named()).toEqual([]);
  });
});

describe("several writers", () => {
  test("two writers of one name leave one of their documents, whole, with all of its blobs", async () => {
    const other = join(fixture("object-utc"), "layout");
    const runs = await Promise.all([
      run(["convert", LAYOUT, s3.location()]),
      run(["convert", other, s3.location()]),
    ]);
    expect(runs.map(({ code }) => code)).toEqual([0, 0]);
    const documents = [DOCUMENT, readFileSync(join(fixture("object-utc"), "gha.json"), "utf8")];
    expect(documents).toContain(s3.text("b/manifests/buildkit") ?? "");
    expect((await good("verify", s3.location(), "--deep", "--json")).json().ok).toBe(true);
  });

  test("a cache that changed while it was pruned is not overwritten", async () => {
    const other = readFileSync(join(fixture("object-utc"), "gha.json"), "utf8");
    s3.put("b/manifests/buildkit", other);
    for (const { blob, annotations } of JSON.parse(other).layers)
      s3.put(`b/blobs/${blob}`, "x".repeat(annotations.size));
    const [leaf] = JSON.parse(other).layers;
    let reads = 0;
    s3.fault = ({ method, path }) => {
      // The second look at the name, before it is written, finds another document.
      if (method === "GET" && path === "/b/manifests/buildkit" && ++reads === 2)
        s3.put("b/manifests/buildkit", DOCUMENT);
      return undefined;
    };
    const { code, stderr } = await run([
      "prune",
      `${s3.location()},name=buildkit`,
      "--drop-layer",
      leaf.blob,
    ]);
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining("stands for something else meanwhile"),
    ]);
    expect(s3.text("b/manifests/buildkit")).toBe(DOCUMENT);
  });
});

test("no command repeats a secret, whatever it prints", async () => {
  fill();
  const at = s3.location();
  const commands = [
    ["ls", at],
    ["ls", `${at},name=none`],
    ["inspect", at],
    ["inspect", at, "--format", "html"],
    ["verify", at],
    ["resolve", at],
    ["convert", LAYOUT, at],
    ["convert", at],
    ["copy", at, at],
    ["merge", at, at, at],
    ["prune", at, "--max-age", "1s"],
    ["prune", at, "--keep-newest", "1", "--gc", "--grace", "0"],
    ["diff", at, at],
    ["tag", at, "x"],
    ["untag", `${at},name=x`],
    ["untag", at],
    ["gc", at],
    ["gc", `${at},name=x`],
    ["copy", fixture("image-dir"), at],
    ["convert", at, `${at},digest=sha256:1`],
    ["convert", at, "--platform", "a/b/c/d"],
    ["ls", `${at},region=a b`],
    ["ls", `${at},endpoint_url=x`],
    ["cat", `${at},digest=sha256:${"0".repeat(64)}`],
    ["frobnicate", at],
    ["ls", at, at],
    ["convert", `${at},"`],
    ["ls", at.replace("type=", "typ=")],
    ["ls", "s3://b?bucket=c&secret_access_key=hushhush"],
  ];
  for (const args of commands) {
    for (const json of [[], ["--json"]]) {
      const { stdout, stderr } = await run([...args, ...json]);
      expect([args, (stdout + stderr).includes("hushhush")]).toEqual([args, false]);
    }
  }
});

describe("what a layout lacks", () => {
  /** The layout with its manifest changed, under another name. */
  function changed(change: (layer: any, index: number) => any): string {
    const layout = fixtureCopy("object-s3");
    const folder = join(layout, "layout");
    const index = JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));
    const path = (digest: string): string => join(folder, "blobs", ...digest.split(":"));
    const manifest = JSON.parse(readFileSync(path(index.manifests[0].digest), "utf8"));
    manifest.layers = manifest.layers.map(change).filter((layer: unknown) => layer !== undefined);
    const text = JSON.stringify(manifest);
    const digest = `sha256:${createHash("sha256").update(text).digest("hex")}`;
    writeFileSync(path(digest), text);
    Object.assign(index.manifests[0], { digest, size: text.length });
    writeFileSync(join(folder, "index.json"), JSON.stringify(index));
    return folder;
  }

  test("a diffID that its manifest does not say is found by unpacking the layer", async () => {
    const bare = changed(({ annotations, ...layer }, index) =>
      index === 0
        ? { ...layer, annotations: { "buildkit/createdat": annotations["buildkit/createdat"] } }
        : { ...layer, annotations },
    );
    await good("convert", bare, s3.location());
    expect(s3.text("b/manifests/buildkit")).toBe(DOCUMENT);
  });

  test("a layer that its manifest does not list is left out with its results, and that is said", async () => {
    const folder = changed((layer, index) => (index === 0 ? undefined : layer));
    const { code, stderr } = await run(["convert", folder, s3.location()]);
    const [first] = JSON.parse(DOCUMENT).layers;
    expect(code).toBe(0);
    expect(stderr).toContain(first.blob);
    expect(s3.text("b/manifests/buildkit")).not.toContain(first.blob);
    expect((await good("verify", s3.location(), "--json")).json().ok).toBe(true);
  });
});

test("the bucket's own rules are read: those by which names outlive their blobs are told", async () => {
  fill();
  const rule = (prefix: string, days: number) =>
    `<Rule><ID>x</ID><Filter><Prefix>${prefix}</Prefix></Filter><Status>Enabled</Status><Expiration><Days>${days}</Days></Expiration></Rule>`;
  const verify = async (...rules: string[]) => {
    s3.fault = ({ path }) =>
      path.includes("lifecycle")
        ? new Response(`<LifecycleConfiguration>${rules.join("")}</LifecycleConfiguration>`)
        : undefined;
    return (await good("verify", s3.location(), "--json"))
      .json()
      .problems.map(({ code }: any) => code);
  };
  expect(await verify(rule("", 30))).toEqual(["LIFECYCLE_BREAKS"]);
  expect(await verify(rule("blobs/", 9), rule("manifests/", 7))).toEqual([]);
  expect(await verify(rule("blobs/", 7))).toEqual(["LIFECYCLE_BREAKS"]);
  expect(await verify(rule("elsewhere/", 7))).toEqual([]);
});

test("requests are logged without a secret, where the log is asked for", async () => {
  fill();
  const { stderr, code } = await run(["ls", s3.location(), "--verbose"]);
  expect(code).toBe(0);
  expect(stderr).toContain("GET ");
  expect(stderr).not.toContain("hushhush");
});

test("an interrupted upload throws away the parts that it has sent", async () => {
  const { layout } = layoutOf(Buffer.alloc(80 * MIB, "i"));
  const sent = Promise.withResolvers<void>();
  s3.fault = async ({ path }) => {
    if (!path.includes("partNumber")) return undefined as never;
    sent.resolve();
    await Bun.sleep(path.includes("partNumber=1&") ? 0 : 2000);
    return undefined as never;
  };
  const child = Bun.spawn([BINARY, "convert", layout, s3.location(), "--progress=none"], {
    stdout: "ignore",
    stderr: "pipe",
  });
  await sent.promise;
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
  // The server still answers what had come before.
  expect(s3.seen.some(({ method, path }) => method === "DELETE" && path.includes("uploadId"))).toBe(
    true,
  );
  expect(s3.keys()).toEqual([]);
});

test("a document over 1 MiB is no fault in an object store, and is told where it goes elsewhere", async () => {
  const document = JSON.parse(DOCUMENT);
  for (let at = 0; at < 12_000; at++)
    document.records.push({
      digest: `sha256:${at.toString(16).padStart(64, "0")}`,
      inputs: [[{ link: 0 }]],
    });
  fill();
  s3.put("b/manifests/large", JSON.stringify(document));
  const codes = (done: { json(): any }) => done.json().problems.map(({ code }: any) => code);
  const verified = await good("verify", `${s3.location()},name=large`, "--json");
  expect(codes(verified)).not.toContain("OVER_IMPORT_LIMIT");
  expect(codes(verified)).toContain("OVER_OCI_LIMIT");
  const copied = await run([
    "convert",
    `${s3.location()},name=large`,
    `${s3.location()},prefix=p/`,
  ]);
  expect([copied.code, copied.stderr]).toEqual([0, ""]);
  const local = await run(["convert", `${s3.location()},name=large`, join(tempFolder(), "back")]);
  expect([local.code, local.stderr]).toEqual([
    0,
    expect.stringContaining("BuildKit imports none over 1 MiB"),
  ]);
});

test.each([
  ["cache/", "cache/"],
  ["", ""],
  ["", "blobs/"],
  ["m-", "m-b-"],
])(
  "names under %p are told from blobs under %p, which may be the same or within each other",
  async (manifests, blobs) => {
    const at = `${s3.location()},manifests_prefix=${manifests},blobs_prefix=${blobs}`;
    await good("convert", LAYOUT, `${at},name=one;two/2`);
    expect(s3.text(`b/${manifests}two/2`)).toBe(DOCUMENT);
    expect(s3.objects.has(`b/${blobs}${BLOBS[0]}`)).toBe(true);
    const listed = (await good("ls", at, "--json")).json();
    expect(listed.map(({ refName }: any) => refName)).toEqual(["one", "two/2"]);
    const gone = await run(["gc", at, "--grace", "0", "--json"]);
    expect(gone.json().removed).toEqual([]);
  },
);
