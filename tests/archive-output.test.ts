import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { appendArchiveFile, archiveChunks, writeArchiveFile } from "../src/archive-output.ts";
import type { ArchiveFile } from "../src/archive-output.ts";
import { digestOf } from "../src/digest.ts";
import { LayoutArchive } from "../src/archive-reader.ts";
import { applyNames, emptyLayoutIndex, encodeLayoutIndex } from "../src/layout-index.ts";
import type { LayoutIndex } from "../src/layout-index.ts";
import { OCI_MANIFEST } from "../src/media-types.ts";
import { planArchive } from "../src/archive-plan.ts";
import type { ArchiveBlob, ArchivePlan } from "../src/archive-plan.ts";
import { failure } from "./helpers/errors.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const folder = tempFolder();

function blobOf(text: string): ArchiveBlob {
  const bytes = new TextEncoder().encode(text);
  const digest = digestOf(bytes);
  return {
    descriptor: { mediaType: OCI_MANIFEST, digest, size: bytes.length },
    source: { bytes },
  };
}

function indexOf(
  blob: ArchiveBlob,
  name: string,
  base: LayoutIndex = emptyLayoutIndex(),
): LayoutIndex {
  const names = [{ kind: "set" as const, name: { refName: name } }];
  const root = { descriptor: blob.descriptor, bytes: new Uint8Array(), names };
  return applyNames(base, [root], "a.tar");
}

type Step =
  | { kind: "write"; bytes: Uint8Array; position: number }
  | { kind: "truncate"; size: number }
  | { kind: "sync" };

/** Notes down what would be done to a file. */
class RecordedFile implements ArchiveFile {
  readonly steps: Step[] = [];

  async write(bytes: Uint8Array, position: number): Promise<void> {
    this.steps.push({ kind: "write", bytes: Buffer.from(bytes), position });
  }

  async copy({ source }: ArchiveBlob, position: number): Promise<void> {
    if ("bytes" in source) await this.write(source.bytes, position);
  }

  async truncate(size: number): Promise<void> {
    this.steps.push({ kind: "truncate", size });
  }

  async sync(): Promise<void> {
    this.steps.push({ kind: "sync" });
  }
}

function apply(bytes: Buffer, step: Step): Buffer {
  if (step.kind === "sync") return bytes;
  const size =
    step.kind === "truncate"
      ? step.size
      : Math.max(bytes.length, step.position + step.bytes.length);
  const result = Buffer.alloc(size);
  bytes.copy(result, 0, 0, Math.min(size, bytes.length));
  if (step.kind === "write") result.set(step.bytes, step.position);
  return result;
}

async function namesIn(bytes: Uint8Array): Promise<(string | undefined)[]> {
  const path = join(folder, `${crypto.randomUUID()}.tar`);
  writeFileSync(path, bytes);
  const archive = await LayoutArchive.open(path);
  try {
    for (const [digest, size] of archive.blobs())
      await archive.read({ mediaType: "", digest, size }, size);
    return (await archive.list()).map((entry) => entry.refName);
  } finally {
    await archive.close();
  }
}

