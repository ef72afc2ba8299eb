import { createHash } from "node:crypto";
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { layoutOf } from "../helpers/layer-cache.ts";
import { blobFile } from "../helpers/layout.ts";
import {
  askS3,
  azureLocation,
  evictGithub,
  freshBucket,
  freshName,
  githubEntries,
  githubLocation,
  hasStores,
  s3Keys,
} from "../helpers/object-stores.ts";
import { tempFolder } from "../helpers/temp.ts";

const MIB = 1024 * 1024;
/** More than four parts, and a rest. */
const LARGE = Buffer.alloc(50 * MIB + 12_345);
for (let at = 0; at + 4 <= LARGE.length; at += 997) LARGE.writeUInt32LE(at, at);
const DAMAGED = Buffer.from(LARGE);
DAMAGED[40 * MIB] = 1;

const run = (...args: string[]) => cacheport([...args, "--progress=none"]);

describe.skipIf(!hasStores).each(["s3", "azblob", "gha v1", "gha v2"] as const)(
  "a large layer in %s",
  (kind) => {
    const place = async (): Promise<{ store: string; holds: () => Promise<string[]> }> => {
      if (kind === "s3") {
        const { bucket, s3 } = await freshBucket();
        return { store: s3, holds: () => s3Keys(bucket) };
      }
      if (kind === "azblob") {
        const store = azureLocation(freshName());
        const holds = async () => {
          const listed = (await run("ls", store, "--json")).json();
          return Array.isArray(listed) ? listed.map(({ digest }: any) => digest) : [];
        };
        return { store, holds };
      }
      await evictGithub("");
      const holds = async () =>
        (await githubEntries()).filter(({ done }) => done).map(({ key }) => key);
      return { store: githubLocation(kind === "gha v1" ? 1 : 2, freshName()), holds };
    };

    test("goes in parts and comes back whole", async () => {
      const { layout, blob } = layoutOf(LARGE);
      const { store } = await place();
      const up = await run("convert", layout, store);
      expect([up.stderr, up.code]).toEqual(["", 0]);
      const back = join(tempFolder(), "back");
      const down = await run("convert", store, back);
      expect([down.stderr, down.code]).toEqual(["", 0]);
      const bytes = new Uint8Array(await Bun.file(blobFile(back, blob)).arrayBuffer());
      expect(`sha256:${createHash("sha256").update(bytes).digest("hex")}`).toBe(blob);
    }, 120_000);

    test("with other bytes than its digest says is never seen, and nothing is named", async () => {
      const { layout, blob } = layoutOf(DAMAGED, LARGE);
      const { store, holds } = await place();
      const { code, stderr } = await run("convert", layout, store);
      expect([code, stderr]).toEqual([4, expect.stringContaining(blob)]);
      expect(await holds()).toEqual([]);
    }, 120_000);
  },
);

describe.skipIf(!hasStores)("parts in S3", () => {
  test("of an upload that was given up are gone", async () => {
    const { layout } = layoutOf(DAMAGED, LARGE);
    const { bucket, s3 } = await freshBucket();
    await run("convert", layout, s3);
    const uploads = await (await askS3("GET", `/${bucket}?uploads=`)).text();
    expect(uploads).toContain("ListMultipartUploadsResult");
    expect(uploads).not.toContain("<Upload>");
  }, 120_000);

  test("a large layer is copied on the server from bucket to bucket, and its age is refreshed", async () => {
    const { layout, blob } = layoutOf(LARGE);
    const [one, two] = [await freshBucket(), await freshBucket()];
    await run("convert", layout, one.s3);
    const copied = await run("convert", one.s3, `${two.s3},name=copy`, "--json");
    expect(copied.json().blobs).toMatchObject({ copied: 1, bytes: LARGE.length });
    const head = () => askS3("HEAD", `/${two.bucket}/blobs/${blob}`);
    const before = Date.parse((await head()).headers.get("last-modified") ?? "");
    await Bun.sleep(2100);
    await run("convert", layout, `${two.s3},name=copy,touch_refresh=1s`);
    const after = await head();
    expect(Date.parse(after.headers.get("last-modified") ?? "")).toBeGreaterThan(before);
    expect(after.headers.get("content-length")).toBe(String(LARGE.length));
  }, 120_000);
});
