import { beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hintOf } from "../src/cli-hints.ts";
import { Gate } from "../src/concurrency.ts";
import { isLoopbackHost, isPrivateHost, registryEndpoints } from "../src/registry-endpoint.ts";
import { backOff, parseRetryAfter } from "../src/registry-limits.ts";
import { followLocation } from "../src/registry-redirect.ts";
import { failure } from "./helpers/errors.ts";
import {
  describeBytes,
  noise,
  openRepository,
  readAll,
  started,
} from "./helpers/registry-client.ts";
import { tempFolder } from "./helpers/temp.ts";
import { TestRegistry, TestServer } from "./helpers/test-registry.ts";

const LAYER = noise(1_200_000);
const layer = describeBytes(LAYER);

describe("registryEndpoints", () => {
  test.each([
    ["reg.test", {}, ["https://reg.test"]],
    ["reg.test:5000", {}, ["https://reg.test:5000"]],
    ["docker.io", {}, ["https://registry-1.docker.io"]],
    ["localhost:5000", {}, ["http://localhost:5000", "https://localhost:5000"]],
    ["127.9.9.9", {}, ["http://127.9.9.9", "https://127.9.9.9"]],
    ["[::1]:5000", {}, ["http://[::1]:5000", "https://[::1]:5000"]],
    ["reg.test", { plainHttp: true }, ["http://reg.test"]],
    ["reg.test", { insecure: true }, ["https://reg.test", "http://reg.test"]],
    ["localhost", { insecure: true }, ["https://localhost", "http://localhost"]],
    ["localhost", { caFile: "x" }, ["https://localhost", "http://localhost"]],
  ])("%s with %j", (domain, options, expected) => {
    const ways = registryEndpoints(domain, options);
    expect(ways.map(({ origin }) => origin)).toEqual(expected);
    expect(ways[0]?.verify).toBe(!("insecure" in options));
  });
});

test.each([
  ["localhost", true, true],
  ["x.localhost", true, true],
  ["localhost.evil.test", false, false],
  ["127.0.0.1", true, true],
  ["[::1]", true, true],
  ["[::ffff:7f00:1]", true, true],
  ["10.1.2.3", false, true],
  ["172.16.0.1", false, true],
  ["172.32.0.1", false, false],
  ["192.168.1.1", false, true],
  ["169.254.169.254", false, true],
  ["[::ffff:a9fe:a9fe]", false, true],
  ["100.64.0.1", false, true],
  ["0.0.0.0", false, true],
  ["[::]", false, true],
  ["[fe80::1]", false, true],
  ["[fd00::1]", false, true],
  ["[2001:db8::1]", false, false],
  ["8.8.8.8", false, false],
  ["10.example", false, false],
])("the host %s: loopback %p, private %p", (host, loopback, hidden) => {
  expect(isLoopbackHost(host)).toBe(loopback);
  expect(isPrivateHost(host)).toBe(hidden);
});

describe("followLocation", () => {
  const rules = {
    origin: "https://reg.test:5000",
    domain: "reg.test:5000",
    upload: true,
    allowPrivateUpload: false,
    verify: true,
  };
  const base = new URL("https://reg.test:5000/v2/a/blobs/uploads/");
  test.each([
    ["/v2/x?_state=a%2Fb%3D", "https://reg.test:5000/v2/x?_state=a%2Fb%3D"],
    ["http://reg.test:5000/x", "https://reg.test:5000/x"],
    ["https://s3.test/x?y", "https://s3.test/x?y"],
    ["https://u:p@s3.test/x", "https://s3.test/x"],
  ])("%s leads to %s", (location, expected) => {
    expect(followLocation(location, base, rules).href).toBe(expected);
  });
  test.each([
    null,
    "http://s3.test/x",
    "https://10.0.0.1/x",
    "https://0x7f.1/x",
    "https://2130706433/",
    "https://[::ffff:127.0.0.1]/",
    "https://localhost/x",
    "data:text/plain,x",
  ])("%p is refused", async (location) => {
    const error = await failure(() => followLocation(location, base, rules));
    expect(error.code).toBe("REGISTRY_FAILED");
  });
  test("without verification plain HTTP may follow", () => {
    const loose = { ...rules, verify: false };
    const url = followLocation("http://s3.test/x", base, loose);
    expect(url.href).toBe("http://s3.test/x");
  });
});

