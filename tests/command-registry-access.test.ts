/** Logins and TLS at registries, through the binary. */
import { beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY } from "./helpers/binary.ts";
import { readIndex } from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { ask, load, repositoryFaults, runHint } from "./helpers/registry-commands.ts";
import type { Asked } from "./helpers/registry-commands.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry, TestServer, TestTokenServer } from "./helpers/test-registry.ts";

const USER = { username: "tester", password: "s3cret-Word" };
const LOGIN = ["--username", USER.username, "--password-stdin"];
const encoded = (password: string): string =>
  Buffer.from(`${USER.username}:${password}`).toString("base64");
const INDEX = readIndex(fixture("app-oci-index")).manifests[0].digest;
const REPO = "team/cache";

let open: TestRegistry;
let basic: TestRegistry;
let tokens: TestTokenServer;
let bearer: TestRegistry;
beforeAll(async () => {
  open = await started(TestRegistry.start());
  basic = await started(TestRegistry.start({ basic: USER }));
  tokens = await started(TestTokenServer.start());
  tokens.users.set(USER.username, USER.password);
  bearer = await started(TestRegistry.start({ bearer: tokens }));
  for (const registry of [open, basic, bearer])
    load(registry, REPO, fixture("app-oci-index"), "main");
});
const at = ({ domain }: TestServer): string => `${domain}/${REPO}`;

/** No output holds a password, a form of it, or a token. */
function expectNoSecret({ stdout, stderr }: Asked, ...more: string[]): void {
  const secrets = [USER.password, encoded(USER.password), ...more];
  for (const secret of [...secrets, ...tokens.tokens.keys()])
    expect(stdout + stderr).not.toContain(secret);
}

/** A folder with a config.json, or such a file, that has a login for a host. */
function configFolder(host: string, password = USER.password): string {
  const folder = tempFolder();
  const auths = { [host]: { auth: encoded(password) } };
  writeFileSync(join(folder, "config.json"), JSON.stringify({ auths }));
  return folder;
}

