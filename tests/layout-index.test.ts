import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { EntryName, Root } from "../src/content-store.ts";
import { digestOf } from "../src/digest.ts";
import {
  applyNames,
  emptyLayoutIndex,
  encodeLayoutIndex,
  entryLabel,
  matchesName,
  parseEntryName,
  parseLayoutIndex,
  removeEntries,
  resolveEntry,
  sameIndex,
  sameNameFinder,
} from "../src/layout-index.ts";
import type { LayoutIndex } from "../src/layout-index.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../src/media-types.ts";
import { canonicalName, isTag, normalizeReference } from "../src/reference.ts";
import { failure } from "./helpers/errors.ts";
import { random } from "./helpers/random.ts";
import { fixture } from "./helpers/temp.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (index: LayoutIndex): string => new TextDecoder().decode(encodeLayoutIndex(index));
const digest = (seed: string) => digestOf(seed);
const entry = (seed: string, annotations?: Record<string, string>) => ({
  mediaType: OCI_MANIFEST,
  digest: digest(seed),
  size: 2,
  ...(annotations && { annotations }),
});
const index = (...manifests: object[]): LayoutIndex =>
  parseLayoutIndex(bytes(JSON.stringify({ schemaVersion: 2, manifests })), "index.json");
const ref = (name: string) => ({ "org.opencontainers.image.ref.name": name });
const image = (name: string, tag: string) => ({
  ...ref(tag),
  "io.containerd.image.name": name,
});
const root = (seed: string, ...names: Root["names"]): Root => ({
  descriptor: entry(seed),
  bytes: bytes("{}"),
  names,
});

/** What {@link matchesName} says, told by reading every name as a reference. */
function answers({ refName, imageName }: EntryName, name: string): boolean {
  const names = [refName, imageName].filter((one) => one !== undefined);
  if (names.includes(name)) return true;
  const full = names.filter((one) => !isTag(one)).map(canonicalName);
  if (!isTag(name)) return canonicalName(name) !== undefined && full.includes(canonicalName(name));
  return full.some((one) => one !== undefined && normalizeReference(one).tag === name);
}

const BAD = [
  ["no JSON", "{", "not valid JSON"],
  ["an array", "[]", "Invalid type"],
  ["manifests that is no list", '{"manifests":{}}', "manifests"],
  ["an entry that is no object", '{"manifests":[1]}', "manifests.0"],
  ["a manifest", `{"mediaType":"${OCI_MANIFEST}"}`, "Expected an image index"],
  ["schema version 1", '{"schemaVersion":1,"manifests":[]}', "schemaVersion"],
] as const;

const UNUSABLE = [
  ["a digest with a path", { digest: "sha256:../../x", size: 1 }, "field digest"],
  ["a digest of another algorithm", { digest: `blake3:${"ab".repeat(32)}`, size: 1 }, "digest"],
  ["a digest in upper case", { digest: `sha256:${"AB".repeat(32)}`, size: 1 }, "field digest"],
  ["no digest", { size: 1 }, "field digest"],
  ["a negative size", { digest: digest("x"), size: -1 }, "field size"],
  ["a size that is no number", { digest: digest("x"), size: "1" }, "field size"],
  ["a platform that is none", { ...entry("x"), platform: "linux" }, "field platform"],
  ["an annotation that is no text", { ...entry("x"), annotations: { a: 1 } }, "annotations.a"],
] as const;

describe("parseLayoutIndex", () => {
  test.each(BAD)("refuses %s in one sentence", async (_what, json, reason) => {
    const error = await failure(() => parseLayoutIndex(bytes(json), "index.json"));
    expect(error.code).toBe("DOCUMENT_INVALID");
    expect(error.message).toContain(reason);
    expect(error.message).not.toContain("\n");
  });

  test.each(UNUSABLE)("keeps an entry with %s, and the others with it", (_what, value, reason) => {
    const named = { annotations: ref("odd"), ...value };
    const { entries } = index(entry("a", ref("good")), named, entry("b", ref("fine")));
    expect(entries.map(({ problem }) => problem !== undefined)).toEqual([false, true, false]);
    expect(entries[1]?.problem).toContain(`entry 2 of 3: `);
    expect(entries[1]?.problem).toContain(reason);
    expect(entries[1]?.descriptor.digest).toBe(
      ((value as { digest?: string }).digest ?? "") as never,
    );
  });

  test("an unusable entry resolves to its problem, keeps its bytes and is not replaced", async () => {
    const odd = { mediaType: "m", digest: "blake3:x", size: 1, annotations: ref("odd") };
    const before = index(entry("a", ref("good")), odd);
    expect(resolveEntry(before, { name: "good" }, "l")?.refName).toBe("good");
    const error = await failure(() => resolveEntry(before, { name: "odd" }, "l"));
    expect([error.code, error.exitCode]).toEqual(["DOCUMENT_INVALID", 4]);
    const after = applyNames(before, [root("b", { kind: "set", name: { refName: "good" } })], "l");
    expect(JSON.parse(text(after)).manifests[1]).toEqual(odd);
    const set = [root("b", { kind: "set" as const, name: { refName: "odd" } })];
    expect((await failure(() => applyNames(before, set, "l"))).message).toContain("Cannot replace");
    expect(removeEntries(before, (e) => e.refName === "odd").entries).toHaveLength(1);
  });

  test("accepts what older programs write: no mediaType, manifests null", () => {
    expect(parseLayoutIndex(bytes('{"schemaVersion":2,"manifests":null}'), "x").entries).toEqual(
      [],
    );
    expect(parseLayoutIndex(bytes("{}"), "x").entries).toEqual([]);
  });

  test("writes BuildKit's own files back byte for byte", () => {
    for (const name of ["app-oci-index", "image-dir", "grown", "multi-image"]) {
      const original = readFileSync(join(fixture(name), "index.json"));
      expect(text(parseLayoutIndex(original, name))).toBe(original.toString());
    }
  });
});