describe("limits", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  test.each([
    [null, undefined],
    ["", undefined],
    ["7", 7000],
    [" 0 ", 0],
    ["-1", undefined],
    ["1.5", undefined],
    ["99999999999", undefined],
    ["Thu, 01 Jan 2026 00:00:30 GMT", 30_000],
    ["Wed, 31 Dec 2025 00:00:00 GMT", 0],
    ["soon", undefined],
  ])("Retry-After %p is %p ms", (header, expected) => {
    expect(parseRetryAfter(header, now)).toBe(expected);
  });

  test("pauses grow to a bound and are never the same for all", () => {
    for (let failures = 1; failures < 40; failures++) {
      const pause = backOff(failures, 500);
      const most = Math.min(500 * 2 ** (failures - 1), 8000);
      expect(pause).toBeGreaterThanOrEqual(most / 2);
      expect(pause).toBeLessThanOrEqual(most);
    }
  });

  test("the gate keeps its size and its order, and leaving twice counts once", async () => {
    const gate = new Gate(2);
    const leaves = await Promise.all([gate.enter(), gate.enter()]);
    const order: string[] = [];
    const heavy = gate.enter(5).then((leave) => {
      order.push("heavy");
      return leave;
    });
    const light = gate.enter().then((leave) => {
      order.push("light");
      return leave;
    });
    leaves[0]!();
    leaves[0]!();
    await Bun.sleep(1);
    expect(order).toEqual([]);
    leaves[1]!();
    (await heavy)();
    (await light)();
    expect(order).toEqual(["heavy", "light"]);
    gate.resize(1);
    (await gate.enter())();
  });

  test("no more requests run at once than were allowed", async () => {
    const registry = await started(TestRegistry.start());
    const repository = openRepository(`${registry.domain}/app`, { jobs: 3 });
    const blobs = Array.from({ length: 12 }, (_, seed) => noise(200_000, seed + 1));
    await Promise.all(blobs.map((bytes) => repository.put(describeBytes(bytes), { bytes })));
    expect(registry.busiest).toBeLessThanOrEqual(3);
    await Promise.all(
      blobs.map(async (bytes) => readAll(await repository.open(describeBytes(bytes)))),
    );
    expect(registry.busiest).toBeLessThanOrEqual(3);
  });
});