describe("a login", () => {
  const ways: [string, (host: string) => [string[], object]][] = [
    ["--password-stdin", () => [LOGIN, { stdin: `${USER.password}\n` }]],
    ["DOCKER_CONFIG", (host) => [[], { env: { DOCKER_CONFIG: configFolder(host) } }]],
    [
      "REGISTRY_AUTH_FILE",
      (host) => {
        const file = join(configFolder(host), "config.json");
        return [[], { env: { REGISTRY_AUTH_FILE: file } }];
      },
    ],
    [
      "a credential helper",
      (host) => {
        const folder = tempFolder();
        const helper = join(folder, "docker-credential-mine");
        const reply = JSON.stringify({
          Username: USER.username,
          Secret: USER.password,
        });
        writeFileSync(helper, `#!/bin/sh\nread host\necho '${reply}'\n`);
        chmodSync(helper, 0o755);
        const config = { credHelpers: { [host]: "mine" } };
        writeFileSync(join(folder, "config.json"), JSON.stringify(config));
        const PATH = `${folder}:${process.env["PATH"]}`;
        return [[], { env: { DOCKER_CONFIG: folder, PATH } }];
      },
    ],
  ];
  test.each(ways)("from %s reads and writes", async (_, way) => {
    for (const registry of [basic, bearer]) {
      const [args, options] = way(registry.domain);
      const env = { CACHEPORT_DEBUG: "1", ...(options as any).env };
      const tag = `login-${tokens.tokens.size}`;
      const run = await ask(registry, ["convert", `${at(registry)}:main`, "-t", tag, ...args], {
        ...options,
        env,
      });
      expect([run.code, run.stderr]).toEqual([0, ""]);
      expect(registry.repository(REPO).tags.has(tag)).toBe(true);
      expectNoSecret(run);
    }
  });

  test("a wrong one is told in one sentence and is not shown", async () => {
    const wrong = "wr0ng-Word";
    const copy = ["copy", fixture("app-oci-index"), ":x"];
    for (const registry of [basic, bearer])
      for (const [command, ...rest] of [["resolve", ":main"], copy]) {
        const name = `${at(registry)}${rest.pop()}`;
        const run = await ask(registry, [command as string, ...rest, name, "--json", ...LOGIN], {
          stdin: wrong,
          env: { CACHEPORT_DEBUG: "1" },
        });
        expect(run.code).toBe(5);
        const { code, message, hint } = run.json().error;
        expect(code).toBe("REGISTRY_DENIED");
        expect(message).toMatch(/refused the login|not accept the login/);
        expect(hint).toStartWith("Check the user name and the password");
        expectNoSecret(run, wrong, encoded(wrong));
        expect(run.writes).toEqual([]);
      }
  });

  test("none is told with the ways to give one", async () => {
    const run = await ask(basic, ["ls", at(basic)]);
    expect(run.code).toBe(5);
    expect(run.stderr).toBe(
      `cacheport: Cannot list tags of "${at(basic)}": the registry wants a login (401 UNAUTHORIZED: UNAUTHORIZED)\nhint: Log in with docker login, or give --username and --password-stdin; a missing repository may be reported in the same way\n`,
    );
    // A token without a login permits to read alone.
    const read = await ask(bearer, ["resolve", `${at(bearer)}:main`]);
    expect([read.code, read.stdout]).toEqual([0, `${INDEX}\n`]);
    const write = await ask(bearer, ["tag", `${at(bearer)}:main`, "mine", "--json"], {
      env: { CACHEPORT_DEBUG: "1" },
    });
    expect(write.code).toBe(5);
    // The test registry's refusal repeats the token that it was sent.
    expect(write.json().error.message).toContain("token [secret] is not good");
    expectNoSecret(write);
  });

  test("a refusal that repeats the password is shown without it", async () => {
    basic.faults.push({
      method: "PUT",
      path: /manifests/,
      times: 2,
      answer: ({ headers: { authorization } }) => ({
        status: authorization ? 400 : 401,
        headers: { "www-authenticate": 'Basic realm="test"' },
        body: JSON.stringify({
          errors: [{ code: "X", message: `${authorization} is not good` }],
        }),
      }),
    });
    const run = await ask(basic, ["tag", `${at(basic)}:main`, "x", ...LOGIN], {
      stdin: USER.password,
      env: { CACHEPORT_DEBUG: "1" },
    });
    expect(run.code).toBe(5);
    expect(run.stderr).toContain("Basic [secret] is not good");
    expectNoSecret(run);
  });

  test("a redirect to another host carries none", async () => {
    const blobs = basic.repository(REPO).blobs;
    const other = await started(
      new TestServer(({ url }) => ({
        status: 200,
        body: blobs.get(url.slice(1)) as Uint8Array,
      })).listen(),
    );
    basic.faults.push({
      method: "GET",
      path: /\/blobs\//,
      times: 99,
      answer: ({ url }) => ({
        status: 307,
        headers: { location: `${other.origin}/${url.split("/").at(-1)}` },
      }),
    });
    const run = await ask(basic, ["verify", `${at(basic)}:main`, ...LOGIN], {
      stdin: USER.password,
    });
    basic.faults.length = 0;
    expect(run.code).toBe(0);
    expect(other.seen.length).toBeGreaterThan(8);
    for (const { headers } of other.seen) expect(headers["authorization"]).toBeUndefined();
  });

  test.each([
    ["--username without a password", ["--username", "x"], ""],
    ["a password without --username", ["--password-stdin"], "x"],
    ["--login-host without a login", ["--login-host", "x.example"], ""],
    ["an empty password", LOGIN, "\n"],
    ["an endless password", LOGIN, "x".repeat(100_000)],
    ["a host that no location has", [...LOGIN, "--login-host", "x.example"], USER.password],
  ])("%s is refused before anything is asked", async (_, args, stdin) => {
    const run = await ask(basic, ["ls", at(basic), ...args], { stdin });
    expect(run.code).toBe(2);
    expect(run.stderr).toStartWith("cacheport: Cannot log in");
    expect(run.requests).toEqual([]);
  });

  test("standard input is not a password and an archive at once", async () => {
    const run = await ask(basic, ["copy", "-", at(basic), ...LOGIN], {
      stdin: USER.password,
    });
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("both a password and an archive");
    const out = await ask(basic, ["copy", `${at(basic)}:main`, "-", "--quiet", ...LOGIN], {
      stdin: USER.password,
    });
    expect(out.code).toBe(0);
    expect(out.stdout.length).toBeGreaterThan(1000);
  });
});

