import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { appendFileSync, existsSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { digestOf } from "../src/digest.ts";
import { Growth } from "../src/blob-jobs.ts";
import type { FileJob } from "../src/blob-jobs.ts";
import { WorkerPool } from "../src/blob-threads.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";

const LARGE = 5 * 1024 * 1024 + 17;
const SMALL = 1000;

const pool = new WorkerPool(4);
afterAll(() => pool.close());

let folder: string;
let path: string;
let bytes: Uint8Array;

beforeAll(() => {
  folder = tempFolder();
  path = join(folder, "source");
  bytes = Uint8Array.from({ length: LARGE }, (_, i) => (i * 31 + (i >> 8)) & 255);
  writeFileSync(path, bytes);
});

let targets = 0;
const newTarget = () => join(folder, `target-${targets++}`);

function job(offset: number, size: number, rest: Partial<FileJob> = {}): FileJob {
  return {
    source: { path, offset, size },
    algorithm: "sha256",
    seal: false,
    ...rest,
  };
}

describe.each([
  ["a whole large file", 0, LARGE],
  ["a large range", 1000, LARGE - 2000],
  ["a small range", 7, SMALL],
  ["nothing", 3, 0],
])("%s", (_, offset, size) => {
  const expected = () => bytes.subarray(offset, offset + size);

  test("is hashed and its bytes are told", async () => {
    let told = 0;
    const result = await pool.run(job(offset, size), {
      onBytes: (n) => (told += n),
    });
    expect(result).toEqual({ digest: digestOf(expected()), size });
    expect(told).toBe(size);
  });

  test("is hashed with SHA-512", async () => {
    const result = await pool.run(job(offset, size, { algorithm: "sha512" }));
    expect(result.digest).toBe(digestOf(expected(), "sha512"));
  });

  test("is copied and sealed", async () => {
    const target = newTarget();
    let told = 0;
    const result = await pool.run(job(offset, size, { target, seal: true }), {
      onBytes: (n) => (told += n),
    });
    expect(result).toEqual({ digest: digestOf(expected()), size });
    expect(told).toBe(size);
    expect(await Bun.file(target).bytes()).toEqual(new Uint8Array(expected()));
    expect(statSync(target).mode & 0o777).toBe(0o444);
  });
});

test("more jobs than threads all get done", async () => {
  const results = await Promise.all(
    Array.from({ length: 12 }, (_, i) => pool.run(job(i, 2_000_000))),
  );
  expect(results.map((result) => result.digest)).toEqual(
    Array.from({ length: 12 }, (_, i) => digestOf(bytes.subarray(i, i + 2_000_000))),
  );
});

test("a file that is shorter than asked for gives the size that is there", async () => {
  expect((await pool.run(job(0, LARGE + 1))).size).toBe(LARGE);
  expect((await pool.run(job(LARGE, SMALL))).size).toBe(0);
});

test("a sealed file that is longer than asked for gives its full size", async () => {
  const longer = newTarget();
  writeFileSync(longer, bytes);
  const source = { path: longer, offset: 0, size: LARGE - 1 };
  const result = await pool.run({ source, algorithm: "sha256", seal: true });
  expect(result.size).toBe(LARGE);
});

test.each([SMALL, LARGE])(
  "a failed system call of a job of %d bytes keeps its code",
  async (size) => {
    const missing = { path: join(folder, "none"), offset: 0, size };
    expect(pool.run({ source: missing, algorithm: "sha256", seal: false })).rejects.toMatchObject({
      code: "ENOENT",
    });
    await expect(pool.run(job(0, size, { target: path }))).rejects.toMatchObject({
      code: "EEXIST",
    });
    expect(
      pool.run(job(0, size, { target: join(folder, "none", "target") })),
    ).rejects.toMatchObject({ code: "ENOENT" });
  },
);

describe("a job ends early", () => {
  // Sparse, so that hashing it would take minutes.
  const huge = () => {
    const sparse = newTarget();
    writeFileSync(sparse, "");
    truncateSync(sparse, 64 * 2 ** 30);
    return {
      source: { path: sparse, offset: 0, size: 64 * 2 ** 30 },
      algorithm: "sha256",
      seal: false,
    } as const;
  };

  test("when the signal fires, and its thread can be used again", async () => {
    const abort = new AbortController();
    const single = new WorkerPool(1);
    const running = failure(() =>
      single.run(huge(), {
        signal: abort.signal,
        onBytes: () => abort.abort(),
      }),
    );
    const waiting = single.run(job(0, LARGE));
    expect((await running).code).toBe("INTERRUPTED");
    expect((await waiting).digest).toBe(digestOf(bytes));
    single.close();
  });

  test("when the pool is closed, also while it waits for a thread", async () => {
    const single = new WorkerPool(1);
    const running = failure(() => single.run(huge(), { onBytes: () => single.close() }));
    const waiting = failure(() => single.run(job(0, LARGE)));
    expect((await running).code).toBe("INTERRUPTED");
    expect((await waiting).code).toBe("INTERRUPTED");
    expect((await failure(() => single.run(job(0, LARGE)))).code).toBe("INTERRUPTED");
  });

  test("before it began when the signal has fired already", async () => {
    const target = newTarget();
    const error = await failure(() =>
      pool.run(job(0, SMALL, { target }), { signal: AbortSignal.abort() }),
    );
    expect(error.code).toBe("INTERRUPTED");
    expect(existsSync(target)).toBe(false);
  });
});

test("a program ends by itself although it never closed its pool", async () => {
  const child = Bun.spawn(
    [
      process.execPath,
      "-e",
      `import { WorkerPool } from ${JSON.stringify(join(import.meta.dir, "..", "src", "blob-threads.ts"))};
       const pool = new WorkerPool(2);
       const source = { path: ${JSON.stringify(path)}, offset: 0, size: ${LARGE} };
       const { digest } = await pool.run({ source, algorithm: "sha256", seal: false });
       console.log(digest);`,
    ],
    { stdout: "pipe" },
  );
  expect((await new Response(child.stdout).text()).trim()).toBe(digestOf(bytes));
  expect(await child.exited).toBe(0);
});

describe("a file that is still being written", () => {
  /** Writes pieces of the bytes, tells of each, and ends after some of them. */
  async function follow(pieces: number, ended: number) {
    const growing = newTarget();
    writeFileSync(growing, "");
    const growth = new Growth();
    const hashed = pool.run({
      ...job(0, LARGE, { growth: growth.shared }),
      source: { path: growing, offset: 0, size: LARGE },
    });
    const size = Math.ceil(LARGE / pieces);
    for (let piece = 0; piece < ended; piece++) {
      const part = bytes.subarray(piece * size, (piece + 1) * size);
      appendFileSync(growing, part);
      growth.advance(part.length);
      await Bun.sleep(piece % 3);
    }
    growth.end();
    return hashed;
  }

  test.each([1, 3, 40])("is hashed to its end, in %d pieces", async (pieces) => {
    expect(await follow(pieces, pieces)).toEqual({
      digest: digestOf(bytes),
      size: LARGE,
    });
  });

  test("gives the size that is there when no more comes", async () => {
    expect((await follow(10, 4)).size).toBe(Math.ceil(LARGE / 10) * 4);
    expect((await follow(10, 0)).size).toBe(0);
  });
});
