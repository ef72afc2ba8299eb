import { describe, expect, test } from "bun:test";
import { chmodSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { blobNames, fixture, fixtureCopy } from "./helpers/temp.ts";

/** Flips a bit in the largest blob; gives its digest. */
function damage(layout: string): string {
  const [name] = blobNames(layout).toSorted((a, b) => sizeOf(layout, b) - sizeOf(layout, a));
  const path = join(layout, "blobs", "sha256", name!);
  const bytes = readFileSync(path);
  bytes[100]! ^= 1;
  chmodSync(path, 0o644);
  writeFileSync(path, bytes);
  return `sha256:${name}`;
}

const sizeOf = (layout: string, name: string): number =>
  Bun.file(join(layout, "blobs", "sha256", name)).size;

describe("cacheport verify", () => {
  test("says ok and no more about a sound cache", async () => {
    const { code, stdout, stderr } = await cacheport([
      "verify",
      fixture("app-oci-index"),
      "--deep",
      "--progress",
      "none",
    ]);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ok: \d+ blobs, [\d.]+ MB\n$/);
  });

  test("names the damaged blob and ends with 4", async () => {
    const layout = fixtureCopy("app-image-manifest");
    const digest = damage(layout);
    const run = await cacheport(["verify", layout]);
    expect(run.code).toBe(4);
    expect(run.stdout).toContain(digest);
    expect(run.stdout).toContain("[DIGEST_MISMATCH]");
    expect(run.stdout).toMatch(/failed: .*1 error/);
  });

  test("gives one documented JSON value, with exit code 4 too", async () => {
    const layout = fixtureCopy("app-image-manifest");
    const good = await cacheport(["verify", layout, "--json"]);
    expect(good.code).toBe(0);
    expect(good.json()).toEqual({
      ok: true,
      blobs: blobNames(layout).length,
      bytes: blobNames(layout).reduce((sum, name) => sum + sizeOf(layout, name), 0),
      problems: [],
    });
    const digest = damage(layout);
    const bad = await cacheport(["verify", layout, "--json"]);
    expect(bad.code).toBe(4);
    expect(bad.json()).toMatchObject({
      ok: false,
      problems: [{ code: "DIGEST_MISMATCH", severity: "error", digest }],
    });
  });

  test("looks at one name when one is given", async () => {
    const layout = fixtureCopy("grown");
    const { manifests } = JSON.parse(readFileSync(join(layout, "index.json"), "utf8"));
    unlinkSync(join(layout, "blobs", manifests[1].digest.replace(":", "/")));
    expect((await cacheport(["verify", `${layout}:main`])).code).toBe(0);
    expect((await cacheport(["verify", `${layout}:feature`])).code).toBe(4);
    expect((await cacheport(["verify", layout])).code).toBe(4);
    expect((await cacheport(["verify", `${layout}:nobody`])).code).toBe(3);
  });

  test("warnings and notes do not fail it", async () => {
    const layout = fixtureCopy("grown");
    unlinkSync(join(layout, "oci-layout"));
    const run = await cacheport(["verify", layout]);
    expect(run.code).toBe(0);
    expect(run.stdout).toContain("[LAYOUT_MARKER_MISSING]");
    expect(run.stdout).toContain("[UNREFERENCED_BLOB]");
    expect(run.stdout).toMatch(/ok: .*1 warning, \d+ notes/);
  });

  test("counts in one line what no name reaches, and says how to remove it", async () => {
    const layout = fixtureCopy("grown");
    const all = (await cacheport(["verify", layout, "--json"])).json().problems;
    const unreached = all.filter(({ code }: any) => code === "UNREFERENCED_BLOB");
    expect(unreached.length).toBeGreaterThan(1);
    const { stdout } = await cacheport(["verify", layout]);
    const lines = stdout.split("\n").filter((line) => line.includes("[UNREFERENCED_BLOB]"));
    expect(lines).toEqual([
      `note: No name reaches ${unreached.length} blobs: "cacheport gc ${layout}" removes what is older than its grace [UNREFERENCED_BLOB]`,
    ]);
    for (const { digest } of unreached) expect(stdout).not.toContain(digest);
  });

  test("verifies archives", async () => {
    for (const name of ["image.tar", "image-docker.tar"]) {
      const run = await cacheport(["verify", fixture(name), "--deep", "--json"]);
      expect(run.json()).toMatchObject({ ok: true, problems: [] });
    }
  });

  test("explains every code in its help", async () => {
    const { stdout } = await cacheport(["verify", "--help"]);
    for (const code of ["RECORD_LOOP", "LAYER_NOT_LISTED", "UNREFERENCED_BLOB"])
      expect(stdout).toContain(code);
  });
});

describe("several places", () => {
  test("are verified one by one, and their caches as a set", async () => {
    const [a, b] = [fixture("donorA"), fixture("donorB")];
    const run = await cacheport(["verify", a, b, "--json"]);
    expect(run.code).toBe(0);
    const { ok, locations, conflicts } = run.json();
    expect(ok).toBe(true);
    expect(locations.map((each: any) => [each.location, each.ok])).toEqual([
      [a, true],
      [b, true],
    ]);
    expect(conflicts.length).toBeGreaterThan(0);
    expect(conflicts[0].results.map((result: any) => result.location).toSorted()).toEqual([a, b]);
    const text = await cacheport(["verify", a, b]);
    expect(text.stdout).toContain(`${a}:\nok: `);
    expect(text.stdout).toContain("The caches have other results for");
  });

  test("that agree have nothing to say, and one that is damaged fails all", async () => {
    const same = await cacheport(["verify", fixture("donorA"), fixture("donorA"), "--json"]);
    expect(same.json().conflicts).toEqual([]);
    const bad = fixtureCopy("donorB");
    writeFileSync(
      join(bad, "index.json"),
      readFileSync(join(bad, "index.json"), "utf8").replace(/sha256:./, "sha256:0"),
    );
    const run = await cacheport(["verify", fixture("donorA"), bad, "--json"]);
    expect(run.code).toBe(4);
    expect(run.json().locations.map((each: any) => each.ok)).toEqual([true, false]);
  });

  test("and one place has the value that it always had", async () => {
    const value = (await cacheport(["verify", fixture("donorA"), "--json"])).json();
    expect(Object.keys(value)).toEqual(["ok", "blobs", "bytes", "problems"]);
  });
});
