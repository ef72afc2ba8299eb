import { describe, expect, test } from "bun:test";
import { normalizeScopes, parseChallenges } from "../src/registry-challenge.ts";
import { failure } from "./helpers/errors.ts";
import {
  describeBytes,
  noise,
  openRepository,
  readAll,
  started,
} from "./helpers/registry-client.ts";
import { TestRegistry, TestTokenServer } from "./helpers/test-registry.ts";

const LAYER = noise(2_000_000);
const layer = describeBytes(LAYER);
const USER = { username: "tester", password: "s3cret-word" };
const BASIC = Buffer.from("tester:s3cret-word").toString("base64");

/** What a server that means ill sends back: the header, and the password in it. */
function echo(header = ""): string {
  const token = header.replace(/^Basic /, "");
  return `${header} ${Buffer.from(token, "base64").toString()}`;
}

describe("parseChallenges", () => {
  test.each([
    [null, []],
    ["", []],
    ["Basic", [["basic", {}]]],
    ['Basic realm="a b"', [["basic", { realm: "a b" }]]],
    [
      'Bearer realm="https://a/t?x=1,2",service="r" , scope="repository:a:pull,push"',
      [
        [
          "bearer",
          {
            realm: "https://a/t?x=1,2",
            service: "r",
            scope: "repository:a:pull,push",
          },
        ],
      ],
    ],
    [
      'BASIC realm="x\\"y", Bearer REALM=https://a',
      [
        ["basic", { realm: 'x"y' }],
        ["bearer", { realm: "https://a" }],
      ],
    ],
    ['Bearer realm="unclosed', [["bearer", { realm: '"unclosed' }]]],
    ["=,=", []],
    ["Negotiate abc==, Basic realm=x", [["negotiate", {}]]],
  ])("%p", (header, expected) => {
    const found = parseChallenges(header).map(({ scheme, parameters }) => [
      scheme,
      Object.fromEntries(parameters),
    ]);
    // A token68 is of no use here; what follows it is read as far as it goes.
    expect(found.slice(0, expected.length)).toMatchObject(
      expected.map(([scheme, parameters]) =>
        header?.includes("unclosed") ? [scheme, {}] : [scheme, parameters],
      ),
    );
  });

  test("random text never throws and takes no time", () => {
    let state = 7;
    const letters = 'Bearer realm="x",=\\ \t;:';
    for (let round = 0; round < 2000; round++) {
      let text = "";
      for (let at = 0; at < round % 60; at++) {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        text += letters[(state >>> 16) % letters.length];
      }
      expect(Array.isArray(parseChallenges(text))).toBe(true);
    }
    parseChallenges('Bearer realm="'.repeat(100_000));
  });
});

test("normalizeScopes sorts, joins and drops what is empty", () => {
  expect(
    normalizeScopes([
      "repository:b:push,pull",
      "repository:a:pull",
      "repository:b:pull,delete",
      "",
      "junk",
      "repository:c:",
    ]),
  ).toEqual(["repository:a:pull", "repository:b:delete,pull,push"]);
});

describe("basic", () => {
  test("the login goes along once the registry asks for it", async () => {
    const registry = await started(TestRegistry.start({ basic: USER }));
    const repository = openRepository(`${registry.domain}/app`, USER);
    expect(await repository.put(layer, { bytes: LAYER })).toBe("copied");
    expect(registry.seen[0]?.headers["authorization"]).toBeUndefined();
    expect(registry.seen.at(-1)?.headers["authorization"]).toBe(`Basic ${BASIC}`);
  });

  test("a wrong or a missing login is denied with exit code 5 and no secret", async () => {
    const registry = await started(TestRegistry.start({ basic: USER }));
    registry.faults.push({
      path: /manifests/,
      times: 99,
      answer: ({ headers }) => ({
        status: 401,
        headers: { "www-authenticate": "Basic" },
        body: JSON.stringify({
          errors: [
            {
              code: "UNAUTHORIZED",
              message: `no \u001b[31m${echo(headers["authorization"])}`,
            },
          ],
        }),
      }),
    });
    for (const options of [{ ...USER, password: "wrong-word" }, {}]) {
      const repository = openRepository(`${registry.domain}/app`, options);
      const error = await failure(() => repository.resolve({}));
      expect(error.code).toBe("REGISTRY_DENIED");
      expect(error.exitCode).toBe(5);
      const told = JSON.stringify([error.message, error.hint, error.cause]);
      expect(told).not.toContain("wrong-word");
      expect(told).not.toContain(Buffer.from("tester:wrong-word").toString("base64"));
      expect(error.message).not.toContain("\u001b");
    }
  });
});

