import { describe, expect, test } from "bun:test";
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { TestRegistry } from "./helpers/test-registry.ts";
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";

const REF_NAME = "org.opencontainers.image.ref.name";
const IMAGE_NAME = "io.containerd.image.name";

const entriesOf = (layout: string): any[] =>
  JSON.parse(readFileSync(join(layout, "index.json"), "utf8")).manifests;

async function resolved(location: string): Promise<string | undefined> {
  const run = await cacheport(["resolve", location, "--json"]);
  return run.code === 0 ? run.json().digest : undefined;
}

describe("cacheport tag", () => {
  test("says where the names are and what they meant before", async () => {
    const layout = fixtureCopy("grown");
    const [main, other] = entriesOf(layout);
    expect(other.digest).not.toBe(main.digest);
    const name = other.annotations[REF_NAME];
    const moved = { name, from: other.digest, to: main.digest };
    for (const dryRun of [["--dry-run"], []]) {
      const run = await cacheport(["tag", `${layout}:main`, name, "new", "--json", ...dryRun]);
      expect(run.json()).toMatchObject({
        to: { kind: "folder", location: layout, new: false },
        moved: [moved],
      });
    }
    const back = await cacheport(["tag", `${layout}@${other.digest}`, name]);
    expect(back.stdout).toBe(
      `${name} ${other.digest}\nto: folder ${layout}\n${name}: was ${main.digest}, now ${other.digest}\n`,
    );
  });

  test("gives further names, a tag and a full name", async () => {
    const layout = fixtureCopy("grown");
    const [main] = entriesOf(layout);
    const blobs = blobNames(layout);
    const name = "reg.example/team/cache:v1";
    const run = await cacheport(["tag", `${layout}:main`, "backup", name, "--json"]);
    expect(run.code).toBe(0);
    const { mediaType, digest, size } = main;
    expect(run.json()).toEqual({
      mediaType,
      digest,
      size,
      names: ["backup", name],
      present: [],
      to: { kind: "folder", location: layout, new: false },
      moved: [],
    });
    const entries = entriesOf(layout);
    expect(entries).toHaveLength(4);
    expect(entries[0]).toEqual(main);
    expect(entries[2].annotations).toEqual({ [REF_NAME]: "backup" });
    expect(entries[3].annotations).toEqual({
      [IMAGE_NAME]: name,
      [REF_NAME]: "v1",
    });
    expect(await resolved(`${layout}:backup`)).toBe(digest);
    expect(await resolved(`${layout}:${name}`)).toBe(digest);
    expect(blobNames(layout)).toEqual(blobs);
  });

  test("moves a name that is there", async () => {
    const layout = fixtureCopy("grown");
    const [main] = entriesOf(layout);
    await cacheport(["tag", `${layout}:main`, "feature"]);
    expect(entriesOf(layout)).toHaveLength(2);
    expect(await resolved(`${layout}:feature`)).toBe(main.digest);
  });

  test("names what has no name, by its digest", async () => {
    const layout = fixtureCopy("grown");
    const [main] = entriesOf(layout);
    await cacheport(["untag", `${layout}:main`]);
    const run = await cacheport(["tag", `${layout}@${main.digest}`, "again"]);
    expect(run.code).toBe(0);
    expect(await resolved(`${layout}:again`)).toBe(main.digest);
    expect((await cacheport(["verify", layout])).code).toBe(0);
  });

  test("names what is in an archive", async () => {
    const archive = join(tempFolder(), "image.tar");
    cpSync(fixture("image.tar"), archive);
    const run = await cacheport(["tag", archive, "more", "--json"]);
    expect(run.code).toBe(0);
    expect(await resolved(`${archive}:more`)).toBe(run.json().digest);
    expect((await cacheport(["verify", archive])).code).toBe(0);
  });

  test("--dry-run changes nothing", async () => {
    const layout = fixtureCopy("grown");
    const before = entriesOf(layout);
    const run = await cacheport(["tag", `${layout}:main`, "x", "--dry-run", "--json"]);
    expect(run.json()).toMatchObject({
      digest: before[0].digest,
      names: ["x"],
    });
    expect(entriesOf(layout)).toEqual(before);
  });

  test.each([
    [["tag", "LAYOUT:main"], 2],
    [["tag", "LAYOUT:main", "no name!"], 2],
    [["tag", "LAYOUT:main", ""], 2],
    [["tag", "LAYOUT:nobody", "x"], 3],
    [["tag", "LAYOUT", "x"], 3],
  ])("%j ends with %d and changes nothing", async (args, code) => {
    const layout = fixtureCopy("grown");
    const before = entriesOf(layout);
    const run = await cacheport(args.map((arg) => arg.replace("LAYOUT", layout)));
    expect(run.code).toBe(code);
    expect(entriesOf(layout)).toEqual(before);
  });

  test("eight at once lose no name", async () => {
    const layout = fixtureCopy("grown");
    const names = Array.from({ length: 8 }, (_, number) => `tag-${number}`);
    const runs = await Promise.all(names.map((name) => cacheport(["tag", `${layout}:main`, name])));
    expect(runs.map(({ code }) => code)).toEqual(names.map(() => 0));
    const found = entriesOf(layout).map((entry) => entry.annotations[REF_NAME]);
    expect(found.toSorted()).toEqual(["feature", "main", ...names]);
  });
});

