import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { blobNames, fixture, fixtureCopy } from "./helpers/temp.ts";

describe("cacheport gc", () => {
  test("removes what no name reaches, and verify agrees", async () => {
    const layout = fixtureCopy("grown");
    const before = blobNames(layout).length;
    const run = await cacheport(["gc", layout, "--grace", "0", "--json"]);
    expect(run.code).toBe(0);
    const { removed, removedBytes, kept, dryRun } = run.json();
    expect(dryRun).toBe(false);
    expect(kept).toBe(blobNames(layout).length);
    expect(removed).toHaveLength(before - kept);
    expect(removedBytes).toBeGreaterThan(0);
    const verified = await cacheport(["verify", layout, "--json"]);
    expect(verified.json()).toMatchObject({ ok: true, problems: [] });

    const again = await cacheport(["gc", layout, "--grace", "0", "--json"]);
    expect(again.json()).toMatchObject({ removed: [], removedBytes: 0, kept });
  });

  test("keeps what is young, and says so", async () => {
    const layout = fixtureCopy("grown");
    const run = await cacheport(["gc", layout]);
    expect(run.code).toBe(0);
    expect(run.stdout).toBe("removed 0 blobs (0 B), kept 28\n");
    expect(run.stderr).toContain("younger than --grace");
    expect(blobNames(layout)).toHaveLength(28);
  });

  test("--dry-run lists what would go", async () => {
    const layout = fixtureCopy("grown");
    const args = ["gc", layout, "--grace", "0", "--dry-run"];
    const text = await cacheport(args);
    const json = await cacheport([...args, "--json"]);
    const { removed, dryRun } = json.json();
    expect(dryRun).toBe(true);
    expect(blobNames(layout)).toHaveLength(28);
    for (const { digest } of removed) expect(text.stdout).toContain(digest);
    expect(text.stdout).toContain(`would remove ${removed.length} blobs`);
  });

  test("refuses with 4 when an entry cannot be followed", async () => {
    const layout = fixtureCopy("grown");
    writeFileSync(
      join(layout, "index.json"),
      JSON.stringify({
        schemaVersion: 2,
        manifests: [
          {
            mediaType: "application/vnd.oci.image.manifest.v1+json",
            digest: `sha256:${"0".repeat(64)}`,
            size: 1,
          },
        ],
      }),
    );
    const run = await cacheport(["gc", layout, "--grace", "0", "--json"]);
    expect(run.code).toBe(4);
    expect(run.json().error.code).toBe("GC_REFUSED");
    expect(blobNames(layout)).toHaveLength(28);
  });

  test.each([
    [fixture("image.tar"), 2, "--rewrite"],
    ["docker://registry.example/app", 2, "registry"],
    [`${fixture("grown")}:main`, 2, "whole layout"],
    ["./no-such-layout", 3, "no-such-layout"],
  ])("of %s is refused with %d", async (location, code, word) => {
    const run = await cacheport(["gc", location]);
    expect(run.code).toBe(code);
    expect(run.stderr).toContain(word);
  });
});
