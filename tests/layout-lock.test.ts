import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { hintOf } from "../src/cli-hints.ts";
import { acquireLock, acquireOwnerFile } from "../src/layout-lock.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";

const MODULE = join(import.meta.dir, "..", "src", "layout-lock.ts");

/** Starts a process that locks a file, says so and waits to be killed. */
async function holder(path: string, call = "acquireLock") {
  const child = Bun.spawn(
    [
      process.execPath,
      "-e",
      `import { ${call} } from ${JSON.stringify(MODULE)};
       await ${call}(${JSON.stringify(path)});
       console.log("held"); setInterval(() => {}, 1000);`,
    ],
    { stdout: "pipe" },
  );
  const reader = child.stdout.getReader();
  await reader.read();
  return child;
}

describe.each([
  ["acquireLock", acquireLock],
  ["acquireOwnerFile", acquireOwnerFile],
] as const)("%s", (call, acquire) => {
  test("excludes other holders in the same process until it is released", async () => {
    const path = join(tempFolder(), "lock");
    const first = await acquire(path);
    const error = await failure(() => acquire(path, { timeout: 20 }));
    expect(error.code).toBe("LOCK_TIMEOUT");
    expect(error.message).toContain(path);
    expect(hintOf(error)).toContain("--lock-timeout");
    await first.release();
    await first.release();
    const second = await acquire(path, { timeout: 0 });
    expect(await second.isCurrent()).toBe(true);
    await second.release();
  });

  test("lets one after the other through, each alone", async () => {
    const path = join(tempFolder(), "lock");
    let inside = 0;
    let passed = 0;
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        const lock = await acquire(path);
        expect(++inside).toBe(1);
        await Bun.sleep(1);
        inside--;
        passed++;
        await lock.release();
      }),
    );
    expect(passed).toBe(16);
  });

  test("leaves no file behind", async () => {
    const path = join(tempFolder(), "lock");
    await (await acquire(path)).release();
    expect(existsSync(path)).toBe(false);
    expect(existsSync(`${path}.cacheport`)).toBe(false);
  });

  test("excludes another process, and is free when that is killed", async () => {
    const path = join(tempFolder(), "lock");
    const child = await holder(path, call);
    const error = await failure(() => acquire(path, { timeout: 20 }));
    expect(error.code).toBe("LOCK_TIMEOUT");
    child.kill("SIGKILL");
    await child.exited;
    await (await acquire(path, { timeout: 2000 })).release();
  });

  test("waiting ends when the signal fires", async () => {
    const path = join(tempFolder(), "lock");
    const lock = await acquire(path);
    const abort = new AbortController();
    const waiting = failure(() => acquire(path, { signal: abort.signal }));
    abort.abort();
    expect((await waiting).code).toBe("INTERRUPTED");
    await lock.release();
  });

  test("a missing folder is an error, not a reason to wait", async () => {
    const path = join(tempFolder(), "none", "lock");
    expect((await failure(() => acquire(path))).code).toBe("IO_FAILED");
  });
});

test("a lock whose file was removed by another program is no longer current, and a newcomer gets a new one", async () => {
  const path = join(tempFolder(), "lock");
  const old = await acquireLock(path);
  unlinkSync(path);
  expect(await old.isCurrent()).toBe(false);
  const newcomer = await acquireLock(path, { timeout: 0 });
  await old.release();
  expect(await newcomer.isCurrent()).toBe(true);
  await newcomer.release();
});

test("a file that nobody locks means nothing, and is not made readable for others", async () => {
  const path = join(tempFolder(), "lock");
  writeFileSync(path, "", { mode: 0o600 });
  const lock = await acquireLock(path, { timeout: 0 });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await lock.release();
});

test.skipIf(!Bun.which("flock"))("the lock is flock(2), which other programs see", async () => {
  const path = join(tempFolder(), "lock");
  const tryIt = () => Bun.spawnSync(["flock", "-n", path, "true"]).exitCode;
  const lock = await acquireLock(path);
  expect(tryIt()).toBe(1);
  await lock.release();
  expect(tryIt()).toBe(0);
});

test("a lock lasts although nobody refers to it", async () => {
  const path = join(tempFolder(), "lock");
  await acquireLock(path);
  Bun.gc(true);
  await Bun.sleep(5);
  Bun.gc(true);
  const error = await failure(() => acquireLock(path, { timeout: 0 }));
  expect(error.code).toBe("LOCK_TIMEOUT");
});

test("shared holders let each other in and keep an exclusive one out", async () => {
  const path = join(tempFolder(), "lock");
  const first = await acquireLock(path, { shared: true });
  const second = await acquireLock(path, { shared: true, timeout: 0 });
  expect((await failure(() => acquireLock(path, { timeout: 10 }))).code).toBe("LOCK_TIMEOUT");
  await first.release();
  await second.release();
  await (await acquireLock(path, { timeout: 1000 })).release();
});

test("no lock file is made when it must exist", async () => {
  const path = join(tempFolder(), "lock");
  const error = await failure(() => acquireLock(path, { create: false }));
  expect(error.code).toBe("IO_FAILED");
  expect(existsSync(path)).toBe(false);
});

test("a symbolic link in place of the lock file is not followed", async () => {
  const folder = tempFolder();
  symlinkSync(join(folder, "elsewhere"), join(folder, "lock"));
  const error = await failure(() => acquireLock(join(folder, "lock")));
  expect(error.code).toBe("IO_FAILED");
  expect(existsSync(join(folder, "elsewhere"))).toBe(false);
});

test("a folder in place of the lock file is an error", async () => {
  const folder = tempFolder();
  mkdirSync(join(folder, "lock"));
  const error = await failure(() => acquireLock(join(folder, "lock")));
  expect(error.code).toBe("IO_FAILED");
});

describe("an owner file", () => {
  test("of another host is respected", async () => {
    const path = join(tempFolder(), "lock");
    writeFileSync(path, JSON.stringify({ pid: 1, host: `${hostname()}-other` }));
    const error = await failure(() => acquireOwnerFile(path, { timeout: 10 }));
    expect(error.code).toBe("LOCK_TIMEOUT");
  });

  test("without a readable owner is respected while it is young", async () => {
    const path = join(tempFolder(), "lock");
    writeFileSync(path, "");
    const error = await failure(() => acquireOwnerFile(path, { timeout: 10 }));
    expect(error.code).toBe("LOCK_TIMEOUT");
    utimesSync(path, new Date(0), new Date(0));
    await (await acquireOwnerFile(path, { timeout: 1000 })).release();
  });
});