describe("bearer", () => {
  async function pair(users = true) {
    const tokens = await started(TestTokenServer.start());
    if (users) tokens.users.set(USER.username, USER.password);
    const registry = await started(TestRegistry.start({ bearer: tokens }));
    return { tokens, registry };
  }

  test("reads without a login by an anonymous token", async () => {
    const { tokens, registry } = await pair();
    registry.addBlob("team/app", LAYER);
    const repository = openRepository(`${registry.domain}/team/app`);
    expect(await readAll(await repository.open(layer))).toEqual(Buffer.from(LAYER));
    await repository.stat(layer);
    expect(tokens.seen).toHaveLength(1);
    const query = new URL(tokens.seen[0]!.url, "http://x").searchParams;
    expect(query.get("service")).toBe("test");
    expect(query.getAll("scope")).toEqual(["repository:team/app:pull"]);
    const bytes = noise(10);
    const error = await failure(() => repository.put(describeBytes(bytes), { bytes }));
    expect(error.code).toBe("REGISTRY_DENIED");
    expect(registry.requests("PUT")).toHaveLength(0);
  });

  test("many requests at once share one token for a scope", async () => {
    const { tokens, registry } = await pair();
    const repository = openRepository(`${registry.domain}/app`, USER);
    const blobs = Array.from({ length: 8 }, (_, seed) => noise(1000, seed + 1));
    await repository.put(describeBytes(blobs[0]!), { bytes: blobs[0]! });
    const before = tokens.seen.length;
    await Promise.all(blobs.map((bytes) => repository.put(describeBytes(bytes), { bytes })));
    expect(tokens.seen).toHaveLength(before);
    expect(before).toBe(1);
    expect(tokens.seen[0]?.headers["authorization"]).toBe(`Basic ${BASIC}`);
    // The password has gone to the token server alone.
    for (const { headers } of registry.seen)
      expect(headers["authorization"] ?? "Bearer ").toStartWith("Bearer ");
  });

  test("asks by POST where GET is not served, and with an identity token", async () => {
    const { tokens, registry } = await pair();
    tokens.get = false;
    const repository = openRepository(`${registry.domain}/app`, USER);
    expect(await repository.put(layer, { bytes: LAYER })).toBe("copied");
    const form = new URLSearchParams(Buffer.from(tokens.requests("POST")[0]!.body).toString());
    expect(form.get("grant_type")).toBe("password");
    tokens.refreshTokens.add("long-lived");
    const auths = { [registry.domain]: { identitytoken: "long-lived" } };
    const other = openRepository(`${registry.domain}/app2`, {
      env: { DOCKER_AUTH_CONFIG: JSON.stringify({ auths }) },
    });
    expect(await other.put(layer, { bytes: LAYER })).toBe("copied");
  });

  test("a token that expires in the middle of an upload is renewed", async () => {
    const { tokens, registry } = await pair();
    const repository = openRepository(`${registry.domain}/app`, USER);
    registry.faults.push({
      method: "POST",
      path: /uploads/,
      act: ({ status, headers }, response) => {
        tokens.tokens.clear();
        response.writeHead(status, { "content-length": 0, ...headers });
        response.end();
      },
    });
    expect(await repository.put(layer, { bytes: LAYER })).toBe("copied");
    expect(registry.requests("PUT")).toHaveLength(2);
    expect(tokens.seen).toHaveLength(2);
  });

  test("a refused login is denied and its secret stays untold", async () => {
    const { tokens, registry } = await pair();
    const repository = openRepository(`${registry.domain}/app`, {
      ...USER,
      password: "wrong-word",
    });
    const error = await failure(() => repository.stat(layer));
    expect(error.code).toBe("REGISTRY_DENIED");
    expect(JSON.stringify([error.message, error.hint])).not.toContain("wrong-word");
    expect(tokens.seen.length).toBeLessThanOrEqual(2);
  });

  test("a mount asks for both repositories and does without when that is refused", async () => {
    const { tokens, registry } = await pair();
    registry.addBlob("from", LAYER);
    const from = openRepository(`${registry.domain}/from`, USER);
    const to = openRepository(`${registry.domain}/to`, USER);
    expect(await to.put(layer, { store: from })).toBe("mounted");
    const scopes = new URL(tokens.seen.at(-1)!.url, "http://x").searchParams.getAll("scope");
    expect(scopes).toEqual(["repository:from:pull", "repository:to:pull,push"]);
    tokens.faults.push({
      path: /from.*to2|to2.*from/,
      answer: { status: 403 },
    });
    const other = openRepository(`${registry.domain}/to2`, USER);
    expect(await other.put(layer, { store: from })).toBe("copied");
  });

  test.each([
    ["no token", { status: 200, body: "{}" }],
    ["no JSON", { status: 200, body: "<html>" }],
    ["a header in the token", { status: 200, body: '{"token":"a\\r\\nb: c"}' }],
    ["a redirect", { status: 302, headers: { location: "http://x.test/" } }],
  ])("a token server that gives %s fails clearly", async (_, answer) => {
    const { tokens, registry } = await pair();
    tokens.faults.push({ path: /token/, times: 9, answer });
    const repository = openRepository(`${registry.domain}/app`, USER);
    const error = await failure(() => repository.stat(layer));
    expect(error.code).toBe("REGISTRY_FAILED");
    expect(error.message).toContain(tokens.domain);
  });

  test.each(["ftp://x/", "", "javascript:1"])(
    "a realm that is no HTTP URL is refused: %p",
    async (realm) => {
      const registry = await started(TestRegistry.start());
      registry.faults.push({
        path: /v2\/app/,
        times: 9,
        answer: {
          status: 401,
          headers: { "www-authenticate": `Bearer realm="${realm}"` },
        },
      });
      const repository = openRepository(`${registry.domain}/app`, USER);
      expect((await failure(() => repository.stat(layer))).code).toBe("REGISTRY_DENIED");
    },
  );
});
