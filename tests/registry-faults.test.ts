/** A registry that fails in every way: each ends in success or in a coded error, in time. */
import { beforeAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { verifiedStream } from "../src/blob-check.ts";
import { checkContent } from "../src/digest.ts";
import { failure } from "./helpers/errors.ts";
import {
  describeBytes,
  noise,
  openRepository,
  readAll,
  started,
} from "./helpers/registry-client.ts";
import { tempFolder } from "./helpers/temp.ts";
import {
  TestRegistry,
  TestServer,
  chunked,
  corruptAt,
  cutAfter,
  drip,
} from "./helpers/test-registry.ts";
import type { Answer, Fault } from "./helpers/test-registry.ts";

const SIZE = 2_500_000;
const LAYER = noise(SIZE);
const layer = describeBytes(LAYER);
const USER = { username: "tester", password: "s3cret-word" };
const OFFSETS = [0, 1, 1000, 65_536, SIZE - 1];

let registry: TestRegistry;
beforeAll(async () => {
  registry = await started(TestRegistry.start());
});

let count = 0;
function fresh(options = {}) {
  const name = `faults/r${++count}`;
  const repository = openRepository(`${registry.domain}/${name}`, options);
  registry.faults.length = 0;
  return { name, repository, content: registry.repository(name) };
}

describe.each(["a stream", "a file"])("download into %s", (kind) => {
  function filled(options = {}) {
    const found = fresh(options);
    found.content.blobs.set(layer.digest, LAYER);
    const fault = (one: Omit<Fault, "path">) =>
      registry.faults.push({ path: new RegExp(`${found.name}/blobs`), ...one });
    const read = async (): Promise<Uint8Array> => {
      if (kind === "a stream")
        return await readAll(verifiedStream(await found.repository.open(layer), layer));
      const path = join(tempFolder(), "blob");
      const fd = openSync(path, "wx");
      let told = 0;
      try {
        await found.repository.save(layer, fd, (bytes) => (told += bytes));
      } finally {
        closeSync(fd);
      }
      const bytes = readFileSync(path);
      expect(told).toBe(bytes.length);
      checkContent(bytes, layer);
      return bytes;
    };
    return { ...found, fault, read };
  }

  test.each(OFFSETS)("goes on after a break at byte %d", async (offset) => {
    const { name, fault, read } = filled();
    fault({ act: cutAfter(offset) });
    expect(await read()).toEqual(Buffer.from(LAYER));
    const [, second] = registry.requests("GET", new RegExp(name));
    // What a reset throws away before the client has read it is asked for again.
    const range = second?.headers["range"] ?? `bytes=0-${SIZE - 1}`;
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range) ?? [];
    expect(Number(from)).toBeLessThanOrEqual(offset);
    expect(Number(to)).toBe(SIZE - 1);
  });

  test("goes on after several breaks, and gives up when nothing moves", async () => {
    const { fault, read } = filled();
    for (let round = 0; round < 4; round++) fault({ act: cutAfter(300_000) });
    expect(await read()).toEqual(Buffer.from(LAYER));
    fault({ act: cutAfter(0), times: 99 });
    const error = await failure(read);
    expect(["REGISTRY_FAILED", "BLOB_UNREADABLE"]).toContain(error.code);
  });

  test("a server that knows no ranges is asked for the whole and read past what is there", async () => {
    const { name, fault, read } = filled();
    fault({ act: cutAfter(1_000_000) });
    fault({
      answer: {
        status: 200,
        headers: { "content-length": String(SIZE) },
        body: LAYER,
      },
    });
    expect(await read()).toEqual(Buffer.from(LAYER));
    expect(registry.requests("GET", new RegExp(name))).toHaveLength(2);
  });

  test("a body without its length is read to its end, and a short one is completed", async () => {
    const { fault, read } = filled();
    fault({ act: chunked(7) });
    expect(await read()).toEqual(Buffer.from(LAYER));
    fault({
      act: ({ body }, response, request) =>
        chunked(3, 0.5)!({ status: 200, body: body! }, response, request),
    });
    expect(await read()).toEqual(Buffer.from(LAYER));
  });

  test.each(OFFSETS)("a bit changed at byte %d is found out", async (offset) => {
    const { fault, read } = filled();
    fault({ act: corruptAt(offset) });
    expect((await failure(read)).code).toBe("DIGEST_MISMATCH");
  });

  test("a blob of another size is refused before it is read", async () => {
    const { fault, read } = filled();
    for (const body of [LAYER.subarray(1), Buffer.concat([LAYER, LAYER])]) {
      fault({ answer: { status: 200, body } });
      expect((await failure(read)).code).toBe("SIZE_MISMATCH");
    }
    fault({
      act: (_, response) => {
        response.writeHead(200);
        response.write(LAYER);
        response.end(Buffer.from("more"));
      },
    });
    expect((await failure(read)).code).toBe("SIZE_MISMATCH");
  });

  test.each([
    ["429 with seconds", { status: 429, headers: { "retry-after": "0" } }],
    ["429 with a date", { status: 429, headers: { "retry-after": new Date().toUTCString() } }],
    ["500", { status: 500 }],
    ["502", { status: 502 }],
    ["503", { status: 503 }],
    ["408", { status: 408 }],
  ] as [string, Answer][])("%s passes", async (_, answer) => {
    const { fault, read } = filled();
    fault({ answer, times: 2 });
    expect(await read()).toEqual(Buffer.from(LAYER));
  });

  test("a slow drip ends with an error when the deadline is over", async () => {
    const { fault, read, repository } = filled({ deadlineMs: 600 });
    fault({ act: drip(10), times: 99 });
    expect((await failure(read)).code).toBe("REGISTRY_FAILED");
    registry.faults.length = 0;
    expect(await repository.stat(layer)).toBe(SIZE);
  });

  test("a wait that the registry asks for counts, and is not sat out past the deadline", async () => {
    const { fault, read } = filled({ deadlineMs: 3000 });
    fault({ answer: { status: 429, headers: { "retry-after": "1" } } });
    const start = performance.now();
    await read();
    expect(performance.now() - start).toBeGreaterThanOrEqual(1000);
    fault({
      answer: { status: 429, headers: { "retry-after": "3600" } },
      times: 9,
    });
    const error = await failure(read);
    expect(error.code).toBe("REGISTRY_FAILED");
    expect(error.hint).toContain("Retry-After: 3600");
  });

  test("an interrupt ends it at once", async () => {
    const abort = new AbortController();
    const { fault, read } = filled({ signal: abort.signal });
    fault({ act: drip(50), times: 99 });
    setTimeout(() => abort.abort(), 50);
    expect((await failure(read)).code).toBe("INTERRUPTED");
  });
});

