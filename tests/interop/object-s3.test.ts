import { beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { layoutFaults } from "../helpers/layout.ts";
import { askS3, freshBucket, hasStores, s3Keys, s3Location } from "../helpers/object-stores.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";

const LAYOUT = join(fixture("object-s3"), "layout");
const DOCUMENT = readFileSync(join(fixture("object-s3"), "s3.json"), "utf8");
const good = async (...args: string[]) => {
  const run = await cacheport([...args, "--progress=none"]);
  expect([run.stderr, run.code]).toEqual(["", 0]);
  return run;
};

describe.skipIf(!hasStores)("a cache in S3 (Swift)", () => {
  let bucket: string;
  let s3: string;
  beforeAll(async () => ({ bucket, s3 } = await freshBucket()));

  test("is written byte for byte as BuildKit writes it, under BuildKit's keys", async () => {
    await good("convert", LAYOUT, `${s3},prefix=a/,name=main`);
    const stored = await (await askS3("GET", `/${bucket}/a/manifests/main`)).text();
    expect(stored).toBe(DOCUMENT);
    const blobs = new Set(JSON.parse(DOCUMENT).layers.map(({ blob }: any) => `a/blobs/${blob}`));
    expect((await s3Keys(bucket)).filter((key) => key.startsWith("a/"))).toEqual(
      [...blobs, "a/manifests/main"].toSorted() as string[],
    );
    expect((await good("cat", `${s3},prefix=a/,name=main`)).stdout).toBe(DOCUMENT);
  });

  test("comes back as the manifest that it was", async () => {
    const back = join(tempFolder(), "back");
    await good("convert", LAYOUT, `${s3},prefix=b/`);
    await good("convert", `${s3},prefix=b/`, `${back}:x`);
    expect(layoutFaults(back)).toEqual([]);
    const digest = (await good("resolve", LAYOUT, "--json")).json().digest;
    expect((await good("resolve", `${back}:x`, "--json")).json().digest).toBe(digest);
  });

  test("prefixes are joined without a slash and a list of names is written whole", async () => {
    await good(
      "convert",
      LAYOUT,
      `${s3},prefix=c,blobs_prefix=x,manifests_prefix=y-,name=one;two/2;`,
    );
    const keys = (await s3Keys(bucket)).filter((key) => key.startsWith("c"));
    expect(keys.filter((key) => !/^cxsha256:[0-9a-f]{64}$/.test(key))).toEqual([
      "cy-",
      "cy-one",
      "cy-two/2",
    ]);
  });

  test("is copied from prefix to prefix on the server, with the document's own bytes", async () => {
    const odd = DOCUMENT.replace('"records":', '"extra":1,"records":');
    await good("convert", LAYOUT, `${s3},prefix=d/`);
    await askS3("PUT", `/${bucket}/d/manifests/odd`, odd);
    const run = await good(
      "convert",
      `${s3},prefix=d/,name=odd`,
      `${s3},prefix=e/,name=copy`,
      "--json",
    );
    expect(run.json().blobs.copied).toBeGreaterThan(0);
    expect(await (await askS3("GET", `/${bucket}/e/manifests/copy`)).text()).toBe(odd);
  });

  test("a missing bucket is an error that says so, for reading and for writing", async () => {
    const nowhere = s3Location(`${bucket}-none`);
    for (const args of [
      ["convert", LAYOUT, nowhere],
      ["ls", nowhere],
      ["convert", nowhere, "/tmp/x"],
    ]) {
      const { code, stderr } = await cacheport(args);
      expect(stderr).toContain(`there is no bucket "${bucket}-none"`);
      expect(code).toBe(3);
    }
  });

  test("a wrong secret is refused and not repeated", async () => {
    const { code, stderr } = await cacheport(["ls", s3Location(bucket, "wrong-secret")]);
    expect(code).toBe(5);
    expect(stderr).toContain("SignatureDoesNotMatch");
    expect(stderr).not.toContain("wrong-secret");
  });
});
