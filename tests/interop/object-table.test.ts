/** Every conversion among the seven places that a cache can be in, and BuildKit's own reading of them. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import {
  buildContext,
  hasPeers,
  notCached,
  PEERS_REGISTRY,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { cacheport } from "../helpers/binary.ts";
import {
  azureLocation,
  evictGithub,
  freshBucket,
  freshName,
  githubLocation,
  hasStores,
} from "../helpers/object-stores.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";
import { TestGithub } from "../helpers/test-github-cache.ts";

const good = async (...args: string[]) => {
  const run = await cacheport([...args, "--progress=none"]);
  expect([args, run.stderr, run.code]).toEqual([args, "", 0]);
  return run;
};

const PLACES = ["local", "registry", "tar", "s3", "azblob", "gha v1", "gha v2"] as const;
type PlaceName = (typeof PLACES)[number];
/** Each place as a source and as a target, under a name of its own. */
type Place = (name: string) => { source: string; target: string };

const same = (text: string) => ({ source: text, target: text });

async function places(first: TestGithub): Promise<Record<PlaceName, Place>> {
  const folder = tempFolder();
  const unique = freshName();
  const { s3 } = await freshBucket();
  return {
    local: (name) => ({
      source: `type=local,src=${folder}/cache,tag=${name}`,
      target: `type=local,dest=${folder}/cache,tag=${name}`,
    }),
    registry: (name) => same(`type=registry,ref=${PEERS_REGISTRY}/object-table/${unique}:${name}`),
    tar: (name) => same(`${folder}/cache-${name}.tar:${name}`),
    s3: (name) => same(`${s3},prefix=t/,name=${name}`),
    azblob: (name) => same(`${azureLocation(unique)},name=${name}`),
    "gha v1": (name) => same(first.location(1, `${unique}-${name}`)),
    "gha v2": (name) => same(githubLocation(2, `${unique}-${name}`)),
  };
}

/** What a cache is, wherever it is: its config's bytes, and its layers with all that is said of them. */
async function content(
  source: string,
): Promise<{ config: string; layers: unknown[]; digest: string }> {
  const { config, layers, manifest } = (await good("inspect", source, "--all", "--json")).json();
  return {
    config: config.digest,
    digest: manifest.digest,
    layers: layers.map(({ digest, size, diffId, mediaType, createdAt }: any) => ({
      digest,
      size,
      diffId,
      mediaType,
      createdAt: createdAt && Date.parse(createdAt),
    })),
  };
}

describe.skipIf(!hasStores || !hasPeers)("seven places, each into each", () => {
  const first = new TestGithub();
  afterAll(() => first.stop());

  test.each([
    ["object-utc", true],
    ["object-kolkata", false],
  ] as const)(
    "%s keeps its config and its layers on all 49 ways; manifests are equal when times are in UTC",
    async (name, isUtc) => {
      await evictGithub("");
      const all = await places(first);
      const origin = join(fixture(name), "layout");
      const expected = await content(origin);
      for (const place of PLACES) await good("convert", origin, all[place]("from").target);
      for (const from of PLACES) {
        for (const to of PLACES) {
          const target = all[to](`to-${PLACES.indexOf(from)}`);
          await good("convert", all[from]("from").source, target.target);
          const got = await content(target.source);
          expect([from, to, got.config]).toEqual([from, to, expected.config]);
          expect([from, to, got.layers]).toEqual([from, to, expected.layers]);
          if (isUtc) expect([from, to, got.digest]).toEqual([from, to, expected.digest]);
        }
      }
    },
    240_000,
  );
});

const CONTEXT = () =>
  buildContext(
    "FROM scratch AS base\nCOPY a /a\nFROM base AS one\nCOPY b /b\nFROM base\nCOPY --from=one /b /c\nCOPY d /d\n",
    { a: freshName(), b: freshName(), d: freshName() },
  );

describe.skipIf(!hasStores || !hasPeers)("BuildKit itself", () => {
  const first = new TestGithub();
  afterAll(() => first.stop());

  test("what it exported to GitHub's service or to a registry is CACHED after any way through the stores", async () => {
    await withBuildKit(async (buildkit) => {
      await evictGithub("");
      const context = CONTEXT();
      const scope = freshName();
      const ref = `${PEERS_REGISTRY}/object-buildkit/${scope}`;
      const origin: Record<string, string> = {
        registry: `type=registry,ref=${ref}:origin`,
        "gha v1": first.location(1, scope),
        "gha v2": githubLocation(2, scope),
      };
      await buildkit.prune();
      await buildkit.build({
        context,
        cacheTo: Object.values(origin).map((to) => `${to},mode=max`),
      });
      const { s3 } = await freshBucket();
      const azure = azureLocation(scope);
      const folder = join(tempFolder(), "cache");
      mkdirSync(folder);
      const imported = async (from: string): Promise<string[]> => {
        await buildkit.prune();
        const { steps } = await buildkit.build({ context, cacheFrom: [from] });
        expect(steps.length).toBeGreaterThan(2);
        return notCached(steps);
      };
      // Each of its exports, through each of the stores that it cannot write here, to each that it reads.
      const documents = new Set<string>();
      for (const [name, from] of Object.entries(origin)) {
        for (const [kind, store] of Object.entries({
          s3: `${s3},prefix=${name.replace(" ", "-")}/`,
          azure: `${azure},prefix=${name.replace(" ", "-")}`,
        })) {
          await good("convert", from, store);
          documents.add((await good("cat", store)).stdout);
          const back = {
            registry: `type=registry,ref=${ref}:${name.replace(" ", "-")}-${kind}`,
            local: `type=local,dest=${folder}/${name.replace(" ", "-")}-${kind}`,
          };
          for (const target of Object.values(back)) await good("convert", store, target);
          expect([name, kind, await imported(back.registry)]).toEqual([name, kind, []]);
          expect([name, kind, await imported(back.local.replace("dest=", "src="))]).toEqual([
            name,
            kind,
            [],
          ]);
        }
      }
      // One build, one document, whatever it went through.
      expect(documents.size).toBe(1);
      expect(documents.has((await good("cat", origin["gha v2"] ?? "")).stdout)).toBe(true);
      // And from the stores back into GitHub's service, both versions, under other scopes.
      for (const target of [
        first.location(1, `${scope}-s3`),
        githubLocation(2, `${scope}-azure`),
      ]) {
        await good(
          "convert",
          target.includes("-s3") ? `${s3},prefix=registry/` : `${azure},prefix=registry`,
          target,
        );
        expect([target, await imported(target)]).toEqual([target, []]);
      }
      expect(await imported(origin["gha v1"] ?? "")).toEqual([]);
    });
  }, 480_000);
});
