/** When a login is sent, where it never goes, and what token servers may answer. */
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hintOf } from "../src/cli-hints.ts";
import { Authorizer } from "../src/registry-auth.ts";
import type { AuthorizerOptions, TokenRequest } from "../src/registry-auth.ts";
import { isLocalHost } from "../src/registry-endpoint.ts";
import { failure } from "./helpers/errors.ts";
import { openRepository, started } from "./helpers/registry-client.ts";
import { ask } from "./helpers/registry-commands.ts";
import { tempFolder } from "./helpers/temp.ts";
import { TestRegistry, TestServer, TestTokenServer } from "./helpers/test-registry.ts";
import type { Answer } from "./helpers/test-registry.ts";

const USER = { username: "tester", password: "s3cret-word" };
/** One way to go, so that no question before the first request is counted. */
const PLAIN = { ...USER, plainHttp: true };
const BASIC = `Basic ${Buffer.from("tester:s3cret-word").toString("base64")}`;

/** An environment whose Docker config logs in at one key. */
function loggedIn(key: string, more: Record<string, string> = {}) {
  const folder = tempFolder();
  const auths = { [key]: { auth: BASIC.slice(6) } };
  writeFileSync(join(folder, "config.json"), JSON.stringify({ auths }));
  return { env: { DOCKER_CONFIG: folder, ...more } };
}

/** Wants a login for everything, and refuses in its own way below `/v2/`. */
async function shy(answer: Answer) {
  const registry = await started(TestRegistry.start());
  registry.addManifest("app", { schemaVersion: 2, layers: [] }, "a");
  const own = registry.answer;
  registry.answer = (request) => {
    if (request.headers["authorization"] === BASIC) return own(request);
    const headers = { "www-authenticate": 'Basic realm="x"' };
    return request.url === "/v2/" ? { status: 401, headers } : answer;
  };
  return registry;
}

describe("a login that exists", () => {
  test.each([401, 403, 404])(
    "is sent where %d comes without a challenge, after one question to /v2/",
    async (status) => {
      const registry = await shy({ status });
      const repository = openRepository(`${registry.domain}/app`, PLAIN);
      expect((await repository.resolve({ name: "a" })).entry?.refName).toBe("a");
      expect(await repository.listNames()).toEqual(["a"]);
      const other = openRepository(`${registry.domain}/app`, { plainHttp: true });
      registry.seen.length = 0;
      expect((await failure(() => other.resolve({ name: "a" }))).exitCode).toBeGreaterThan(2);
      expect(registry.requests("GET", /^\/v2\/$/)).toHaveLength(0);
    },
  );

  test("is not sent where /v2/ wants none, and the first answer counts", async () => {
    const registry = await started(TestRegistry.start());
    const repository = openRepository(`${registry.domain}/app`, PLAIN);
    expect((await failure(() => repository.resolve({ name: "a" }))).code).toBe("NAME_NOT_FOUND");
    expect(registry.seen.every(({ headers }) => headers["authorization"] === undefined)).toBeTrue();
    expect(registry.requests("GET", /^\/v2\/$/)).toHaveLength(1);
  });

  test.each(["https://HOST/some/path/", "http://HOST/a/b?c", "https://HOST/v2/"])(
    "counts for the host under the key %s",
    async (key) => {
      const registry = await shy({ status: 401 });
      const options = loggedIn(key.replace("HOST", registry.domain));
      const run = await ask(registry, ["ls", `${registry.domain}/app`], options);
      expect([run.code, run.stderr]).toEqual([0, ""]);
    },
  );

  test("a key without a scheme is a repository and counts for no other", async () => {
    const registry = await shy({ status: 401 });
    const run = await ask(
      registry,
      ["ls", `${registry.domain}/app`],
      loggedIn(`${registry.domain}/team`),
    );
    expect(run.code).toBe(5);
  });

  test.each(["{", "[]", '{"auths":3}'])(
    "a broken DOCKER_AUTH_CONFIG is warned about and passed over: %s",
    async (text) => {
      const registry = await shy({ status: 401 });
      const options = loggedIn(registry.domain, { DOCKER_AUTH_CONFIG: text });
      const run = await ask(registry, ["ls", `${registry.domain}/app`], options);
      expect(run.code).toBe(0);
      expect(run.stderr).toMatch(/DOCKER_AUTH_CONFIG.*passed over\n$/);
      expect(run.stderr.match(/passed over/g)).toHaveLength(1);
    },
  );
});

