/** Which names go by which rule, and that nothing goes that anything else needs. */
import { describe, expect, test } from "bun:test";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { addBlob, layoutFaults, readIndex, writeLayout } from "./helpers/layout.ts";
import { load, repositoryFaults } from "./helpers/registry-commands.ts";
import { started } from "./helpers/registry-client.ts";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";
import type { Answer } from "./helpers/test-server.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";
const LAYER = "application/vnd.oci.image.layer.v1.tar";
const REF_NAME = "org.opencontainers.image.ref.name";
const DAY = 86_400_000;

const named = (descriptor: object, name: string) => ({
  ...descriptor,
  annotations: { [REF_NAME]: name },
});

/** Adds a cache of one layer whose result is some days old; null for no known time. */
function addCache(layout: string, text: string, days: number | null): any {
  const layer = addBlob(layout, text, LAYER);
  const createdAt =
    days === null ? "0001-01-01T00:00:00Z" : new Date(Date.now() - days * DAY).toISOString();
  const config = addBlob(
    layout,
    {
      layers: [{ blob: layer.digest, parent: -1 }],
      records: [{ layers: [{ layer: 0, createdAt }], digest: layer.digest }],
    },
    CACHE_CONFIG,
  );
  return addBlob(
    layout,
    { schemaVersion: 2, mediaType: MANIFEST, config, layers: [layer] },
    MANIFEST,
  );
}

function addImage(layout: string, extra: object = {}): any {
  const config = addBlob(layout, "{}", "application/vnd.oci.empty.v1+json");
  return addBlob(
    layout,
    { schemaVersion: 2, mediaType: MANIFEST, config, layers: [], ...extra },
    MANIFEST,
  );
}

/** Caches of 1, 2, 10, 20 and 40 days under names, an image, and a cache without a time. */
function seeded(): string {
  const layout = tempFolder();
  const ages = { "pr-1": 1, "pr-2": 2, "pr-3": 10, "main-1": 20, "main-2": 40 };
  const entries = Object.entries(ages).map(([name, days]) =>
    named(addCache(layout, name, days), name),
  );
  entries.push(
    named(addImage(layout), "image"),
    named(addCache(layout, "timeless", null), "timeless"),
  );
  writeLayout(layout, entries);
  return layout;
}

const names = (layout: string): string[] =>
  readIndex(layout).manifests.map((entry: any) => entry.annotations?.[REF_NAME] ?? "-");

const ALL = ["pr-1", "pr-2", "pr-3", "main-1", "main-2", "image", "timeless"];

const RULES: [args: string[], gone: string[]][] = [
  [
    ["--max-age", "14d"],
    ["main-1", "main-2"],
  ],
  [
    ["--max-age", "5d"],
    ["pr-3", "main-1", "main-2"],
  ],
  [
    ["--max-age", "5d", "--keep", "3"],
    ["main-1", "main-2"],
  ],
  [
    ["--keep", "2"],
    ["pr-3", "main-1", "main-2"],
  ],
  [
    ["--keep", "0"],
    ["pr-1", "pr-2", "pr-3", "main-1", "main-2"],
  ],
  [["--keep", "9"], []],
  [
    ["--tags", "pr-*", "--keep", "1"],
    ["pr-2", "pr-3"],
  ],
  [
    ["--tags", "pr-*", "--tags", "main-?", "--max-age", "15d"],
    ["main-1", "main-2"],
  ],
  [["--tags", "nothing-*", "--keep", "0"], []],
  [["--max-age", "3650d"], []],
];