test("a full disk is the disk's failure, and the registry is not asked again", async () => {
  const { name, repository, content } = fresh();
  content.blobs.set(layer.digest, LAYER);
  const fd = openSync("/dev/full", "w");
  const saved = repository.save(layer, fd, () => {}).catch((error: unknown) => error);
  expect(await saved).toMatchObject({ code: "ENOSPC" });
  closeSync(fd);
  expect(registry.requests("GET", new RegExp(`${name}/blobs`))).toHaveLength(1);
});

describe("documents", () => {
  test.each(["cut", "500", "drip"])("%s passes", async (kind) => {
    const { name, repository } = fresh({ deadlineMs: 1500 });
    registry.addManifest(name, { schemaVersion: 2, layers: [] }, "latest");
    const act = kind === "cut" ? cutAfter(5) : drip(50);
    registry.faults.push({
      method: "GET",
      path: new RegExp(name),
      ...(kind === "500" ? { answer: { status: 500 } } : { act }),
    });
    expect((await repository.resolve({})).entry?.refName).toBe("latest");
  });

  test("an error page without end is not read without end", async () => {
    const { name, repository } = fresh();
    registry.faults.push({
      path: new RegExp(name),
      times: 9,
      act: (_, response) => {
        response.writeHead(403);
        const timer = setInterval(() => response.write("x".repeat(65_536)), 1);
        response.on("close", () => clearInterval(timer));
      },
    });
    expect((await failure(() => repository.resolve({}))).code).toBe("REGISTRY_DENIED");
  });
});