test("a credential helper that leaves a child with its output open has answered", async () => {
  const registry = await shy({ status: 401 });
  const folder = tempFolder();
  const path = join(folder, "docker-credential-lazy");
  writeFileSync(
    path,
    `#!/bin/sh\nsleep 60 &\necho $! > ${folder}/child\necho '{"Username":"tester","Secret":"s3cret-word"}'\n`,
  );
  chmodSync(path, 0o755);
  mkdirSync(join(folder, "docker"));
  writeFileSync(join(folder, "docker", "config.json"), '{"credsStore":"lazy"}');
  const env = { PATH: `${folder}:/usr/bin:/bin`, DOCKER_CONFIG: join(folder, "docker") };
  const run = await ask(registry, ["ls", `${registry.domain}/app`], { env });
  expect([run.code, run.stderr]).toEqual([0, ""]);
  // It ended before the child did, which is still there.
  const child = Number(await Bun.file(join(folder, "child")).text());
  expect(() => process.kill(child, 0)).not.toThrow();
  process.kill(child);
});

describe("a token", () => {
  test.each([
    ['{"token":"t-1","expires_in":"300"}'],
    ['{"token":"t-1","expires_in":"soon","issued_at":5,"refresh_token":[]}'],
    ['{"token":null,"access_token":"t-1","expires_in":null}'],
    ['{"token":7,"access_token":"t-1","expires_in":-3,"scope":{}}'],
    ['{"token":"","access_token":"t-1","expires_in":1e300}'],
  ])("is taken from %s", async (body) => {
    const requests: TokenRequest[] = [];
    const auth = authorizer({
      send: async (request) => {
        requests.push(request);
        return { status: 200, body: new TextEncoder().encode(body) };
      },
    });
    await auth.challenged('Bearer realm="https://auth.example/t"', SCOPES, undefined);
    expect(await auth.header(SCOPES)).toBe("Bearer t-1");
    expect(await auth.header(SCOPES)).toBe("Bearer t-1");
    expect(requests).toHaveLength(1);
  });

  test("of an endless answer is told as that, without advice that does not help", async () => {
    const server = await started(new TestServer(() => ({ status: 404 })).listen());
    server.answer = ({ url }) =>
      url.startsWith("/token")
        ? { status: 200, body: `{"token":"${"x".repeat(3_000_000)}"}` }
        : { status: 401, headers: { "www-authenticate": `Bearer realm="${server.origin}/token"` } };
    const run = await ask(server, ["resolve", `${server.domain}/app:a`, "--json"]);
    const { code, message, hint } = run.json().error;
    expect(code).toBe("REGISTRY_FAILED");
    expect(message).toContain("token server");
    expect(hint ?? "").not.toContain("--max-document");
  });
});

const SCOPES = ["repository:app:pull"];

function authorizer(options: Partial<AuthorizerOptions>, credential = {}): Authorizer {
  return new Authorizer({
    domain: "registry.example",
    origin: async () => "https://registry.example",
    credentials: async () => ({
      credential: Object.keys(credential).length > 0 ? credential : undefined,
    }),
    send: async () => ({ status: 200, body: new TextEncoder().encode('{"token":"t"}') }),
    ...options,
  });
}

