import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import {
  askAzure,
  askS3,
  azureLocation,
  freshBucket,
  freshName,
  hasStores,
  s3Keys,
} from "../helpers/object-stores.ts";
import { fixture } from "../helpers/temp.ts";

const LAYOUT = join(fixture("object-utc"), "layout");
const OTHER = join(fixture("object-kolkata"), "layout");
const DOCUMENT = JSON.parse(readFileSync(join(fixture("object-utc"), "gha.json"), "utf8"));
const BLOBS = [...new Set<string>(DOCUMENT.layers.map(({ blob }: any) => blob))];

/** A layer that no other one stands on. */
const LEAF: string = DOCUMENT.layers.find(
  (_: unknown, index: number) =>
    !DOCUMENT.layers.some(({ parent = 0 }: { parent?: number }) => parent === index),
).blob;

const good = async (...args: string[]) => {
  const run = await cacheport([...args, "--progress=none"]);
  expect([run.stderr, run.code]).toEqual(["", 0]);
  return run;
};
const names = async (store: string): Promise<string[]> =>
  (await cacheport(["ls", store, "--json", "--progress=none"]))
    .json()
    .map(({ refName }: any) => refName)
    .filter((name: unknown) => name !== null);

/** A place of its own in each store, with a plain way to its keys. */
const STORES = {
  s3: async () => {
    const { bucket, s3 } = await freshBucket();
    return {
      store: s3,
      has: async (key: string) => (await askS3("HEAD", `/${bucket}/${key}`)).status === 200,
      keys: () => s3Keys(bucket),
    };
  },
  azblob: async () => {
    const container = freshName();
    return {
      store: azureLocation(container),
      has: async (key: string) => (await askAzure("HEAD", `/${container}/${key}`)).status === 200,
      keys: async () => [],
    };
  },
};

describe.skipIf(!hasStores).each(["s3", "azblob"] as const)("looking after %s", (kind) => {
  test("tag and untag give and take names and leave blobs alone", async () => {
    const { store, has } = await STORES[kind]();
    await good("convert", LAYOUT, `${store},name=one`);
    await good("tag", `${store},name=one`, "two");
    expect((await names(store)).toSorted()).toEqual(["one", "two"]);
    expect((await good("cat", `${store},name=two`)).stdout).toBe(JSON.stringify(DOCUMENT));
    await good("untag", `${store},name=one`);
    expect(await names(store)).toEqual(["two"]);
    expect(await has(`blobs/${BLOBS[0]}`)).toBe(true);
    const gone = await cacheport(["untag", `${store},name=one`]);
    expect([gone.code, gone.stderr]).toEqual([3, expect.stringContaining('"one"')]);
    expect(gone.stderr).toContain("The names there are: two");
  });

  test("merge makes one cache of several names and moves no blob", async () => {
    const { store } = await STORES[kind]();
    await good("convert", LAYOUT, `${store},name=main`);
    await good("convert", OTHER, `${store},name=branch`);
    const run = await good(
      "merge",
      `${store},name=main`,
      `${store},name=branch`,
      `${store},name=both`,
      "--json",
    );
    expect(run.json().blobs.copied).toBe(0);
    const document = JSON.parse((await good("cat", `${store},name=both`)).stdout);
    expect(document.records.length).toBeGreaterThanOrEqual(DOCUMENT.records.length);
    expect(
      document.layers.every(({ annotations }: any) => annotations.diffID && annotations.size),
    ).toBe(true);
    expect((await good("verify", `${store},name=both`, "--deep", "--json")).json().ok).toBe(true);
  });

  test("prune writes the smaller document, and gc with a grace of nothing removes what it no longer needs", async () => {
    const { store, has } = await STORES[kind]();
    await good("convert", LAYOUT, `${store},name=one`);

    const dropped = (
      await good("prune", `${store},name=one`, "--drop-layer", LEAF, "--json")
    ).json().dropped;
    expect(dropped.layers.map(({ digest }: any) => digest)).toContain(LEAF);
    expect((await good("cat", `${store},name=one`)).stdout).not.toContain(LEAF);
    // It is there still: no name reaches it, and it is young.
    expect(await has(`blobs/${LEAF}`)).toBe(true);
    const unreached = (await cacheport(["ls", store, "--json"]))
      .json()
      .filter(({ refName }: any) => refName === null);
    expect(unreached.map(({ digest }: any) => digest)).toContain(LEAF);
    const listed = await cacheport(["ls", store]);
    expect(listed.stdout).not.toContain("no name");
    // The store's text has secrets, so none is given to paste.
    expect(listed.stderr).toMatch(
      new RegExp(
        `^No name reaches ${unreached.length} blobs? \\(.*B\\): "cacheport gc" removes what is older than its grace\n$`,
      ),
    );
    const young = await cacheport(["gc", store, "--json"]);
    expect(young.json()).toMatchObject({ removed: [], young: unreached.length });
    expect(young.stderr).toContain("younger than --grace");
    const planned = (await good("gc", store, "--grace", "0", "--dry-run", "--json")).json();
    expect(planned.removed.map(({ digest }: any) => digest)).toContain(LEAF);
    expect(await has(`blobs/${LEAF}`)).toBe(true);
    await good("gc", store, "--grace", "0");
    expect(await has(`blobs/${LEAF}`)).toBe(false);
    expect((await good("verify", store, "--deep", "--json")).json()).toMatchObject({
      ok: true,
      problems: [],
    });
  });

  test("prune --gc does both", async () => {
    const { store, has } = await STORES[kind]();
    await good("convert", LAYOUT, `${store},name=one`);

    const run = await good(
      "prune",
      `${store},name=one`,
      "--drop-layer",
      LEAF,
      "--gc",
      "--grace",
      "0",
      "--json",
    );
    expect(run.json().gc.removed.map(({ digest }: any) => digest)).toContain(LEAF);
    expect(await has(`blobs/${LEAF}`)).toBe(false);
  });
});