describe("resolveEntry", () => {
  const walked = index(
    entry("a", ref("latest")),
    entry("b", image("reg.example/team/app:1.0", "1.0")),
    entry("c", ref("docker.io/library/tool:2")),
    entry("r", { "io.containerd.manifest.subject": digest("b") }),
    entry("n"),
  );

  test.each([
    ["latest", "a"],
    [undefined, "a"],
    ["1.0", "b"],
    ["reg.example/team/app:1.0", "b"],
    ["2", "c"],
    ["tool:2", "c"],
    ["docker.io/library/tool:2", "c"],
  ])("name %p means entry %s", (name, seed) => {
    expect(resolveEntry(walked, { name }, "x")?.descriptor.digest).toBe(digest(seed));
  });

  test("a digest finds its entry, and no entry is undefined", () => {
    expect(resolveEntry(walked, { digest: digest("n") }, "x")?.descriptor.digest).toBe(digest("n"));
    expect(resolveEntry(walked, { digest: digest("zzz") }, "x")).toBeUndefined();
  });

  test("a name that is not there is answered with those that are", async () => {
    const error = await failure(() => resolveEntry(walked, { name: "nope" }, "cache"));
    expect(error.code).toBe("NAME_NOT_FOUND");
    expect(error.message).toBe('Cannot find "nope" in "cache": no entry has that name');
    expect(error.hint).toContain("latest, reg.example/team/app:1.0, docker.io/library/tool:2");
  });

  test("the only entry is meant when nothing is named, whatever it is called", () => {
    expect(resolveEntry(index(entry("a", ref("main"))), {}, "x")?.refName).toBe("main");
    expect(resolveEntry(index(entry("a")), {}, "x")?.descriptor.digest).toBe(digest("a"));
  });

  test("two names of one digest are not ambiguous, two digests are", async () => {
    const same = index(entry("a", ref("x")), entry("a", ref("y")));
    expect(resolveEntry(same, {}, "l")?.refName).toBe("x");
    const different = index(
      entry("a", image("one.example/app:v1", "v1")),
      entry("b", image("two.example/app:v1", "v1")),
    );
    const error = await failure(() => resolveEntry(different, { name: "v1" }, "l"));
    expect(error.code).toBe("NAME_AMBIGUOUS");
    expect(error.hint).toContain("one.example/app:v1, two.example/app:v1");
    expect(resolveEntry(different, { name: "two.example/app:v1" }, "l")?.descriptor.digest).toBe(
      digest("b"),
    );
    expect((await failure(() => resolveEntry(different, {}, "l"))).code).toBe("NAME_AMBIGUOUS");
  });

  test("an index without entries says so", async () => {
    const error = await failure(() => resolveEntry(emptyLayoutIndex(), {}, "l"));
    expect(error.code).toBe("NAME_NOT_FOUND");
    expect(error.message).toContain("holds no names");
  });
});

test("names that no reference grammar knows match by their exact text", () => {
  expect(matchesName({ refName: "a+b/C" }, "a+b/C")).toBe(true);
  expect(matchesName({ refName: "a+b/C" }, "C")).toBe(false);
});

test.each([
  ["v1", { refName: "v1" }],
  ["app:v1", { refName: "v1", imageName: "docker.io/library/app:v1" }],
  ["reg.example:5000/a/b", { refName: "latest", imageName: "reg.example:5000/a/b:latest" }],
])("the name %s is written as BuildKit writes it", (name, expected) => {
  expect(parseEntryName(name)).toEqual(expected);
});