describe("a token request", () => {
  /** Whether a registry's realm is asked, without a login. */
  async function asked(
    origin: string,
    realm: string,
    names: Record<string, string[]> = {},
    credential = {},
  ): Promise<boolean> {
    let sent = false;
    const auth = authorizer(
      {
        origin: async () => origin,
        addresses: async (hostname) => names[hostname] ?? [],
        send: async () => {
          sent = true;
          return { status: 200, body: new TextEncoder().encode('{"token":"t"}') };
        },
      },
      credential,
    );
    try {
      await auth.challenged(`Bearer realm="${realm}"`, SCOPES, undefined);
      await auth.header(SCOPES);
    } catch (error) {
      expect(error).toMatchObject({ code: "REGISTRY_DENIED" });
    }
    return sent;
  }

  test.each([
    "https://127.0.0.1/token",
    "https://localhost:8080/token",
    "http://0.0.0.0/token",
    "https://[::1]/token",
    "https://[::]/token",
    "https://[::ffff:127.0.0.1]/token",
    "http://169.254.169.254/latest/meta-data/",
    "https://[fe80::1]/token",
    "https://0x7f000001/token",
    "https://2130706433/token",
    "https://metadata.example/token",
  ])("never leads from a public registry to %s", async (realm) => {
    const names = { "metadata.example": ["169.254.169.254"] };
    expect(await asked("https://registry.example", realm, names)).toBeFalse();
    expect(await asked("https://93.184.216.34", realm, names, USER)).toBeFalse();
  });

  test.each([
    ["https://registry.example", "https://auth.example/token", {}],
    ["https://registry.example", "https://10.1.2.3/token", {}],
    ["http://127.0.0.1:5000", "http://127.0.0.1:5001/token", {}],
    ["https://10.0.0.5", "https://localhost/token", {}],
    ["https://registry.corp", "https://127.0.0.1/token", { "registry.corp": ["10.0.0.5"] }],
  ])("goes from %s to %s", async (origin, realm, names) => {
    expect(await asked(origin, realm, names as Record<string, string[]>)).toBeTrue();
  });

  test("isLocalHost tells what each machine means by itself", () => {
    for (const host of ["127.1.2.3", "localhost.", "a.localhost", "[::]", "0.1.2.3", "[febf::1]"])
      expect(isLocalHost(host)).toBeTrue();
    for (const host of ["10.0.0.1", "[fc00::1]", "[fec0::1]", "128.0.0.1", "169.253.1.1", "local"])
      expect(isLocalHost(host)).toBeFalse();
  });

  test("carries no login by plain HTTP to another machine", async () => {
    expect(await asked("http://127.0.0.1:5000", "http://auth.example/t", {}, USER)).toBeFalse();
    expect(await asked("http://127.0.0.1:5000", "http://10.0.0.9/t", {}, USER)).toBeFalse();
    expect(await asked("http://127.0.0.1:5000", "http://auth.example/t")).toBeTrue();
    expect(await asked("http://127.0.0.1:5000", "https://auth.example/t", {}, USER)).toBeTrue();
  });
});

describe("plain HTTP to another machine", () => {
  /** Stands in for a registry elsewhere: a proxy that answers for it, and refuses to tunnel. */
  async function elsewhere() {
    const registry = await shy({ status: 401, headers: { "www-authenticate": "Basic" } });
    const own = registry.answer;
    registry.answer = (request) =>
      own({ ...request, url: request.url.replace(/^http:\/\/registry\.example/, "") });
    const proxy = `http://${registry.domain}`;
    const env = { HTTP_PROXY: proxy, http_proxy: proxy };
    return { registry, options: loggedIn("registry.example", env) };
  }

  test("gets no login unless --plain-http says so", async () => {
    const { registry, options } = await elsewhere();
    const args = ["ls", "registry.example/app", "--insecure", "--json"];
    const env = { ...options.env, HTTPS_PROXY: `http://${registry.domain}` };
    const run = await ask(registry, args, { env });
    expect(run.code).not.toBe(0);
    expect(registry.seen.some(({ headers }) => headers["authorization"])).toBeFalse();
    const plain = await ask(registry, ["ls", "registry.example/app", "--plain-http"], options);
    expect([plain.code, plain.stderr]).toEqual([0, ""]);
    expect(registry.seen.some(({ headers }) => headers["authorization"] === BASIC)).toBeTrue();
  });

  test("gets no login after HTTPS failed under --insecure", async () => {
    const auth = authorizer({ origin: async () => "http://registry.example" }, USER);
    for (const challenge of ["Basic", 'Bearer realm="https://auth.example/t"']) {
      const error = await failure(() => auth.challenged(challenge, SCOPES, undefined));
      expect(error.code).toBe("REGISTRY_DENIED");
      expect(hintOf(error)).toContain("--plain-http");
    }
    const allowed = authorizer(
      { origin: async () => "http://registry.example", plainHttp: true },
      USER,
    );
    expect(await allowed.challenged("Basic", SCOPES, undefined)).toBeTrue();
    expect(await allowed.header(SCOPES)).toBe(BASIC);
  });

  test("the help says so", async () => {
    const { registry } = await elsewhere();
    const { stdout } = await ask(registry, ["help", "options"]);
    expect(stdout.replace(/\s+/g, " ")).toMatch(/--insecure .*plain HTTP .*login .*this machine/);
  });
});

test("a token server of the same machine is asked", async () => {
  const tokens = await started(TestTokenServer.start());
  tokens.users.set("tester", "s3cret-word");
  const registry = await started(TestRegistry.start({ bearer: tokens }));
  registry.addManifest("app", { schemaVersion: 2, layers: [] }, "a");
  const run = await ask(registry, ["ls", `${registry.domain}/app`], loggedIn(registry.domain));
  expect([run.code, run.stderr]).toEqual([0, ""]);
});