describe("upload", () => {
  function target(options = {}) {
    const found = fresh(options);
    const fault = (one: Omit<Fault, "path">) =>
      registry.faults.push({
        path: new RegExp(`${found.name}/blobs/uploads`),
        ...one,
      });
    let opened = 0;
    const store = {
      location: "test",
      stat: async () => SIZE,
      read: async () => LAYER,
      locate: async () => undefined,
      open: async () => {
        opened += 1;
        let at = 0;
        return new ReadableStream<Uint8Array>({
          pull(controller) {
            if (at >= SIZE) return controller.close();
            controller.enqueue(LAYER.subarray(at, at + 100_001));
            at += 100_001;
          },
        });
      },
    };
    const put = () => found.repository.put(layer, { store });
    return { ...found, fault, put, opened: () => opened };
  }

  test.each([1, 65_536, SIZE])(
    "a break after %d bytes starts it anew from a source that is opened again",
    async (resetAfter) => {
      const { fault, put, content, opened } = target();
      fault({ method: "PUT", resetAfter });
      expect(await put()).toBe("copied");
      expect(content.blobs.get(layer.digest)).toEqual(Buffer.from(LAYER));
      expect(opened()).toBe(2);
    },
  );

  test.each([
    ["500", { status: 500 }],
    ["429", { status: 429, headers: { "retry-after": "0" } }],
    ["a proxy's bare 400", { status: 400, body: "<html>timeout</html>" }],
    [
      "a lost upload",
      {
        status: 404,
        body: '{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":""}]}',
      },
    ],
  ] as [string, Answer][])("%s passes", async (_, answer) => {
    const { fault, put } = target();
    fault({ method: "PUT", answer });
    fault({ method: "POST", answer: { status: 503 } });
    expect(await put()).toBe("copied");
  });

  test("pieces go on from where the registry has them", async () => {
    const { name, fault, put, content } = target({ chunkSize: 1_000_000 });
    fault({ method: "PUT", answer: { status: 413 } });
    registry.faults.push({
      method: "PATCH",
      path: new RegExp(name),
      resetAfter: 400_000,
    });
    expect(await put()).toBe("copied");
    expect(content.blobs.get(layer.digest)).toEqual(Buffer.from(LAYER));
    expect(registry.requests("GET", /uploads/).length).toBeGreaterThan(0);
  });

  test("a registry that always fails ends it, and the upload is given up", async () => {
    const { fault, put, content, name } = target();
    fault({ method: "PUT", answer: { status: 503 }, times: 99 });
    expect((await failure(put)).code).toBe("REGISTRY_FAILED");
    expect(content.blobs.size).toBe(0);
    expect(registry.requests("DELETE", new RegExp(name))).toHaveLength(1);
  });

  test("a server that takes everything and says nothing ends with the deadline", async () => {
    const { fault, put } = target({ deadlineMs: 400 });
    fault({ method: "PUT", act: () => {}, times: 99 });
    expect((await failure(put)).code).toBe("REGISTRY_FAILED");
  });

  test("a failed tag leaves the old one", async () => {
    const { name, repository, content } = fresh();
    registry.addManifest(name, { layers: [] }, "main");
    const before = content.tags.get("main");
    registry.faults.push({
      method: "PUT",
      path: new RegExp(`${name}/manifests`),
      times: 99,
      resetAfter: 0,
    });
    const bytes = new TextEncoder().encode('{"layers":[],"x":1}');
    const descriptor = describeBytes(bytes, "application/vnd.oci.image.manifest.v1+json");
    const error = await failure(() =>
      repository.publish([
        {
          descriptor,
          bytes,
          names: [{ kind: "set", name: { refName: "main" } }],
        },
      ]),
    );
    expect(error.code).toBe("REGISTRY_FAILED");
    expect(content.tags.get("main")).toBe(before!);
  });
});

