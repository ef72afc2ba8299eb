import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { layoutFaults } from "../helpers/layout.ts";
import {
  evictGithub,
  freshName,
  githubEntries,
  githubLocation,
  hasStores,
} from "../helpers/object-stores.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";

const LAYOUT = join(fixture("object-utc"), "layout");
const DOCUMENT = readFileSync(join(fixture("object-utc"), "gha.json"), "utf8");
const good = async (args: string[], env: Record<string, string> = {}) => {
  const run = await cacheport([...args, "--progress=none"], { env });
  expect([run.stderr, run.code]).toEqual(["", 0]);
  return run;
};

describe.skipIf(!hasStores).each([1, 2] as const)(
  "GitHub's cache service, version %d",
  (version) => {
    const scope = freshName();
    const gha = githubLocation(version, scope);

    test("a cache is written as BuildKit writes it, and each change is a new entry", async () => {
      await evictGithub("");
      await good(["convert", LAYOUT, gha]);
      expect((await good(["cat", gha])).stdout).toBe(DOCUMENT);
      await good(["tag", gha, scope]);
      const keys = (await githubEntries()).filter(({ done }) => done).map(({ key }) => key);
      // The ref of the token is refs/heads/main.
      expect(keys.filter((key) => key.startsWith("index-"))).toEqual([
        `index-${scope}-1-f921bd05#1`,
        `index-${scope}-1-f921bd05#2`,
      ]);
      const blobs = new Set(
        JSON.parse(DOCUMENT).layers.map(({ blob }: any) => `buildkit-blob-1-${blob}`),
      );
      expect(keys.filter((key) => !key.startsWith("index-")).toSorted()).toEqual(
        [...blobs].toSorted() as string[],
      );
    });

    test("it comes back as the manifest that it was", async () => {
      const back = join(tempFolder(), "back");
      await good(["convert", gha, `${back}:x`]);
      expect(layoutFaults(back)).toEqual([]);
      const digest = (await good(["resolve", LAYOUT, "--json"])).json().digest;
      expect((await good(["resolve", `${back}:x`, "--json"])).json().digest).toBe(digest);
    });

    test("the environment of a step is enough", async () => {
      const env = {
        ACTIONS_RUNTIME_TOKEN: process.env["STORES_GHA_TOKEN"] ?? "",
        ACTIONS_CACHE_SERVICE_V2: version === 2 ? "True" : "",
        ACTIONS_RESULTS_URL: process.env["STORES_GHA"] ?? "",
        ACTIONS_CACHE_URL: process.env["STORES_GHA"] ?? "",
      };
      const run = await good(["cat", `type=gha,scope=${scope}`], env);
      expect(run.stdout).toBe(DOCUMENT);
    });

    test("a blob that was evicted is a hole that is told, not passed over", async () => {
      const [first] = JSON.parse(DOCUMENT).layers;
      await evictGithub(`buildkit-blob-1-${first.blob}`);
      const { code, stderr } = await cacheport(["convert", gha, join(tempFolder(), "x")]);
      expect(code).toBe(4);
      expect(stderr).toContain(first.blob);
    });
  },
);

describe("outside of a workflow", () => {
  test("a clear word is said, with how to get in", async () => {
    const { code, stderr } = await cacheport(["ls", "type=gha"]);
    expect(code).toBe(2);
    expect(stderr).toContain("token not set for github actions cache");
    expect(stderr).toContain("ghaction-github-runtime");
  });
});