describe("appendArchiveFile", () => {
  const old = readFileSync(fixture("image.tar"));
  const end = old.length - 1024;

  /** The steps of adding two blobs, the second under a name. */
  async function recordAppend(): Promise<Step[]> {
    const path = fixture("image.tar");
    const archive = await LayoutArchive.open(path);
    const blobs = [blobOf("a".repeat(3000)), blobOf("b".repeat(700))];
    const plan = planArchive(
      {
        blobs,
        index: encodeLayoutIndex(indexOf(blobs[1] as ArchiveBlob, "added", archive.index)),
        hasFrame: true,
      },
      end + 1024,
    );
    await archive.close();
    const file = new RecordedFile();
    await appendArchiveFile(plan, end, file, { jobs: 2 });
    return file.steps;
  }

  test("leaves a right archive after every step, the old one up to the last", async () => {
    const steps = await recordAppend();
    const commit = steps.findLastIndex(({ kind }) => kind === "write");
    let bytes: Buffer = old;
    for (const [position, step] of steps.entries()) {
      bytes = apply(bytes, step);
      const expected = position < commit ? ["1.0"] : ["1.0", "added"];
      expect(await namesIn(bytes)).toEqual(expected);
    }
  });

  test("leaves the old archive whichever writes reach the disk before a sync", async () => {
    const steps = await recordAppend();
    const sync = steps.findIndex(({ kind }) => kind === "sync");
    const early = steps.slice(0, sync);
    const truncates = early.filter(({ kind }) => kind === "truncate");
    const writes = early.filter(({ kind }) => kind === "write");
    for (let subset = 0; subset < 2 ** writes.length; subset++) {
      const kept = writes.filter((_, at) => (subset >> at) & 1);
      const bytes = [...truncates, ...kept].reduce(apply, old);
      expect(await namesIn(bytes)).toEqual(["1.0"]);
    }
  });

  test("is decided by one block, which a disk writes whole", async () => {
    const steps = await recordAppend();
    const [commit, sync] = steps.slice(-2);
    expect(commit).toMatchObject({ kind: "write", position: end });
    expect((commit as { bytes: Uint8Array }).bytes).toHaveLength(512);
    expect(sync?.kind).toBe("sync");
    expect(steps.at(-3)?.kind).toBe("sync");
  });

  test("adds to an archive that crashed runs, padding or a missing end left behind", async () => {
    const steps = await recordAppend();
    const whole = steps.reduce(apply, old);
    const tails = [
      Buffer.alloc(9216),
      Buffer.from("left over ".repeat(1000)),
      whole.subarray(end + 1024, whole.length - 1500),
    ];
    for (const tail of tails) {
      const dirty = Buffer.concat([old, tail]);
      expect(await namesIn(dirty)).toEqual(["1.0"]);
      expect(steps.reduce(apply, dirty).equals(whole)).toBe(true);
    }
    for (const size of [end, end + 100, end + 512])
      expect(steps.reduce(apply, old.subarray(0, size)).equals(whole)).toBe(true);
  });

  test("takes everything back when a blob cannot be copied", async () => {
    const steps: Step[] = [];
    const file = new (class extends RecordedFile {
      override readonly steps = steps;
      override async copy(): Promise<void> {
        await this.write(Buffer.from("half of a bl"), end + 4096);
        throw Object.assign(new Error("no space"), { code: "ENOSPC" });
      }
    })();
    const blob = blobOf("a".repeat(3000));
    const index = encodeLayoutIndex(indexOf(blob, "added"));
    const plan = planArchive({ blobs: [blob], index, hasFrame: true }, end + 1024);
    const error = await failure(() => appendArchiveFile(plan, end, file, { jobs: 1 }));
    expect(error.code).toBe("NO_SPACE");
    expect(steps.reduce(apply, old).equals(old)).toBe(true);
  });
});

describe("writing a plan", () => {
  const blobs = [blobOf("one"), blobOf(""), blobOf("x".repeat(512))];
  const index = encodeLayoutIndex(indexOf(blobs[0] as ArchiveBlob, "v1"));
  const plan: ArchivePlan = planArchive({ blobs, index });

  test("gives a stream and a file the same bytes", async () => {
    const file = new RecordedFile();
    await writeArchiveFile(plan, file, { jobs: 3 });
    const written = file.steps.reduce(apply, Buffer.alloc(0));
    const chunks = await Array.fromAsync(archiveChunks(plan, {}));
    expect(Buffer.concat(chunks).equals(written)).toBe(true);
    expect(written).toHaveLength(plan.size);
    expect(await namesIn(written)).toEqual(["v1"]);
  });

  test("ends a stream without its end when a blob is damaged", async () => {
    const good = blobs[0] as ArchiveBlob;
    const bytes = new TextEncoder().encode("eno");
    const bad = planArchive({ blobs: [{ ...good, source: { bytes } }], index });
    const chunks: Uint8Array[] = [];
    const error = await failure(async () => {
      for await (const chunk of archiveChunks(bad, {})) chunks.push(chunk);
    });
    expect(error.code).toBe("DIGEST_MISMATCH");
    expect(Buffer.concat(chunks).length).toBeLessThan(plan.end);
  });
});