describe("applyNames", () => {
  test("a name is replaced in its place, a new one comes last, others stay", () => {
    const before = index(entry("a", ref("x")), entry("b", ref("y")));
    const after = applyNames(
      before,
      [root("c", { kind: "set", name: { refName: "x" } }, { kind: "set", name: { refName: "z" } })],
      "l",
    );
    expect(after.entries.map((e) => [entryLabel(e), e.descriptor.digest])).toEqual([
      ["x", digest("c")],
      ["y", digest("b")],
      ["z", digest("c")],
    ]);
  });

  test("a name that is given again changes nothing", () => {
    const names = [{ kind: "set" as const, name: { refName: "latest" } }];
    const root = (annotations: Record<string, string>): Root => ({
      descriptor: entry("a", annotations),
      bytes: bytes("{}"),
      names,
    });
    const first = applyNames(index(), [root({ a: "1" })], "x");
    expect(sameIndex(applyNames(first, [root({ a: "1" })], "x"), first)).toBe(true);
    expect(sameIndex(applyNames(first, [root({ a: "2" })], "x"), first)).toBe(false);
  });

  test("unknown fields of the index and of entries are kept", () => {
    const json = `{"schemaVersion":2,"x":{"y":[1]},"manifests":[{"mediaType":"m","digest":"${digest("a")}","size":1,"annotations":{"k":"v","org.opencontainers.image.ref.name":"a"},"z":1}],"annotations":{"q":"r"}}`;
    const before = parseLayoutIndex(bytes(json), "x");
    const [old] = before.entries;
    const after = applyNames(before, [root("b", { kind: "replace", entry: old as never })], "l");
    const value = JSON.parse(text(after));
    expect(value.x).toEqual({ y: [1] });
    expect(value.annotations).toEqual({ q: "r" });
    expect(value.manifests).toEqual([
      {
        ...entry("b"),
        annotations: { k: "v", "org.opencontainers.image.ref.name": "a" },
        z: 1,
      },
    ]);
  });

  test("digits, order and odd keys of what is not known are kept to the letter", () => {
    const unknown = `"x":{"10":1,"9":[1.50,-0,1e400,12345678901234567890123],"a":{"__proto__":"\\u003c"}}`;
    const first = `{"mediaType":"m","digest":"${digest("a")}","size":1,"annotations":{"b":"v","9":"w","10":"x","org.opencontainers.image.ref.name":"a"},${unknown}}`;
    const second = `{"size":2,"digest":"${digest("b")}","mediaType":"m","data":"","n":3.0,"annotations":{"org.opencontainers.image.ref.name":"b"}}`;
    const json = `{ "schemaVersion": 2,\n "mediaType":"${OCI_INDEX}",${unknown},"manifests":[${first}, ${second}],"n":0.10}`;
    const before = parseLayoutIndex(bytes(json), "x");
    const replace = root("c", { kind: "replace", entry: before.entries[1] as never });
    const after = applyNames(before, [replace, root("d", { kind: "list" })], "l");
    expect(text(after)).toBe(
      `{"schemaVersion":2,"mediaType":"${OCI_INDEX}",${unknown},"manifests":[${first},` +
        `{"size":2,"digest":"${digest("c")}","mediaType":"application/vnd.oci.image.manifest.v1+json","n":3.0,"annotations":{"org.opencontainers.image.ref.name":"b"}},` +
        `${JSON.stringify(entry("d"))}],"n":0.10}`,
    );
    expect(sameIndex(before, parseLayoutIndex(bytes(json), "x"))).toBe(true);
  });

  test("the work grows as the number of names does", () => {
    const work = (count: number): number => {
      let reads = 0;
      const counted = index(
        ...Array.from({ length: count }, (_, n) => entry(`old ${n}`, ref(`old-${n}`))),
      ).entries.map(
        (each) =>
          new Proxy(each, {
            get(target, key) {
              reads++;
              return Reflect.get(target, key);
            },
          }),
      );
      const names = Array.from({ length: count }, (_, n) =>
        root(`new ${n}`, { kind: "set" as const, name: { refName: `new-${n}` } }),
      );
      const after = applyNames({ raw: {}, entries: counted }, names, "l");
      expect(after.entries).toHaveLength(2 * count);
      return reads;
    };
    expect(work(400)).toBeLessThan(5 * work(100));
  });

  test("an update among thousands of entries reads none of the other names as references", () => {
    const entries = Array.from({ length: 2000 }, (_, n) =>
      entry(`${n}`, image(`registry.example/team/app:tag-${n}`, `tag-${n}`)),
    );
    const many = index(...entries);
    const read = RegExp.prototype.exec;
    let references = 0;
    RegExp.prototype.exec = function (this: RegExp, text: string) {
      if (this.source.length > 200) references++;
      return read.call(this, text);
    };
    try {
      const names = [parseEntryName("fresh"), parseEntryName("registry.example/team/app:new")];
      for (const name of names) {
        applyNames(many, [root("x", { kind: "set", name })], "l");
        sameNameFinder(many.entries)(name);
        resolveEntry(many, { name: "registry.example/team/app:tag-1999" }, "l");
      }
      applyNames(many, [root("x", { kind: "replace", entry: many.entries[5] as never })], "l");
    } finally {
      RegExp.prototype.exec = read;
    }
    expect(references).toBeGreaterThan(0);
    expect(references).toBeLessThan(200);
  });

  test("one update does the same as among many, whatever the names look like", () => {
    const { pick, below } = random(7);
    const spelled = (): string =>
      pick(["", "", "docker.io/", "docker.io/library/", "r.example:5000/", "localhost/", "team/"]) +
      pick(["app", "apple", "app", "latest", "a"]) +
      pick(["", "", ":1", ":latest", ":app", ":1.0", "/x", ":", "@", `@${digest("d")}`]);
    const oneName = () =>
      pick([() => ref(spelled()), () => image(spelled(), spelled()), () => ({})])();
    const told = (run: () => LayoutIndex): string => {
      try {
        return text(run());
      } catch (error) {
        return String((error as Error).message);
      }
    };
    for (let round = 0; round < 2000; round++) {
      const before = index(
        ...Array.from({ length: 1 + below(6) }, () => entry(`${below(4)}`, oneName())),
      );
      const nothing = root("", ...Array(9).fill({ kind: "list" }));
      const first = { ...nothing, descriptor: before.entries[0]?.descriptor as never };
      const name = pick([
        () => ({ refName: spelled() }),
        () => ({ refName: spelled(), imageName: spelled() }),
        () => parseEntryName(spelled() || "x"),
      ])();
      const update = pick([
        { kind: "set" as const, name },
        { kind: "list" as const },
        { kind: "replace" as const, entry: pick(before.entries) },
      ]);
      const asked = root(`${below(5)}`, update);
      expect(told(() => applyNames(before, [asked], "l"))).toBe(
        told(() => applyNames(before, [first, asked], "l")),
      );
      const find = sameNameFinder(before.entries);
      const few = find(name);
      for (let n = 0; n < 9; n++) expect(find(name)).toBe(few as never);
      for (const each of before.entries)
        expect([each, name, matchesName(each, name.refName ?? "")]).toEqual([
          each,
          name,
          answers(each, name.refName ?? ""),
        ]);
    }
  });

  test("replacing an entry that has moved fails, one that has become the same does not", async () => {
    const [old] = index(entry("a", ref("x"))).entries;
    const replace = [root("b", { kind: "replace", entry: old as never })];
    const moved = index(entry("other", ref("x")));
    expect((await failure(() => applyNames(moved, replace, "l"))).code).toBe("NAME_CHANGED");
    const done = index(entry("b", ref("x")));
    expect(text(applyNames(done, replace, "l"))).toBe(text(done));
  });

  test("a full name replaces every spelling of itself", () => {
    const before = index(entry("a", ref("docker.io/library/app:1")), entry("b", ref("keep")));
    const name = parseEntryName("app:1");
    const after = applyNames(before, [root("c", { kind: "set", name })], "l");
    expect(after.entries.map(entryLabel)).toEqual(["docker.io/library/app:1", "keep"]);
  });

  test("a bare tag does not hide a full name with that tag", async () => {
    const before = index(entry("a", image("reg.example/app:v1", "v1")));
    const set = root("b", { kind: "set", name: { refName: "v1" } });
    const error = await failure(() => applyNames(before, [set], "l"));
    expect(error.code).toBe("NAME_AMBIGUOUS");
    expect(error.message).toContain("it is the tag of reg.example/app:v1");
    const same = root("a", { kind: "set", name: { refName: "v1" } });
    expect(applyNames(before, [same], "l").entries).toHaveLength(2);
  });

  test("listing without a name adds an entry once", () => {
    const once = applyNames(emptyLayoutIndex(), [root("a", { kind: "list" })], "l");
    const twice = applyNames(once, [root("a", { kind: "list" })], "l");
    expect(twice.entries).toHaveLength(1);
    expect(JSON.parse(text(twice)).manifests).toEqual([entry("a")]);
  });
});

test("removeEntries leaves the rest in order", () => {
  const before = index(entry("a", ref("x")), entry("b", ref("y")), entry("c", ref("z")));
  const after = removeEntries(before, (e) => e.refName === "y");
  expect(after.entries.map(entryLabel)).toEqual(["x", "z"]);
});
