/** Names that are given only where there is none, and names of other repositories. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { digestOfName, readIndex } from "./helpers/layout.ts";
import { ask, load, repositoryFaults } from "./helpers/registry-commands.ts";
import { started } from "./helpers/registry-client.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

describe("tag --if-absent", () => {
  test("leaves a name that is there, and gives one that is not, in a folder and a tar", async () => {
    const tar = join(tempFolder(), "a.tar");
    expect((await cacheport(["copy", "--all", fixture("grown"), tar])).code).toBe(0);
    for (const place of [fixtureCopy("grown"), tar]) {
      const before = (await cacheport(["ls", place, "--json"])).json();
      const of = (list: any[], name: string) => list.find((one) => one.refName === name)?.digest;
      const run = await cacheport([
        "tag",
        `${place}:main`,
        "feature",
        "new",
        "--if-absent",
        "--json",
      ]);
      expect([run.code, run.stderr]).toEqual([0, ""]);
      expect(run.json()).toMatchObject({
        names: ["new"],
        present: [{ name: "feature", digest: of(before, "feature") }],
        moved: [],
      });
      const after = (await cacheport(["ls", place, "--json"])).json();
      expect(of(after, "feature")).toBe(of(before, "feature"));
      expect(of(after, "new")).toBe(of(before, "main"));
      const text = await cacheport(["tag", `${place}:main`, "new", "--if-absent"]);
      expect(text.stdout).toBe(`new ${of(before, "main")} is there already\n`);
    }
  });

  test("eight at once in one folder: one of them gives the name", async () => {
    const layout = fixtureCopy("grown");
    const sources = ["main", "feature"];
    const runs = await Promise.all(
      Array.from({ length: 8 }, (_, n) =>
        cacheport(["tag", `${layout}:${sources[n % 2]}`, "new", "--if-absent", "--json"]),
      ),
    );
    expect(runs.map(({ code }) => code)).toEqual(runs.map(() => 0));
    const winners = runs.filter((run) => run.json().names.length === 1);
    expect(winners).toHaveLength(1);
    expect(digestOfName(layout, "new")).toBe(winners[0]?.json().digest);
  });

  test("in a registry: one GET, one PUT, and the look whether it is there", async () => {
    const registry = await started(TestRegistry.start({}));
    const digest = load(registry, "app", fixture("app-image-manifest"), "main");
    const place = `${registry.domain}/app`;
    const run = await ask(registry, ["tag", `${place}:main`, "feature", "--if-absent", "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.requests.filter((line) => line.startsWith("GET "))).toHaveLength(1);
    expect(run.writes).toEqual(["PUT app/manifests/feature"]);
    expect(registry.repository("app").tags.get("feature")).toBe(digest);
    load(registry, "app", fixture("multi-cache"), "feature");
    const other = registry.repository("app").tags.get("feature");
    const again = await ask(registry, ["tag", `${place}:main`, "feature", "--if-absent", "--json"]);
    expect([again.code, again.writes]).toEqual([0, []]);
    expect(again.json().present).toEqual([{ name: "feature", digest: other }]);
  });

  test("--dry-run says what would be and changes nothing", async () => {
    const layout = fixtureCopy("grown");
    const run = await cacheport([
      "tag",
      `${layout}:main`,
      "feature",
      "new",
      "--if-absent",
      "--dry-run",
      "--json",
    ]);
    expect(run.json()).toMatchObject({ names: ["new"], present: [{ name: "feature" }] });
    expect(digestOfName(layout, "new")).toBeUndefined();
  });
});

describe("tag --first-of", () => {
  test.each([
    ["nothing,feature,main", "feature"],
    ["main,feature", "main"],
    [",none,,main", "main"],
  ])("%s names what %s stands for", async (names, wanted) => {
    const layout = fixtureCopy("grown");
    const run = await cacheport(["tag", layout, "branch", "--first-of", names, "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(digestOfName(layout, "branch")).toBe(digestOfName(layout, wanted));
  });

  test("ends with 3 when none is there, and with 2 beside a name", async () => {
    const layout = fixtureCopy("grown");
    const none = await cacheport(["tag", layout, "branch", "--first-of", "a,b"]);
    expect(none.code).toBe(3);
    expect(none.stderr).toContain('Cannot find any of "a", "b"');
    const both = await cacheport(["tag", `${layout}:main`, "branch", "--first-of", "a,b"]);
    expect(both.code).toBe(2);
    expect(readIndex(layout)).toEqual(readIndex(fixture("grown")));
  });

  test("seeds a branch's cache in a registry", async () => {
    const registry = await started(TestRegistry.start({}));
    const digest = load(registry, "app", fixture("app-image-manifest"), "develop");
    const args = [
      "tag",
      `${registry.domain}/app`,
      "branch",
      "--first-of",
      "main,develop",
      "--if-absent",
    ];
    const run = await ask(registry, args);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(registry.repository("app").tags.get("branch")).toBe(digest);
  });
});

describe("tag REPOSITORY:TAG OTHER-REPOSITORY:TAG", () => {
  test("mounts the blobs and uploads nothing", async () => {
    const registry = await started(TestRegistry.start({}));
    const digest = load(registry, "team/app", fixture("app-image-manifest"), "main");
    const other = `${registry.domain}/team/branch:b`;
    const run = await ask(registry, [
      "tag",
      `${registry.domain}/team/app:main`,
      other,
      "--if-absent",
      "--json",
    ]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.json()).toMatchObject({ names: [other], present: [] });
    expect(registry.repository("team/branch").tags.get("b")).toBe(digest);
    expect(repositoryFaults(registry, "team/branch")).toEqual([]);
    const uploads = run.writes.filter((line) => line.startsWith("POST "));
    expect(uploads.length).toBeGreaterThan(0);
    for (const line of uploads) expect(line).toContain("mount=");
    expect(run.writes.filter((line) => /^(?:PATCH|PUT) .*\/blobs\//.test(line))).toEqual([]);
    const again = await ask(registry, [
      "tag",
      `${registry.domain}/team/app:main`,
      other,
      "--if-absent",
      "--json",
    ]);
    expect(again.writes).toEqual([]);
    expect(again.json()).toMatchObject({ names: [], present: [{ name: other, digest }] });
  });

  test("of another registry is refused with the command that does it", async () => {
    const registry = await started(TestRegistry.start({}));
    load(registry, "app", fixture("app-image-manifest"), "main");
    const run = await cacheport(["tag", `${registry.domain}/app:main`, "registry.example/app:x"]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(
      `cacheport copy ${registry.domain}/app:main registry.example/app:x`,
    );
  });
});

describe("untag REPOSITORY@DIGEST", () => {
  test("deletes a manifest that nothing names", async () => {
    const registry = await started(TestRegistry.start({}));
    const digest = load(registry, "app", fixture("app-image-manifest"), "main");
    const { tags, manifests } = registry.repository("app");
    const place = `${registry.domain}/app@${digest}`;
    const refused = await cacheport(["untag", place]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('the name "main" needs it');
    expect(manifests.has(digest as any)).toBe(true);
    tags.delete("main");
    const run = await cacheport(["untag", place]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(manifests.has(digest as any)).toBe(false);
    expect((await cacheport(["untag", place])).code).toBe(3);
  });

  test("keeps the child of an index that has a tag", async () => {
    const registry = await started(TestRegistry.start({}));
    load(registry, "app", fixture("multi-image"), "main");
    const { tags, manifests } = registry.repository("app");
    const top = tags.get("main");
    const child = [...manifests.keys()].find((digest) => digest !== top);
    const run = await cacheport(["untag", `${registry.domain}/app@${child}`]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(`"${top}", which "main" names, needs it`);
    expect(repositoryFaults(registry, "app")).toEqual([]);
  });

  test("ends with 5 where the registry deletes nothing", async () => {
    const body = JSON.stringify({ errors: [{ code: "UNSUPPORTED", message: "no" }] });
    const nothing = { status: 405, body };
    const registry = await started(
      TestRegistry.start({ deletion: { tag: nothing, manifest: nothing } }),
    );
    const digest = load(registry, "app", fixture("app-image-manifest"), "main");
    registry.repository("app").tags.clear();
    const run = await cacheport(["untag", `${registry.domain}/app@${digest}`]);
    expect(run.code).toBe(5);
  });
});