test("tag and untag in a registry", async () => {
  const registry = await TestRegistry.start();
  try {
    const repository = `docker://${registry.domain}/team/cache`;
    await cacheport(["copy", `${fixture("grown")}:main`, `${repository}:main`]);
    const digest = entriesOf(fixture("grown"))[0].digest;
    const tagged = await cacheport(["tag", `${repository}:main`, "v1", "--json"]);
    expect(tagged.json()).toMatchObject({ digest, names: ["v1"] });
    expect(await resolved(`${repository}:v1`)).toBe(digest);
    const full = await cacheport(["tag", `${repository}:main`, "reg.example/a:1"]);
    expect(full.code).toBe(2);
    expect((await cacheport(["verify", `${repository}:v1`, "--deep"])).code).toBe(0);

    const run = await cacheport(["untag", `${repository}:v1`, "--json"]);
    expect(run.json()).toMatchObject({ removed: ["v1"], digest });
    expect(await resolved(`${repository}:v1`)).toBeUndefined();
    expect(await resolved(`${repository}:main`)).toBe(digest);
    expect((await cacheport(["untag", repository])).code).toBe(2);
    expect((await cacheport(["untag", `${repository}:gone`])).code).toBe(3);
  } finally {
    registry.stop();
  }
});

describe("cacheport untag", () => {
  test("removes a name and leaves the blobs to gc", async () => {
    const layout = fixtureCopy("grown");
    const [main, feature] = entriesOf(layout);
    const run = await cacheport(["untag", `${layout}:feature`, "--json"]);
    expect(run.code).toBe(0);
    expect(run.json()).toMatchObject({
      removed: ["feature"],
      digest: feature.digest,
    });
    expect(entriesOf(layout)).toEqual([main]);
    expect(blobNames(layout)).toHaveLength(28);
  });

  test("removes several names at once", async () => {
    const layout = fixtureCopy("grown");
    const locations = [`${layout}:main`, `${layout}:feature`];
    const run = await cacheport(["untag", ...locations, "--json"]);
    expect(run.json()).toMatchObject({
      removed: ["main", "feature"],
      digest: null,
    });
    expect(entriesOf(layout)).toEqual([]);
  });

  test("removes one full name of two that share a tag, and asks which", async () => {
    const layout = fixtureCopy("grown");
    const names = ["reg.example/a:v1", "reg.example/b:v1"];
    await cacheport(["tag", `${layout}:main`, ...names]);
    const vague = await cacheport(["untag", `${layout}:v1`]);
    expect(vague.code).toBe(3);
    for (const name of names) expect(vague.stderr).toContain(name);
    expect((await cacheport(["untag", `${layout}:${names[0]}`])).code).toBe(0);
    expect(entriesOf(layout).map((entry) => entry.annotations[IMAGE_NAME])).toEqual([
      undefined,
      undefined,
      names[1],
    ]);
  });

  test("removes every entry of a digest", async () => {
    const layout = fixtureCopy("grown");
    const [main, feature] = entriesOf(layout);
    await cacheport(["tag", `${layout}:main`, "one", "two"]);
    const run = await cacheport(["untag", `${layout}@${main.digest}`]);
    expect(run.code).toBe(0);
    expect(entriesOf(layout)).toEqual([feature]);
  });

  test.each([
    [["untag", "LAYOUT"], 2],
    [["untag", "LAYOUT:nobody"], 3],
    [["untag", "LAYOUT:main", "LAYOUT:nobody"], 3],
    [["untag", "LAYOUT:main", "--dry-run"], 0],
    [["untag", "-:main"], 2],
    [["untag", fixture("image.tar") + ":nobody"], 3],
  ])("%j ends with %d and changes nothing", async (args, code) => {
    const layout = fixtureCopy("grown");
    const before = entriesOf(layout);
    const run = await cacheport(args.map((arg) => arg.replace("LAYOUT", layout)));
    expect(run.code).toBe(code);
    expect(entriesOf(layout)).toEqual(before);
  });
});