describe("two registries and one login", () => {
  const shown = (server: TestServer, from: number): (string | undefined)[] =>
    server.seen.slice(from).map(({ headers }) => headers["authorization"]);

  test("the last one is shown the password, the other its own", async () => {
    const password = "0ther-Word";
    const target = await started(TestRegistry.start({ basic: { ...USER, password } }));
    const from = basic.seen.length;
    const run = await ask(target, ["copy", `${at(basic)}:main`, `${at(target)}:x`, ...LOGIN], {
      stdin: password,
      env: { DOCKER_CONFIG: configFolder(basic.domain) },
    });
    expect(run.code).toBe(0);
    expect(run.stderr).toBe(
      `The login is used at ${target.domain} only; --login-host chooses another registry\n`,
    );
    expect(repositoryFaults(target, REPO)).toEqual([]);
    const own = `Basic ${encoded(USER.password)}`;
    expect(new Set(shown(basic, from))).toEqual(new Set([undefined, own]));
    const other = `Basic ${encoded(password)}`;
    expect(new Set(shown(target, 0))).toEqual(new Set([undefined, other]));
    expectNoSecret(run, password);
  });

  test("--login-host gives it to the source, and to nobody else", async () => {
    const target = await started(TestRegistry.start({ basic: { username: "x", password: "y" } }));
    const args = ["copy", `${at(basic)}:main`, `${at(target)}:x`, ...LOGIN];
    const choice = ["--login-host", basic.domain];
    const options = { stdin: USER.password };
    const refused = await ask(target, [...args, ...choice], options);
    expect(refused.code).toBe(5);
    expect(refused.stderr).toContain(at(target));
    expect(new Set(shown(target, 0))).toEqual(new Set([undefined]));
    const taken = await ask(
      open,
      ["copy", `${at(basic)}:main`, `${at(open)}:x`, ...LOGIN, ...choice],
      options,
    );
    expect([taken.code, taken.stderr]).toEqual([0, ""]);
  });

  test("a hint repeats the options without which its command would not get there", async () => {
    const strict = await started(TestRegistry.start({ basic: USER, strict: true }));
    const run = await ask(
      strict,
      [
        "copy",
        `${at(open)}:main`,
        `${at(strict)}:x`,
        "--json",
        ...LOGIN,
        "--plain-http",
        "--login-host",
        strict.domain,
      ],
      { stdin: USER.password },
    );
    const { hint } = run.json().error;
    expect(hint).toEndWith(
      `cacheport convert ${at(open)}:main ${at(strict)}:x --to image-manifest --username tester --login-host ${strict.domain} --password-stdin --plain-http`,
    );
    expect(await runHint(hint, BINARY, USER.password)).toBe(0);
    expect(strict.repository(REPO).tags.has("x")).toBe(true);
  });
});

describe("TLS", () => {
  const folder = tempFolder();
  const file = (name: string): string => join(folder, name);
  let registry: TestRegistry;
  beforeAll(async () => {
    const child = Bun.spawn(
      [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        file("key.pem"),
        "-out",
        file("ca.pem"),
      ],
      { stdout: "ignore", stderr: "ignore" },
    );
    expect(await child.exited).toBe(0);
    const key = readFileSync(file("key.pem"), "utf8");
    const cert = readFileSync(file("ca.pem"), "utf8");
    registry = await started(TestRegistry.start({ tls: { key, cert }, basic: USER }));
    load(registry, REPO, fixture("app-oci-index"), "main");
  });

  const options = { stdin: USER.password };
  const resolve = () => ["resolve", `${at(registry)}:main`, ...LOGIN];

  test.each([
    ["--ca-file", () => ["--ca-file", file("ca.pem")], {}],
    ["--insecure", () => ["--insecure"], {}],
    ["SSL_CERT_FILE", () => [], { SSL_CERT_FILE: file("ca.pem") }],
  ])("%s reaches a registry with its own authority", async (_, args, env) => {
    const run = await ask(registry, [...resolve(), ...args()], {
      ...options,
      env,
    });
    expect([run.code, run.stdout, run.stderr]).toEqual([0, `${INDEX}\n`, ""]);
    const copy = await ask(
      registry,
      ["copy", fixture("app-image-manifest"), `${at(registry)}:x`, ...LOGIN, ...args()],
      { ...options, env },
    );
    expect(copy.code).toBe(0);
  });

  test("the option text's registry.insecure is as good as --insecure", async () => {
    const text = `type=registry,ref=${at(registry)}:main,registry.insecure=true`;
    const run = await ask(registry, ["resolve", text, ...LOGIN], options);
    expect(run.stdout).toBe(`${INDEX}\n`);
  });

  test("without them the way out is told, and the password is not sent", async () => {
    const from = registry.seen.length;
    const run = await ask(registry, resolve(), options);
    expect(run.code).toBe(1);
    expect(run.stderr).toMatch(
      /^cacheport: Cannot reach registry "127\.0\.0\.1:\d+": its certificate is not trusted \(\w+\)\nhint: Give its certificate authority with --ca-file,.*\n$/,
    );
    expect(registry.seen.slice(from)).toEqual([]);
    const missing = [...resolve(), "--ca-file", file("none.pem")];
    const none = await ask(registry, missing, options);
    expect(none.code).toBe(1);
    expect(none.stderr).toContain(`Cannot read certificates "${file("none.pem")}": no such file`);
  });
});
