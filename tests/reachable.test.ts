/** How much is read to find what names reach: it grows as the content does, whatever its form. */
import { describe, expect, test } from "bun:test";
import type { ContentReader } from "../src/content-store.ts";
import { parseDigest } from "../src/digest.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { LayoutDirectory } from "../src/layout-directory.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../src/media-types.ts";
import { findReachable, findReferrers } from "../src/reachable.ts";
import { addBlob, writeLayout } from "./helpers/layout.ts";
import { blobNames, tempFolder } from "./helpers/temp.ts";

/** Each way in which documents can refer to each other, with as many of them as are asked for. */
const FORMS: [form: string, make: (layout: string, count: number) => object[]][] = [
  [
    "referrers of one subject",
    (layout, count) => {
      const subject = manifestOf(layout, {});
      for (let i = 0; i < count; i++) manifestOf(layout, { subject, annotations: { i: `${i}` } });
      return [subject];
    },
  ],
  [
    "referrers of referrers",
    (layout, count) => {
      const first = manifestOf(layout, {});
      let last = first;
      for (let i = 0; i < count; i++)
        last = manifestOf(layout, { subject: last, annotations: { i: `${i}` } });
      return [first];
    },
  ],
  [
    "entries that refer to one subject",
    (layout, count) => {
      const subject = manifestOf(layout, {});
      return Array.from({ length: count }, (_, i) =>
        manifestOf(layout, { subject, annotations: { i: `${i}` } }),
      );
    },
  ],
  [
    "indexes that share all their children",
    (layout, count) => {
      const manifests = Array.from({ length: count }, (_, i) =>
        manifestOf(layout, { annotations: { i: `${i}` } }),
      );
      return [1, 2, 3].map((i) => {
        const index = {
          schemaVersion: 2,
          mediaType: OCI_INDEX,
          manifests,
          annotations: { i: `${i}` },
        };
        return { ...addBlob(layout, index), mediaType: OCI_INDEX };
      });
    },
  ],
];

function manifestOf(layout: string, extra: object) {
  const config = addBlob(layout, {}, "application/vnd.oci.empty.v1+json");
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [], ...extra };
  return { ...addBlob(layout, manifest), mediaType: OCI_MANIFEST };
}

/** Finds all and counts the calls that touch the disk. */
async function countCalls(make: (layout: string, count: number) => object[], count: number) {
  const layout = tempFolder();
  writeLayout(layout, make(layout, count));
  const store = await LayoutDirectory.open(layout);
  let calls = 0;
  const counted =
    <A extends unknown[], R>(call: (...args: A) => R) =>
    (...args: A): R => {
      calls++;
      return call(...args);
    };
  const reader: ContentReader = {
    location: store.location,
    stat: counted(store.stat.bind(store)),
    read: counted(store.read.bind(store)),
    open: counted(store.open.bind(store)),
    locate: counted(store.locate.bind(store)),
  };
  const options = { limits: DEFAULT_LIMITS, jobs: 4 };
  const blobs = await Promise.all(
    blobNames(layout).map(async (name) => {
      const digest = parseDigest(`sha256:${name}`);
      return { digest, size: (await store.stat({ mediaType: "", digest, size: 0 })) ?? 0 };
    }),
  );
  const referrers = await findReferrers(reader, blobs, options);
  const reached = await findReachable(reader, await store.list(), referrers, options);
  expect(reached.size).toBe(blobs.length);
  return calls;
}

describe("what is read for four times the content is about four times as much:", () => {
  test.each(FORMS)("%s", async (_form, make) => {
    const [few, many] = [await countCalls(make, 40), await countCalls(make, 160)];
    expect(many / few).toBeLessThan(4.5);
  });
});