describe("other hosts", () => {
  /** A registry with a login, and another host that gives and takes anything. */
  async function pair() {
    const own = await started(TestRegistry.start({ basic: USER }));
    own.addBlob("app", LAYER);
    const other = await started(
      new TestServer(({ method }) =>
        method === "GET" || method === "HEAD" ? { status: 200, body: LAYER } : { status: 201 },
      ).listen(),
    );
    return { own, other };
  }

  test.each([301, 302, 303, 307, 308])(
    "a redirect with %d leads there without the login",
    async (status) => {
      const { own, other } = await pair();
      own.faults.push({
        method: "GET",
        path: /app\/blobs/,
        times: 2,
        answer: ({ headers }) =>
          headers["authorization"]
            ? { status, headers: { location: `${other.origin}/s?sig=hidden` } }
            : { status: 401, headers: { "www-authenticate": "Basic" } },
      });
      const repository = openRepository(`${own.domain}/app`, USER);
      expect(await readAll(await repository.open(layer))).toEqual(Buffer.from(LAYER));
      expect(other.seen).toHaveLength(1);
      expect(JSON.stringify(other.seen[0]?.headers)).not.toMatch(/authorization|s3cret|cookie/);
    },
  );

  test("an upload goes to a private address of another host only when that is allowed, and never with the login", async () => {
    const { own, other } = await pair();
    const bytes = noise(3_000_000, 9);
    const wanted = describeBytes(bytes);
    const fault: Fault = {
      method: "POST",
      path: /app2\/blobs\/uploads/,
      times: 99,
      answer: ({ headers }) =>
        headers["authorization"]
          ? {
              status: 202,
              headers: { location: `${other.origin}/u?sig=x%2Fy` },
            }
          : { status: 401, headers: { "www-authenticate": "Basic" } },
    };
    own.faults.push(fault);
    const careful = openRepository(`${own.domain}/app2`, USER);
    const error = await failure(() => careful.put(wanted, { bytes }));
    expect(error.code).toBe("REGISTRY_FAILED");
    expect(error.message).toContain("a private address of another host");
    expect(error.message).not.toContain("sig=");
    expect(other.seen).toHaveLength(0);
    const free = openRepository(`${own.domain}/app2`, {
      ...USER,
      allowPrivateUpload: true,
    });
    expect(await free.put(wanted, { bytes })).toBe("copied");
    expect(other.seen[0]?.url).toBe(`/u?sig=x%2Fy&digest=${encodeURIComponent(wanted.digest)}`);
    expect(other.seen[0]?.headers["authorization"]).toBeUndefined();
  });

  test("a redirected PUT is held to the same rules", async () => {
    const { own, other } = await pair();
    own.faults.push({
      method: "PUT",
      path: /app3/,
      answer: { status: 307, headers: { location: `${other.origin}/u` } },
    });
    const repository = openRepository(`${own.domain}/app3`, USER);
    const bytes = noise(10, 3);
    const error = await failure(() => repository.put(describeBytes(bytes), { bytes }));
    expect(error.message).toContain("a private address of another host");
    expect(other.seen).toHaveLength(0);
  });

  test("a challenge of another host is not answered", async () => {
    const { own, other } = await pair();
    other.answer = () => ({
      status: 401,
      headers: { "www-authenticate": "Basic realm=x" },
    });
    own.faults.push({
      method: "GET",
      path: /app\/blobs/,
      times: 2,
      answer: { status: 307, headers: { location: `${other.origin}/s` } },
    });
    const repository = openRepository(`${own.domain}/app`, USER);
    expect((await failure(() => repository.open(layer))).code).toBe("REGISTRY_DENIED");
    for (const { headers } of other.seen) expect(headers["authorization"]).toBeUndefined();
  });

  test.each(["file:///etc/passwd", "//", "http://", "ftp://x.test/"])(
    "the address %p is not followed",
    async (location) => {
      const { name, repository } = fresh();
      registry.faults.push({
        path: new RegExp(name),
        times: 9,
        answer: { status: 302, headers: { location } },
      });
      expect((await failure(() => repository.stat(layer))).code).toBe("REGISTRY_FAILED");
    },
  );

  test("a redirect loop ends", async () => {
    const { name, repository } = fresh();
    registry.faults.push({
      path: new RegExp(name),
      times: 999,
      answer: ({ url }) => ({ status: 302, headers: { location: url } }),
    });
    const error = await failure(() => repository.stat(layer));
    expect(error.code).toBe("REGISTRY_FAILED");
    expect(error.message).toContain("redirected more than 20 times");
    expect(registry.requests("HEAD", new RegExp(name))).toHaveLength(21);
  });
});

test("a host that is not there is told in one sentence", async () => {
  const gone = await TestRegistry.start();
  const { domain } = gone;
  gone.stop();
  const repository = openRepository(`${domain}/app`);
  const error = await failure(() => repository.resolve({}));
  expect(error.code).toBe("REGISTRY_FAILED");
  expect(error.message).toBe(`Cannot reach registry "${domain}": the connection was refused`);
});