describe("a folder", () => {
  test.each(RULES)("%p removes %p", async (args, gone) => {
    const layout = seeded();
    const dry = await cacheport(["expire", layout, ...args, "--dry-run", "--json"]);
    expect(dry.json().removed.map((one: any) => one.name)).toEqual(gone);
    expect(names(layout)).toEqual(ALL);
    const run = await cacheport(["expire", layout, ...args, "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.json().removed.map((one: any) => one.name)).toEqual(gone);
    expect(run.json().kept.map((one: any) => one.name)).toEqual(
      ALL.filter((one) => !gone.includes(one)),
    );
    expect(names(layout)).toEqual(ALL.filter((one) => !gone.includes(one)));
    expect(layoutFaults(layout)).toEqual([]);
    const again = await cacheport(["expire", layout, ...args, "--json"]);
    if (!args.includes("--keep") || args.includes("--max-age"))
      expect(again.json().removed).toEqual([]);
    expect(again.code).toBe(0);
  });

  test("several names of one cache count once for --keep, and go together", async () => {
    const layout = tempFolder();
    const young = addCache(layout, "young", 1);
    const old = addCache(layout, "old", 9);
    writeLayout(layout, [named(young, "a"), named(young, "b"), named(old, "c"), named(old, "d")]);
    const run = await cacheport(["expire", layout, "--keep", "1", "--json"]);
    expect(run.json().removed.map((one: any) => one.name)).toEqual(["c", "d"]);
    expect(names(layout)).toEqual(["a", "b"]);
  });

  test("a pattern is about the tag of a full image name, too", async () => {
    const layout = tempFolder();
    const cache = addCache(layout, "x", 9);
    writeLayout(layout, [
      {
        ...cache,
        annotations: { [REF_NAME]: "pr-9", "io.containerd.image.name": "docker.io/a/b:pr-9" },
      },
    ]);
    const run = await cacheport(["expire", layout, "--tags", "pr-*", "--keep", "0", "--json"]);
    expect(run.json().removed).toHaveLength(1);
  });

  test("--untagged removes what has no name, but not what refers to what stays", async () => {
    const layout = tempFolder();
    const image = addImage(layout);
    const signature = addImage(layout, { subject: image, artifactType: "x/signature" });
    const orphan = addImage(layout, { artifactType: "x/orphan" });
    writeLayout(layout, [named(image, "app"), signature, orphan]);
    const run = await cacheport(["expire", layout, "--untagged", "--json"]);
    expect(run.json().removed.map((one: any) => one.digest)).toEqual([orphan.digest]);
    expect(readIndex(layout).manifests.map((one: any) => one.digest)).toEqual([
      image.digest,
      signature.digest,
    ]);
  });

  test("an archive and the text for people", async () => {
    const tar = `${tempFolder()}/a.tar`;
    expect((await cacheport(["copy", "--all", seeded(), tar])).code).toBe(0);
    const run = await cacheport(["expire", tar, "--max-age", "14d"]);
    expect(run.stdout).toMatch(
      /^REMOVED +NEWEST RESULT +DIGEST +WHY\nmain-1 +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d +[0-9a-f]{12} +its newest result is too old\n/,
    );
    expect(run.stdout).toEndWith("removed 2 names, kept 5\n");
    const left = (await cacheport(["ls", tar, "--json"])).json();
    expect(left.map((one: any) => one.refName)).toEqual(
      ALL.filter((one) => !one.startsWith("main")),
    );
  });

  test.each([
    [["x"], 2, "no rule says what goes"],
    [[":main", "--keep", "1"], 2, "rules are about all"],
    [["-", "--keep", "1"], 2, "standard input"],
    [["--keep", "-1"], 2, "--keep"],
    [["--max-age", "soon"], 2, "--max-age"],
  ])("%p is refused", async (args, code, message) => {
    const layout = fixtureCopy("grown");
    const [first, ...rest] = args as [string, ...string[]];
    const place =
      first === "x"
        ? [layout]
        : first === ":main"
          ? [`${layout}:main`]
          : first === "-"
            ? ["-"]
            : [layout, first];
    const run = await cacheport(["expire", ...place, ...rest]);
    expect(run.code).toBe(code);
    expect(run.stderr).toContain(message);
  });
});

const refused = (status: number, code: string): Answer => ({
  status,
  body: JSON.stringify({ errors: [{ code, message: code }] }),
});

describe("a repository", () => {
  const KINDS: [title: string, deletion: object][] = [
    ["that deletes tags and manifests", {}],
    ["that deletes by digest alone", { tag: refused(400, "DIGEST_INVALID") }],
  ];

  test.each(KINDS)("%s", async (_title, deletion) => {
    const registry = await started(TestRegistry.start({ deletion }));
    load(registry, "app", seeded());
    const { tags, manifests } = registry.repository("app");
    const before = manifests.size;
    const run = await cacheport(["expire", `${registry.domain}/app`, "--max-age", "14d", "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect([...tags.keys()].toSorted()).toEqual(
      ALL.filter((one) => !one.startsWith("main")).toSorted(),
    );
    // No manifest is left behind without a tag.
    expect(manifests.size).toBe(before - 2);
    expect(repositoryFaults(registry, "app")).toEqual([]);
  });

  test.each(KINDS)("%s keeps the children and subjects of what stays", async (_title, deletion) => {
    const registry = await started(TestRegistry.start({ deletion }));
    const layout = tempFolder();
    const old = addCache(layout, "old", 50);
    const subject = addCache(layout, "subject", 50);
    const signature = addImage(layout, { subject, artifactType: "x/signature" });
    // Made young by another child, so that the index stays.
    const young = addCache(layout, "young", 1);
    const both = addBlob(
      layout,
      { schemaVersion: 2, mediaType: INDEX, manifests: [old, young] },
      INDEX,
    );
    writeLayout(layout, [
      named(both, "both"),
      named(old, "old"),
      named(subject, "subject"),
      named(signature, "signature"),
    ]);
    load(registry, "app", layout);
    const run = await cacheport(["expire", `${registry.domain}/app`, "--max-age", "14d", "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    const { tags, manifests } = registry.repository("app");
    expect([...tags.keys()].toSorted()).toEqual(["both", "signature"]);
    for (const { digest } of [old, young, both, subject, signature])
      expect(manifests.has(digest)).toBe(true);
    expect(repositoryFaults(registry, "app")).toEqual([]);
  });

  test("that deletes nothing ends with 5 and one sentence, and nothing is changed", async () => {
    const nothing = refused(405, "UNSUPPORTED");
    const registry = await started(
      TestRegistry.start({ deletion: { tag: nothing, manifest: nothing } }),
    );
    load(registry, "app", seeded());
    const run = await cacheport(["expire", `${registry.domain}/app`, "--keep", "1"]);
    expect(run.code).toBe(5);
    expect(run.stderr).toMatch(/^cacheport: Cannot delete .*\nhint: /);
    expect([...registry.repository("app").tags.keys()].toSorted()).toEqual(ALL.toSorted());
    const untagged = await cacheport(["expire", `${registry.domain}/app`, "--untagged"]);
    expect(untagged.code).toBe(5);
  });

  test("eight runs at once with four writers of names lose nothing that is named", async () => {
    const registry = await started(TestRegistry.start({}));
    load(registry, "app", seeded());
    const fresh = tempFolder();
    writeLayout(fresh, [named(addCache(fresh, "fresh", 0), "fresh")]);
    const place = `${registry.domain}/app`;
    const runs = await Promise.all([
      ...Array.from({ length: 8 }, () =>
        cacheport(["expire", place, "--max-age", "14d", "--json"]),
      ),
      ...Array.from({ length: 4 }, (_, n) => cacheport(["copy", "-q", fresh, `${place}:new-${n}`])),
    ]);
    expect(runs.map(({ code, stderr }) => [code, stderr])).toEqual(runs.map(() => [0, ""]));
    const { tags } = registry.repository("app");
    expect([...tags.keys()].toSorted()).toEqual(
      [
        ...ALL.filter((one) => !one.startsWith("main")),
        "new-0",
        "new-1",
        "new-2",
        "new-3",
      ].toSorted(),
    );
    expect(repositoryFaults(registry, "app")).toEqual([]);
  });
});

test("eight runs at once on one folder with four writers keep every new name", async () => {
  const layout = seeded();
  const fresh = tempFolder();
  writeLayout(fresh, [named(addCache(fresh, "fresh", 0), "fresh")]);
  const children = [
    ...Array.from({ length: 8 }, () => [BINARY, "expire", layout, "--max-age", "14d"]),
    ...Array.from({ length: 4 }, (_, n) => [BINARY, "copy", "-q", fresh, `${layout}:new-${n}`]),
  ].map((command) => Bun.spawn(command, { stdout: "ignore", stderr: "pipe" }));
  for (const child of children)
    expect([await child.exited, await new Response(child.stderr).text()]).toEqual([0, ""]);
  expect(names(layout).toSorted()).toEqual(
    [
      ...ALL.filter((one) => !one.startsWith("main")),
      "new-0",
      "new-1",
      "new-2",
      "new-3",
    ].toSorted(),
  );
  expect(layoutFaults(layout)).toEqual([]);
});
