import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { findCredential } from "../src/registry-credentials.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";

const auth = (text: string) => ({ auth: Buffer.from(text).toString("base64") });
const user = (username: string, password: string) => ({ username, password });

function write(path: string, value: unknown): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, typeof value === "string" ? value : JSON.stringify(value));
  return path;
}

/** Looks a host and a repository up in one config.json. */
async function look(config: unknown, name: string, env = {}) {
  const home = tempFolder();
  write(join(home, ".docker", "config.json"), config);
  const slash = name.indexOf("/");
  const [domain, path] = [name.slice(0, slash), name.slice(slash + 1)];
  return await findCredential(domain, path, { env, home, helperTimeout: 2000 });
}

/** A PATH with a credential helper. */
function helper(name: string, script: string) {
  const folder = tempFolder();
  const path = write(join(folder, `docker-credential-${name}`), `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return { PATH: `${folder}:/usr/bin:/bin` };
}

describe("keys", () => {
  test.each([
    ["reg.test", "reg.test/app", true],
    ["https://reg.test", "reg.test/app", true],
    ["https://reg.test/v1/", "reg.test/app", true],
    ["http://reg.test/v2", "reg.test/app", true],
    ["reg.test:443", "reg.test/app", false],
    ["reg.test", "reg.test:5000/app", false],
    ["reg.test:5000", "reg.test:5000/app", true],
    ["reg", "reg.test/app", false],
    ["eg.test", "reg.test/app", false],
    ["reg.test.evil", "reg.test/app", false],
    ["reg.test/team", "reg.test/team/app", true],
    ["reg.test/team/app", "reg.test/team/app", true],
    ["reg.test/tea", "reg.test/team/app", false],
    ["reg.test/team/app/x", "reg.test/team/app", false],
    ["https://index.docker.io/v1/", "docker.io/library/alpine", true],
    ["docker.io", "docker.io/library/alpine", true],
    ["docker.io/library", "docker.io/library/alpine", true],
    ["https://index.docker.io/v1/", "reg.test/app", false],
  ])("%s for %s: %p", async (key, name, good) => {
    const { credential } = await look({ auths: { [key]: auth("u:p") } }, name);
    expect(credential).toEqual(good ? user("u", "p") : undefined);
  });

  test("the most specific key wins", async () => {
    const auths = {
      "reg.test": auth("a:1"),
      "reg.test/team": auth("b:2"),
      "reg.test/team/app": auth("c:3"),
    };
    for (const [name, username] of [
      ["reg.test/other", "a"],
      ["reg.test/team/else", "b"],
      ["reg.test/team/app", "c"],
    ])
      expect((await look({ auths }, name!)).credential?.username).toBe(username!);
  });
});

test.each([
  [auth("u:p:with:colons"), user("u", "p:with:colons")],
  [auth("u:"), user("u", "")],
  [auth("u:padded\0\0"), user("u", "padded")],
  [auth("nocolon"), undefined],
  [auth(":p"), undefined],
  [{}, undefined],
  [null, undefined],
  [{ username: "u", password: "p" }, user("u", "p")],
  [
    { ...auth("u:"), identitytoken: "t" },
    { username: "u", identityToken: "t" },
  ],
  [{ registrytoken: "t" }, { registryToken: "t" }],
])("the entry %j", async (entry, expected) => {
  const config = { auths: { "reg.test": entry } };
  const { credential } = await look(config, "reg.test/app");
  expect(credential).toEqual(expected);
});

test("the places are asked in order", async () => {
  const home = tempFolder();
  const runtime = tempFolder();
  const docker = tempFolder();
  const places: [string, string][] = [
    [join(home, ".config", "containers", "auth.json"), "config"],
    [join(runtime, "containers", "auth.json"), "runtime"],
    [join(home, ".docker", "config.json"), "home"],
    [join(docker, "config.json"), "docker"],
    [join(home, "given.json"), "given"],
  ];
  const env: Record<string, string> = { XDG_RUNTIME_DIR: runtime };
  for (const [path, name] of places) {
    if (name === "docker") env["DOCKER_CONFIG"] = docker;
    if (name === "given") env["REGISTRY_AUTH_FILE"] = path;
    write(path, { auths: { "reg.test": auth(`${name}:p`) } });
    const found = await findCredential("reg.test", "app", { env, home });
    expect(found.credential?.username).toBe(name);
  }
  env["DOCKER_AUTH_CONFIG"] = JSON.stringify({
    auths: { "reg.test": auth("variable:p") },
  });
  const found = await findCredential("reg.test", "app", { env, home });
  expect(found.credential?.username).toBe("variable");
});

test.each(["{", "[]", '{"auths":[1]}', '{"auths":{"reg.test":"hunter2"}}'])(
  "the broken file %p is refused without a word of it",
  async (text) => {
    const error = await failure(() => look(text, "reg.test/app"));
    expect(error.code).toBe("DOCUMENT_INVALID");
    expect(JSON.stringify([error.message, error.hint])).not.toContain("hunter2");
  },
);

test("no file at all is no failure", async () => {
  const env = { REGISTRY_AUTH_FILE: "/nonexistent/x", DOCKER_CONFIG: "/dev" };
  expect(await findCredential("reg.test", "app", { env, home: tempFolder() })).toEqual({
    credential: undefined,
    problem: undefined,
  });
});

describe("helpers", () => {
  const ANSWER = `read server; echo "{\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"`;

  test("credHelpers serves its host, credsStore the others", async () => {
    const env = helper("one", ANSWER);
    const config = { credHelpers: { "reg.test": "one" }, credsStore: "none" };
    expect((await look(config, "reg.test/app", env)).credential).toEqual(user("reg.test", "s"));
    const other = await look(config, "other.test/app", env);
    expect(other.credential).toBeUndefined();
    expect(other.problem).toBe("docker-credential-none is not installed");
    const hub = await look({ credsStore: "one" }, "docker.io/library/x", env);
    expect(hub.credential?.username).toBe("https://index.docker.io/v1/");
  });

  test("a token comes under its own user name", async () => {
    const env = helper("one", `echo '{"Username":"<token>","Secret":"t"}'`);
    const { credential } = await look({ credsStore: "one" }, "reg.test/app", env);
    expect(credential).toEqual({ identityToken: "t" });
  });

  test.each([
    ["echo 'credentials not found in native keychain'; exit 1", undefined],
    ["exit 3", "docker-credential-one failed with exit code 3"],
    ["echo secret-text", "docker-credential-one gave no valid answer"],
    ["sleep 20", "docker-credential-one did not answer in time"],
  ])("%s falls back to what the file has", async (script, problem) => {
    const env = helper("one", script);
    const config = { credsStore: "one", auths: { "x.test": auth("u:p") } };
    const none = await look(config, "reg.test/app", env);
    expect(none).toEqual({ credential: undefined, problem });
    const found = await look(config, "x.test/app", env);
    expect(found.credential).toEqual(user("u", "p"));
  });

  test("a helper's name is no path", async () => {
    for (const name of ["../x", "a/b", "a b", ";id"]) {
      const { problem } = await look({ credsStore: name }, "reg.test/app");
      expect(problem).toContain("not a plain name");
    }
  });
});
