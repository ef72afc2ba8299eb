import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseDigest } from "../src/digest.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { GithubService } from "../src/object-github.ts";
import { cacheport } from "./helpers/binary.ts";
import { failure } from "./helpers/errors.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { githubToken, TestGithub } from "./helpers/test-github-cache.ts";

const LAYOUT = join(fixture("object-utc"), "layout");
const DOCUMENT = readFileSync(join(fixture("object-utc"), "gha.json"), "utf8");
const BLOBS = [...new Set<string>(JSON.parse(DOCUMENT).layers.map(({ blob }: any) => blob))];

const github = new TestGithub();
afterAll(() => github.stop());
beforeEach(() => {
  github.entries.length = 0;
  github.seen.length = 0;
  github.fault = undefined;
});
const run = (args: string[], env: Record<string, string> = {}) =>
  cacheport([...args, "--progress=none"], { env });
const good = async (args: string[], env: Record<string, string> = {}) => {
  const done = await run(args, env);
  expect([done.stderr, done.code]).toEqual(["", 0]);
  return done;
};
const indexes = (): string[] => github.keys().filter((key) => key.startsWith("index-"));

describe.each([1, 2] as const)("GitHub's cache service, version %d", (version) => {
  /** The service itself, with waits that a test can wait for. */
  const service = () =>
    new GithubService(
      {
        location: "type=gha",
        url: new URL(github.url),
        version,
        token: githubToken(),
        timeout: 10_000,
        repository: undefined,
        ghtoken: undefined,
      },
      {
        env: {},
        limits: DEFAULT_LIMITS,
        jobs: 4,
        retryDelayMs: 5,
        signal: new AbortController().signal,
      },
    );
  const at = (scope = "x", token?: string): string => github.location(version, scope, token);

  test("blobs are uploaded and committed before the index, and found again", async () => {
    await good(["convert", LAYOUT, at()]);
    expect(github.keys().at(-1)).toBe("index-x-1-f921bd05#1");
    expect(github.keys().slice(0, -1).toSorted()).toEqual(
      BLOBS.map((blob) => `buildkit-blob-1-${blob}`).toSorted(),
    );
    const before = github.entries.length;
    const again = await good(["convert", LAYOUT, at("y"), "--json"]);
    expect(again.json().blobs).toMatchObject({ copied: 0 });
    expect(github.entries.length).toBe(before + 1);
  });

  test("429 is waited for; the token goes to the service alone", async () => {
    let left = 2;
    github.fault = () =>
      left-- > 0
        ? Response.json({ message: "slow" }, { status: 429, headers: { "retry-after": "0" } })
        : undefined;
    await good(["convert", LAYOUT, at()]);
    for (const { path, authorization } of github.seen) {
      const isContent = path.startsWith("/blob/");
      expect([path, authorization !== null]).toEqual([path, !isContent]);
    }
  });

  test("an address that ran out is asked for again", async () => {
    await good(["convert", LAYOUT, at()]);
    let left = 3;
    github.fault = ({ method, path }) =>
      method === "GET" && path.startsWith("/blob/") && left-- > 0 && left % 2 === 0
        ? new Response(null, { status: 403 })
        : undefined;
    await good(["convert", at(), join(tempFolder(), "back")]);
    expect(left).toBeLessThan(1);
  });

  test("a blob that another job has reserved and never finishes is an error", async () => {
    const bytes = readFileSync(join(LAYOUT, "blobs", ...(BLOBS[0] ?? "").split(":")));
    const blob = { mediaType: "x", digest: parseDigest(BLOBS[0] ?? ""), size: bytes.length };
    const entry = github.add(`buildkit-blob-1-${BLOBS[0]}`, "", false);
    const error = await failure(() => service().write(blob, { bytes }, { replace: false }));
    expect([error.code, error.message]).toEqual([
      "STORE_FAILED",
      expect.stringContaining("another job has reserved its key and does not finish it"),
    ]);
    expect(error.hint).toContain("24 hours");
    // One that is finished meanwhile is taken, when it has the right size.
    setTimeout(() => Object.assign(entry, { bytes, done: true }), 30);
    await service().write(blob, { bytes }, { replace: false });
  });

  test("a number of the index that was reserved and never finished is passed over in the end", async () => {
    const bytes = new TextEncoder().encode(DOCUMENT);
    await service().writeDocument("x", bytes);
    github.add("index-x-1-f921bd05#2", "", false);
    await service().writeDocument("x", bytes);
    expect(indexes()).toEqual(["index-x-1-f921bd05#1", "index-x-1-f921bd05#3"]);
  });

  test("two writers of one name both end well, each with a number of its own", async () => {
    const other = join(fixture("object-kolkata"), "layout");
    const runs = await Promise.all([run(["convert", LAYOUT, at()]), run(["convert", other, at()])]);
    expect(runs.map(({ code, stderr }) => [code, stderr])).toEqual([
      [0, ""],
      [0, ""],
    ]);
    expect(indexes()).toEqual(["index-x-1-f921bd05#1", "index-x-1-f921bd05#2"]);
  }, 60_000);

  test("an index whose upload fails is an error and no success", async () => {
    await good(["convert", LAYOUT, at("first")]);
    github.fault = ({ method, path, body }) =>
      (method === "PATCH" || (method === "PUT" && path.startsWith("/blob/"))) && body.length > 0
        ? Response.json({ message: "no" }, { status: 400 })
        : undefined;
    const { code } = await run(["convert", LAYOUT, at()]);
    expect(code).toBe(1);
    expect(indexes()).toEqual(["index-first-1-f921bd05#1"]);
  });

  test("a cut entry under a right key ends a conversion", async () => {
    await good(["convert", LAYOUT, at()]);
    const entry = github.entries.find(({ key }) => key.endsWith(BLOBS[0] ?? ""));
    if (entry) entry.bytes = entry.bytes.subarray(0, 3);
    const { code, stderr } = await run(["convert", at(), join(tempFolder(), "back")]);
    expect([code, stderr]).toEqual([4, expect.stringContaining(BLOBS[0] ?? "")]);
  });

  test("the indexes of all refs of the token are read as one, the own ref is written", async () => {
    const branch = githubToken([
      ["refs/heads/feature", 3],
      ["refs/heads/main", 1],
    ]);
    await good(["convert", LAYOUT, at()]);
    const one = await good(["resolve", at("x", branch), "--json"]);
    await good(["convert", join(fixture("object-kolkata"), "layout"), at("x", branch)]);
    expect(indexes()).toEqual(["index-x-1-f921bd05#1", "index-x-1-f04dcc3f#1"]);
    const both = (await good(["resolve", at("x", branch), "--json"])).json();
    expect(both.digest).not.toBe(one.json().digest);
    expect(both.mediaType).toBe("application/vnd.oci.image.index.v1+json");
    const merged = await good(["convert", at("x", branch), join(tempFolder(), "back"), "--json"]);
    expect(merged.json().source.shape).toBe("index-of-caches");
  });

  test("without the right to write, or with a token that ran out, nothing is tried", async () => {
    const reader = await run(["convert", LAYOUT, at("x", githubToken([["refs/heads/main", 1]]))]);
    expect([reader.code, reader.stderr]).toEqual([
      5,
      expect.stringContaining("permits no writing"),
    ]);
    expect(indexes()).toEqual([]);
    const old = await run(["ls", at("x", githubToken([["refs/heads/main", 3]], 1_600_000_000))]);
    expect([old.code, old.stderr]).toEqual([5, expect.stringContaining("ran out at 2020-09-13")]);
    const none = await run(["ls", at("x", "ghp_notAJsonWebToken")]);
    expect([none.code, none.stderr]).toEqual([2, expect.stringContaining("no access controls")]);
    expect(none.stderr).not.toContain("ghp_not");
  });

  test("with the REST API names are listed, blobs collected and names removed", async () => {
    const rest = `,repository=o/r,ghtoken=ghp_hush`;
    const env = { GITHUB_API_URL: `${github.url}api` };
    await good(["convert", LAYOUT, at("one")]);
    await good(["tag", at("one"), "two"]);
    const stray = `sha256:${"e".repeat(64)}`;
    github.add(`buildkit-blob-1-${stray}`, "old").created -= 72 * 3_600_000;
    const all = at().replace(",scope=x", rest);
    const list = await run(["ls", all, "--json"], env);
    expect([list.code, list.stderr]).toEqual([
      0,
      expect.stringContaining("No name reaches 1 blob"),
    ]);
    const listed = list.json();
    expect(listed.map(({ refName, digest }: any) => refName ?? digest).toSorted()).toEqual([
      "one",
      stray,
      "two",
    ]);
    expect((await good(["gc", all, "--json"], env)).json().removed).toEqual([
      { digest: stray, size: 3 },
    ]);
    await good(["untag", `${all},scope=one`], env);
    expect(indexes()).toEqual(["index-two-1-f921bd05#1"]);
    const without = await run(["gc", at().replace(",scope=x", "")]);
    expect([without.code, without.stderr]).toEqual([
      2,
      expect.stringContaining("repository=OWNER/NAME"),
    ]);
  });
});
