import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { layoutFaults } from "../helpers/layout.ts";
import { askAzure, azureLocation, freshName, hasStores } from "../helpers/object-stores.ts";
import { fixture, tempFolder } from "../helpers/temp.ts";

const LAYOUT = join(fixture("object-s3"), "layout");
const DOCUMENT = readFileSync(join(fixture("object-s3"), "azblob.json"), "utf8");
const good = async (...args: string[]) => {
  const run = await cacheport([...args, "--progress=none"]);
  expect([run.stderr, run.code]).toEqual(["", 0]);
  return run;
};

describe.skipIf(!hasStores)("a cache in Azure Blob (Azurite)", () => {
  const container = freshName();
  const azure = azureLocation(container);

  test("a missing container is an error for reading and is made on writing", async () => {
    const read = await cacheport(["ls", azure]);
    expect([read.code, read.stderr]).toEqual([
      3,
      expect.stringContaining(`there is no container "${container}"`),
    ]);
    await good("convert", LAYOUT, azure);
    expect((await askAzure("GET", `/${container}?restype=container`)).status).toBe(200);
  });

  test("is written byte for byte as BuildKit writes it, under BuildKit's keys", async () => {
    await good("convert", LAYOUT, `${azure},prefix=/a//b/../c,name=x/../one`.replace("x/../", ""));
    const stored = await askAzure("GET", `/${container}/a/c/manifests/one`);
    expect(await stored.text()).toBe(DOCUMENT);
    for (const { blob } of JSON.parse(DOCUMENT).layers) {
      const { status, headers } = await askAzure("HEAD", `/${container}/a/c/blobs/${blob}`);
      expect([status, headers.get("x-ms-blob-type")]).toEqual([200, "BlockBlob"]);
    }
  });

  test("all names of a list are read as one cache", async () => {
    const other = join(fixture("object-utc"), "layout");
    await good("convert", LAYOUT, `${azure},prefix=d,name=one`);
    await good("convert", other, `${azure},prefix=d,name=two`);
    const back = join(tempFolder(), "back");
    const run = await good("convert", `${azure},prefix=d,name=one;two;none`, `${back}:x`, "--json");
    const merged = await good("merge", LAYOUT, other, `${back}:y`, "--json");
    expect(run.json().digest).toBe(merged.json().digest);
    expect(layoutFaults(back)).toEqual([]);
  });

  test("a wrong key is refused and not repeated", async () => {
    const wrong = Buffer.from("no such key at all").toString("base64");
    const text = azure.replace(/secret_access_key=[^,]*/, `secret_access_key=${wrong}`);
    const { code, stderr } = await cacheport(["ls", text]);
    expect(code).toBe(5);
    expect(stderr).not.toContain(wrong);
  });
});