describe("TLS", () => {
  const folder = tempFolder();
  const file = (name: string) => join(folder, name);
  let tls: { key: string; cert: string };
  let registry: TestRegistry;
  beforeAll(async () => {
    const openssl = async (...parts: string[][]) => {
      const child = Bun.spawn(["openssl", ...parts.flat()], {
        stdout: "ignore",
        stderr: "ignore",
      });
      expect(await child.exited).toBe(0);
    };
    const subject = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    await openssl(
      ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=Test CA"],
      [...subject, "-keyout", file("ca.key"), "-out", file("ca.pem")],
    );
    await openssl(
      ["req", "-nodes", "-subj", "/CN=127.0.0.1", ...subject],
      ["-addext", "subjectAltName=IP:127.0.0.1"],
      ["-keyout", file("key.pem"), "-out", file("request.pem")],
    );
    await openssl(
      ["x509", "-req", "-days", "2", "-in", file("request.pem")],
      ["-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial"],
      ["-copy_extensions", "copy", "-out", file("cert.pem")],
    );
    tls = {
      key: readFileSync(file("key.pem"), "utf8"),
      cert: readFileSync(file("cert.pem"), "utf8"),
    };
    registry = await started(TestRegistry.start({ tls }));
  });

  test("a private authority is trusted when it is given", async () => {
    const repository = openRepository(`${registry.domain}/app`, {
      caFile: file("ca.pem"),
    });
    expect(await repository.put(layer, { bytes: LAYER })).toBe("copied");
    expect(await readAll(await repository.open(layer))).toEqual(Buffer.from(LAYER));
  });

  test("a file goes there as a stream, its progress told", async () => {
    const path = file("blob");
    writeFileSync(path, LAYER);
    const locate = async () => ({
      path,
      offset: 0,
      size: LAYER.length,
      disposable: false,
    });
    const unused = () => Promise.reject(new Error("not to be called"));
    const store = {
      location: "test",
      stat: unused,
      read: unused,
      open: unused,
      locate,
    };
    const repository = openRepository(`${registry.domain}/file`, {
      caFile: file("ca.pem"),
    });
    const steps: number[] = [];
    const onBytes = (bytes: number) => steps.push(bytes);
    expect(await repository.put(layer, { store }, { onBytes })).toBe("copied");
    expect(steps.length).toBeGreaterThan(1);
    expect(steps.reduce((sum, bytes) => sum + bytes)).toBe(LAYER.length);
    writeFileSync(path, LAYER.subarray(0, 1_100_000));
    for (const host of [registry, await started(TestRegistry.start())]) {
      const other = openRepository(`${host.domain}/file2`, {
        caFile: file("ca.pem"),
      });
      const error = await failure(() => other.put(layer, { store }));
      expect(error.code).toBe("SIZE_MISMATCH");
      rmSync(path, { force: true });
      const gone = await failure(() => other.put(layer, { store }));
      expect(gone.code).toBe("IO_FAILED");
      writeFileSync(path, LAYER.subarray(0, 1_100_000));
    }
  });

  test("and not trusted when it is not", async () => {
    const repository = openRepository(`${registry.domain}/app`);
    const error = await failure(() => repository.stat(layer));
    expect(error.code).toBe("REGISTRY_FAILED");
    expect(hintOf(error)).toContain("--ca-file");
    const missing = openRepository(`${registry.domain}/app`, {
      caFile: file("nope.pem"),
    });
    expect((await failure(() => missing.stat(layer))).code).toBe("IO_FAILED");
  });

  test("insecure takes any certificate, and plain HTTP where there is no TLS", async () => {
    const insecure = { insecure: true };
    const repository = openRepository(`${registry.domain}/app`, insecure);
    await repository.put(layer, { bytes: LAYER });
    const plain = await started(TestRegistry.start());
    const other = openRepository(`${plain.domain}/app`, insecure);
    expect(await other.put(layer, { bytes: LAYER })).toBe("copied");
  });

  test("a refused connection with a port is no reason to try plain HTTP", async () => {
    const gone = await TestRegistry.start();
    const { domain } = gone;
    gone.stop();
    const repository = openRepository(`${domain}/app`, { insecure: true });
    const error = await failure(() => repository.stat(layer));
    expect(error.message).toContain("the connection was refused");
  });

  test("an upload does not go from HTTPS to plain HTTP", async () => {
    const other = await started(new TestServer(() => ({ status: 201 })).listen());
    registry.faults.push({
      method: "POST",
      path: /app9/,
      answer: { status: 202, headers: { location: `${other.origin}/u` } },
    });
    const repository = openRepository(`${registry.domain}/app9`, {
      caFile: file("ca.pem"),
      allowPrivateUpload: true,
    });
    const error = await failure(() => repository.put(layer, { bytes: LAYER }));
    expect(error.message).toContain("by plain HTTP");
    expect(other.seen).toHaveLength(0);
  });
});

test("a proxy of the environment is used, except for this machine", async () => {
  const registry = await started(TestRegistry.start());
  const proxy = await started(
    new TestServer((request) => ({
      status: request.url.startsWith("http://registry.test/") ? 404 : 500,
    })).listen(),
  );
  const before = process.env["HTTP_PROXY"];
  process.env["HTTP_PROXY"] = proxy.origin;
  try {
    const near = openRepository(`${registry.domain}/app`);
    expect(await near.put(layer, { bytes: LAYER })).toBe("copied");
    expect(proxy.seen).toHaveLength(0);
    const far = openRepository("registry.test/app", { plainHttp: true });
    expect(await far.stat(layer)).toBeUndefined();
    expect(proxy.seen).toHaveLength(1);
  } finally {
    if (before === undefined) delete process.env["HTTP_PROXY"];
    else process.env["HTTP_PROXY"] = before;
  }
});