describe.skipIf(!hasStores)("what is wrong in a store", () => {
  const codes = (run: { json(): any }) => run.json().problems.map(({ code }: any) => code);

  test("verify tells holes, wrong sizes and missing annotations, and reads no blob", async () => {
    const { bucket, s3 } = await freshBucket();
    await good("convert", LAYOUT, `${s3},name=one`);
    const [a, b] = BLOBS as [string, string];
    await askS3("DELETE", `/${bucket}/blobs/${a}`);
    await askS3("PUT", `/${bucket}/blobs/${b}`, "cut");
    const holed = await cacheport(["verify", `${s3},name=one`, "--json"]);
    expect(holed.code).toBe(4);
    expect(codes(holed).toSorted()).toEqual(["BLOB_MISSING", "SIZE_MISMATCH"]);
    const broken = structuredClone(DOCUMENT);
    delete broken.layers[1].annotations;
    await askS3("PUT", `/${bucket}/manifests/bare`, JSON.stringify(broken));
    const bare = await cacheport(["verify", `${s3},name=bare`, "--json"]);
    expect([bare.code, codes(bare)]).toEqual([4, ["CACHE_INVALID"]]);
    expect(bare.stdout).toContain("cache layer with missing annotations");
    // And it is printed as it is stored all the same.
    expect((await good("cat", `${s3},name=bare`)).stdout).toBe(JSON.stringify(broken));
  });

  test("verify --deep reads: other bytes of the right size are found, and convert refuses them", async () => {
    const { bucket, s3 } = await freshBucket();
    await good("convert", LAYOUT, `${s3},name=one`);
    const { blob, annotations } = DOCUMENT.layers.find(
      (layer: any) => layer.annotations.size < 10_000,
    );
    await askS3("PUT", `/${bucket}/blobs/${blob}`, "x".repeat(annotations.size));
    expect((await good("verify", `${s3},name=one`, "--json")).json().ok).toBe(true);
    const deep = await cacheport(["verify", `${s3},name=one`, "--deep", "--json"]);
    expect(deep.code).toBe(4);
    expect(codes(deep)).toContain("DIGEST_MISMATCH");
    const { code, stderr } = await cacheport(["convert", `${s3},name=one`, "/tmp/never-made-here"]);
    expect([code, stderr]).toEqual([4, expect.stringContaining(blob)]);
  });

  test("a rule by age is told with the day on which it breaks the cache", async () => {
    const { s3 } = await freshBucket();
    await good("convert", LAYOUT, `${s3},name=one`);
    const run = await good("verify", s3, "--lifecycle", "7", "--json");
    const [problem] = run.json().problems;
    const day = new Date(Math.ceil((Date.now() + 7 * 86_400_000) / 86_400_000) * 86_400_000);
    expect(problem.code).toBe("LIFECYCLE_BREAKS");
    expect(problem.message).toContain(
      `A lifecycle rule of 7 days breaks "one" on ${day.toISOString().slice(0, 10)}`,
    );
    expect(problem.message).toContain("names go after 7 days and blobs after 9");
  });

  test("gc refuses what it cannot read, and a store without a name", async () => {
    const { bucket, s3 } = await freshBucket();
    await good("convert", LAYOUT, `${s3},name=one`);
    await askS3("PUT", `/${bucket}/manifests/notes.txt`, "not a cache");
    const unread = await cacheport(["gc", s3, "--grace", "0"]);
    expect([unread.code, unread.stderr]).toEqual([
      4,
      expect.stringContaining('"notes.txt" cannot be read'),
    ]);
    const astray = await cacheport(["gc", `${s3},manifests_prefix=other/`, "--grace", "0"]);
    expect([astray.code, astray.stderr]).toEqual([4, expect.stringContaining("another prefix")]);
    expect((await s3Keys(bucket)).filter((key) => key.startsWith("blobs/")).length).toBe(
      BLOBS.length,
    );
  });

  test("an image is refused before anything has a name", async () => {
    const { bucket, s3 } = await freshBucket();
    const { code, stderr } = await cacheport(["copy", fixture("image-dir"), s3, "--all"]);
    expect([code, stderr]).toEqual([4, expect.stringContaining("no build cache")]);
    expect((await s3Keys(bucket)).filter((key) => key.startsWith("manifests/"))).toEqual([]);
  });
});
