/** Archives of images with changed bytes: read right, or refused with a code. */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { LayoutArchive } from "../src/archive-reader.ts";
import { openLayoutStream } from "../src/archive-unpacked.ts";
import { isCacheportError } from "../src/errors.ts";
import { makeTar, sealHeader } from "./helpers/archives.ts";
import { STYLES, testImage } from "./helpers/docker-archive.ts";
import { tempFolder } from "./helpers/temp.ts";

const LIMIT = 1024 * 1024;

/** Reads all that an archive names; gives the names, or the code of the refusal. */
async function outcome(open: () => Promise<LayoutArchive>): Promise<string> {
  let archive: LayoutArchive | undefined;
  try {
    archive = await open();
    const entries = await archive.list();
    for (const { descriptor } of entries) {
      const manifest = JSON.parse(
        Buffer.from(await archive.read(descriptor, LIMIT)).toString("utf8"),
      );
      for (const blob of [manifest.config, ...manifest.layers]) await archive.read(blob, LIMIT);
    }
    return entries.map(({ imageName, refName }) => imageName ?? refName ?? "-").join();
  } catch (error) {
    if (!isCacheportError(error)) throw error;
    expect(error.message).not.toMatch(/\[object|\bat \S+:\d+/);
    return error.code;
  } finally {
    await archive?.close();
  }
}

test.each(Object.entries(STYLES))(
  "an archive in the way of %s with changed bytes, from a file and from a pipe",
  async (_style, make) => {
    const images = [testImage(["app:1", "app:2"], ["a", "b"]), testImage(null, ["a", "c"])];
    const seed = Buffer.from(makeTar(make(images)));
    const folder = tempFolder();
    const path = join(folder, "a.tar");
    let state = seed.length;
    const random = (limit: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % limit;
    };
    // Bytes of documents and headers, and not only of layers, which are most of it.
    const places = [...seed.keys()].filter((at) => seed[at] !== 0);
    const outcomes = new Set<string>();
    for (let run = 0; run < 60; run++) {
      const bytes = Buffer.from(seed);
      for (let change = 0; change < 2; change++)
        bytes[places[random(places.length)] as number] = random(256);
      for (let at = 0; at + 512 <= bytes.length; at += 512)
        if (bytes.toString("latin1", at + 257, at + 262) === "ustar")
          sealHeader(bytes.subarray(at, at + 512));
      writeFileSync(path, bytes);
      const fromFile = await outcome(() => LayoutArchive.open(path));
      const source = new Blob([bytes]).stream();
      const fromPipe = await outcome(() => openLayoutStream(source, { tempRoot: folder }));
      expect(fromPipe).toBe(fromFile);
      outcomes.add(fromFile);
    }
    expect(outcomes.size).toBeGreaterThan(1);
  },
  60_000,
);
