/** The commands on layouts in tar files. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { blobFile, layoutFaults, readIndex, snapshot } from "./helpers/layout.ts";
import { shell } from "./helpers/shell.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

/** What a run must have given: nothing on standard error, and a value. */
async function value<T = any>(...args: string[]): Promise<T> {
  const run = await cacheport([...args, "--json"]);
  expect(run.stderr).toBe("");
  expect(run.code).toBe(0);
  return run.json<T>();
}

/** A fixture in a tar of GNU tar's. */
async function packed(name: string, file = "cache.tar"): Promise<string> {
  const path = join(tempFolder(), file);
  const run = await shell(dirname(path), `tar -C "${fixture(name)}" -cf ${file} .`);
  expect(run.code).toBe(0);
  return path;
}

/** The names in an archive. */
async function namesIn(path: string): Promise<string[]> {
  const entries = await value<any[]>("ls", path);
  return entries.map(({ refName, imageName }) => imageName ?? refName);
}

const top = (name: string): any => readIndex(fixture(name)).manifests[0];

/** What the first bytes say of a file. */
function compressionOf(path: string): string {
  const [a, b] = readFileSync(path);
  if (a === 0x1f && b === 0x8b) return "gzip";
  return a === 0x28 && b === 0xb5 ? "zstd" : "none";
}

describe("what reads gives the same for a folder and for its archive", () => {
  const folder = fixture("app-oci-index");
  const archives: [string, (folder: string) => string][] = [
    ["a tar", () => "cp all.tar x.tar"],
    ["a tar with another name", () => "cp all.tar x.bin"],
    ["gzip", () => "gzip -c all.tar > x.tar.gz"],
    ["gzip with the name of a tar", () => "gzip -c all.tar > x.tar"],
    ["zstd from cacheport", () => "cacheport copy -q all.tar x.tar.zst"],
  ];
  test.each(archives)("%s", async (_, make) => {
    const path = await packed("app-oci-index", "all.tar");
    const made = await shell(dirname(path), make(folder));
    expect(made.code).toBe(0);
    const name = readdirSync(dirname(path)).find((file) => file.startsWith("x"));
    const archive = join(dirname(path), name as string);
    for (const command of [["ls"], ["resolve"], ["inspect"], ["verify"]])
      expect(await value(...command, archive)).toEqual(await value(...command, folder));
    const deep = await value("verify", "--deep", `${archive}:latest`);
    expect(deep).toMatchObject({ ok: true, problems: [] });
    const cat = await cacheport(["cat", `${archive}:latest`]);
    expect(cat.stdout).toBe(readFileSync(blobFile(folder, top("app-oci-index").digest), "utf8"));
    expect(await value("diff", archive, folder)).toMatchObject({ equal: true });
    // Nothing that had to be unpacked is left.
    expect(readdirSync(dirname(path)).toSorted()).toEqual(
      ["all.tar", basename(archive)].toSorted(),
    );
  });

  test("image.tar and image-docker.tar of BuildKit", async () => {
    for (const name of ["image.tar", "image-docker.tar"]) {
      const [entry] = await value<any[]>("ls", fixture(name));
      expect(entry).toMatchObject({
        kind: "image",
        imageName: "reg.example/team/app:1.0",
        platform: { os: "linux", architecture: "amd64" },
      });
      const target = join(tempFolder(), "layout");
      const copied = await value("copy", fixture(name), `${target}:1.0`);
      expect(copied.digest).toBe(entry.digest);
      expect(layoutFaults(target)).toEqual([]);
      expect(await value("verify", fixture(name))).toMatchObject({ ok: true });
    }
  });
});

describe("convert", () => {
  const SHAPES = [
    ["image-manifest", "app-image-manifest"],
    ["oci-index", "app-oci-index"],
    ["docker-list", "app-docker-list"],
  ] as const;

  test.each(SHAPES)("to another tar, as %s", async (shape, expected) => {
    for (const [, name] of SHAPES) {
      const source = await packed(name);
      const target = join(dirname(source), "other.tar");
      const args = ["convert", `${source}:latest`, target, "--to", shape];
      const { digest } = await value(...args);
      expect(digest).toBe(top(expected).digest);
      expect(await value("resolve", `${target}:latest`)).toMatchObject({
        digest,
      });
      expect(await value("verify", target)).toMatchObject({ ok: true });
    }
  });

  test("in place adds to the tar: what was there keeps its bytes, the name moves", async () => {
    const source = await packed("app-oci-index");
    const before = readFileSync(source);
    const { digest, blobs } = await value("convert", source);
    expect(digest).toBe(top("app-image-manifest").digest);
    expect(blobs.copied).toBe(0);
    const after = readFileSync(source);
    const isSame = (size: number): boolean =>
      after.subarray(0, size).equals(before.subarray(0, size));
    // Up to the end mark, which is the only thing that is written over.
    const end = before.length - trailingZeros(before);
    expect(isSame(Math.ceil(end / 512) * 512)).toBe(true);
    expect(after.length - before.length).toBeLessThan(8192);
    expect(await namesIn(source)).toEqual(["latest"]);
    expect(await value("verify", source)).toMatchObject({ ok: true });
    // The old manifest is still there, without a name.
    const old = top("app-oci-index").digest;
    expect(await value("resolve", `${source}@${old}`)).toMatchObject({
      digest: old,
    });
  });

  test("in place keeps the other names; --rewrite leaves out what none of them needs", async () => {
    const source = await packed("grown");
    await value("convert", `${source}:main`, "--to", "oci-index");
    expect(await namesIn(source)).toEqual(["main", "feature"]);
    const grown = readFileSync(source).length;
    await value("copy", "--all", "--rewrite", source, source);
    expect(readFileSync(source).length).toBeLessThan(grown);
    expect(await namesIn(source)).toEqual(["main", "feature"]);
    const fresh = join(dirname(source), "fresh.tar");
    await value("copy", "--all", source, fresh);
    expect(readFileSync(source).equals(readFileSync(fresh))).toBe(true);
  });

  test("recompressed layers wait beside the archive, whatever command writes it", async () => {
    const folder = tempFolder();
    const source = `${fixture("app-image-manifest")}`;
    for (const command of ["convert", "copy"]) {
      const run = await shell(
        folder,
        `cacheport ${command} -q "${source}" ${command}.tar --compression zstd >out; rm out; ls -A`,
        { TMPDIR: join(folder, "not-there") },
      );
      expect([run.code, run.stderr]).toEqual([0, ""]);
      expect(run.stdout).toContain(`${command}.tar\n`);
      expect(run.stdout).not.toContain(".cacheport");
    }
  });

  test("--compression rewrites the layers of an archive into another", async () => {
    const source = await packed("app-image-manifest");
    const target = join(dirname(source), "zstd.tar");
    await value("convert", source, target, "--compression", "zstd");
    const { layers } = await value("inspect", target);
    for (const { mediaType } of layers) expect(mediaType).toEndWith("+zstd");
    expect(await value("verify", "--deep", target)).toMatchObject({ ok: true });
    expect(readdirSync(dirname(source)).toSorted()).toEqual(["cache.tar", "zstd.tar"]);
  });
});

/** Zero bytes at the end. */
function trailingZeros(bytes: Uint8Array): number {
  let count = 0;
  while (bytes.at(-1 - count) === 0) count++;
  return count;
}

describe("copy", () => {
  test("folder -> tar -> folder gives the same bytes, and the tar is the same every time", async () => {
    for (const name of ["grown", "image-dir", "multi-image", "image-attested"]) {
      const folder = tempFolder();
      const run = await shell(
        folder,
        `cacheport copy -q --all "${fixture(name)}" 1.tar >out
         cacheport copy -q --all "${fixture(name)}" 2.tar >out
         cacheport copy --all "${fixture(name)}" - >3.tar 2>out
         cacheport copy -q --all 1.tar folder >out
         cacheport copy -q --all folder 4.tar >out`,
      );
      expect(run.stderr).toBe("");
      const first = readFileSync(join(folder, "1.tar"));
      for (const again of ["2.tar", "3.tar", "4.tar"])
        expect(readFileSync(join(folder, again)).equals(first)).toBe(true);
      const copy = join(folder, "folder");
      expect(readIndex(copy).manifests).toEqual(readIndex(fixture(name)).manifests);
      expect(layoutFaults(copy)).toEqual([]);
      const original = snapshot(fixture(name));
      for (const [path, digest] of Object.entries(snapshot(copy)))
        if (path.startsWith("blobs/")) expect(original[path]).toBe(digest);
    }
  });

  test("--all adds every name to a tar that has others", async () => {
    const path = await packed("image-dir");
    await value("copy", "--all", fixture("grown"), path);
    expect(await namesIn(path)).toEqual([
      "reg.example/team/app:1.0",
      "docker.io/library/app:latest",
      "main",
      "feature",
    ]);
    expect(await value("verify", "--deep", path)).toMatchObject({ ok: true });
    const unpacked = tempFolder();
    await shell(unpacked, `tar -xf "${path}"`);
    expect(layoutFaults(unpacked)).toEqual([]);
  });

  test("gives the name that the location ends with, a full one in a new tar too", async () => {
    const path = join(tempFolder(), "new.tar");
    const source = `${fixture("image-dir")}:1.0`;
    await value("copy", source, `${path}:reg.example/a/b:3`);
    await value("copy", source, `${path}:second`, "--tag", "third");
    expect(await namesIn(path)).toEqual(["reg.example/a/b:3", "second", "third"]);
    await value("copy", `${path}:second`, `${path}:fourth`);
    expect(await namesIn(path)).toContain("fourth");
  });

  test("to a name that is taken moves it, and nothing new writes nothing", async () => {
    const path = await packed("grown");
    await value("copy", fixture("image-inline"), `${path}:main`);
    const { digest } = await value("resolve", `${path}:main`);
    expect(digest).toBe(top("image-inline").digest);
    expect(await namesIn(path)).toEqual(["main", "feature"]);
    const before = readFileSync(path);
    await value("copy", fixture("image-inline"), `${path}:main`);
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test.each([
    ["x.tar.gz", [], "gzip"],
    ["x.tgz", [], "gzip"],
    ["x.tar.zst", [], "zstd"],
    ["x.tar", ["--compress", "zstd"], "zstd"],
    ["x.tar.gz", ["--compress", "zstd"], "zstd"],
    ["x.tar", [], "none"],
  ])("%s %p is compressed with %s", async (name, options, expected) => {
    const path = join(tempFolder(), name);
    await value("copy", "--all", fixture("grown"), path, ...options);
    expect(compressionOf(path)).toBe(expected);
    const target = join(dirname(path), "out");
    await value("copy", "--all", path, target);
    expect(readIndex(target)).toEqual(readIndex(fixture("grown")));
    expect(layoutFaults(target)).toEqual([]);
  });

  test("a compressed archive is not added to; the hint names a command that helps", async () => {
    const folder = tempFolder();
    const image = fixture("image-dir");
    await shell(folder, `cacheport copy -q --all "${fixture("grown")}" old.tar.gz`);
    const before = readFileSync(join(folder, "old.tar.gz"));
    for (const command of [
      `copy "${image}:1.0" old.tar.gz`,
      "tag old.tar.gz:main other",
      "untag old.tar.gz:main",
      "convert old.tar.gz:main --to oci-index",
    ]) {
      const run = await shell(folder, `cacheport ${command}`);
      expect(run.code).toBe(2);
      expect(run.stderr).toContain("it is compressed with gzip");
      const [hint] = /cacheport copy --all \S+ \S+/.exec(run.stderr) ?? [];
      expect(hint).toBe("cacheport copy --all old.tar.gz NEW.tar");
    }
    expect(readFileSync(join(folder, "old.tar.gz")).equals(before)).toBe(true);
    const helped = await shell(
      folder,
      `cacheport copy -q --all old.tar.gz NEW.tar
       cacheport copy -q "${image}:1.0" NEW.tar`,
    );
    expect(helped.code).toBe(0);
    expect(await namesIn(join(folder, "NEW.tar"))).toEqual([
      "main",
      "feature",
      "reg.example/team/app:1.0",
    ]);
  });

  test("--rewrite adds to a compressed archive, which stays compressed as it was", async () => {
    for (const [name, kind] of [
      ["x.tar.gz", "gzip"],
      ["x.tar", "zstd"],
    ] as const) {
      const path = join(tempFolder(), name);
      await value("copy", "--all", fixture("grown"), path, "--compress", kind);
      const image = `${fixture("image-dir")}:1.0`;
      await value("copy", "--rewrite", image, path);
      expect(compressionOf(path)).toBe(kind);
      expect(await namesIn(path)).toEqual(["main", "feature", "reg.example/team/app:1.0"]);
      expect(await value("verify", "--deep", path)).toMatchObject({ ok: true });
      expect(readdirSync(dirname(path))).toEqual([name]);
    }
  });

  test("--compress goes with a new archive or with --rewrite, not with adding", async () => {
    const path = await packed("grown");
    const before = readFileSync(path);
    const args = ["copy", `${fixture("image-dir")}:1.0`, path, "--compress", "gzip"];
    const run = await cacheport(args);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("--rewrite");
    expect(readFileSync(path).equals(before)).toBe(true);
    await value(...args, "--rewrite");
    expect(compressionOf(path)).toBe("gzip");
    expect(await namesIn(path)).toHaveLength(3);
  });

  test("an empty file, as mktemp makes one, becomes an archive", async () => {
    const folder = tempFolder();
    const image = `${fixture("image-dir")}:1.0`;
    const run = await shell(
      folder,
      `: >x.tar; chmod 640 x.tar; cacheport copy -q "${image}" x.tar`,
    );
    expect(run.code).toBe(0);
    expect(await namesIn(join(folder, "x.tar"))).toHaveLength(1);
  });

  test("a folder that is named like a tar is a folder", async () => {
    const folder = join(tempFolder(), "dir.tar");
    await shell(dirname(folder), "mkdir dir.tar");
    await value("copy", fixture("multi-cache"), folder);
    expect(layoutFaults(folder)).toEqual([]);
    expect((await value<any[]>("ls", folder))[0].kind).toBe("cache");
  });
});

describe("BuildKit's attributes", () => {
  test("type=oci,dest=FILE writes a tar, tar=false a folder", async () => {
    const folder = tempFolder();
    const source = `${fixture("image-dir")}:1.0`;
    await value("copy", source, `type=oci,dest=${join(folder, "file")}`);
    expect(compressionOf(join(folder, "file"))).toBe("none");
    expect(await namesIn(`type=oci,src=${join(folder, "file")}`)).toHaveLength(1);
    await value("copy", source, `type=oci,dest=${join(folder, "dir")},tar=false`);
    expect(layoutFaults(join(folder, "dir"))).toEqual([]);
    const out = await shell(
      folder,
      `cacheport copy -q "${source}" type=oci,dest=- >x.tar; cmp x.tar file`,
    );
    expect(out.code).toBe(0);
    const wrong = await shell(folder, `cacheport copy "${source}" type=oci,dest=-,tar=false`);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("dest cannot be stdout");
    expect(readdirSync(folder).toSorted()).toEqual(["dir", "file", "x.tar"]);
  });

  test("type=docker,dest=FILE has a manifest.json for docker load", async () => {
    const path = join(tempFolder(), "image.tar");
    const manifest = async (): Promise<any> =>
      (await shell(dirname(path), "tar -xOf image.tar manifest.json")).json().at(-1);
    await value("copy", `${fixture("image-dir")}:1.0`, `type=docker,dest=${path}`);
    expect((await manifest()).RepoTags).toEqual(["reg.example/team/app:1.0"]);
  });

  test("a name that is given to such an archive is in its manifest.json too", async () => {
    const path = join(tempFolder(), "image.tar");
    await shell(
      dirname(path),
      `cp "${fixture("image-docker.tar")}" image.tar; chmod 644 image.tar`,
    );
    await value("tag", path, "reg.example/team/app:2.0");
    const unpacked = await shell(tempFolder(), `tar -xf "${path}"; cat manifest.json`);
    expect(unpacked.json()[0].RepoTags).toEqual([
      "reg.example/team/app:1.0",
      "reg.example/team/app:2.0",
    ]);
  });

  test.each([
    ["a cache", "grown", "is no image"],
    ["an index", "multi-image", "does not currently support exporting manifest lists"],
  ])("type=docker is refused for %s", async (_, name, reason) => {
    const path = join(tempFolder(), "x.tar");
    const [entry] = readIndex(fixture(name)).manifests;
    const run = await cacheport([
      "copy",
      `${fixture(name)}@${entry.digest}`,
      `type=docker,dest=${path}`,
    ]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(reason);
    expect(existsSync(path)).toBe(false);
  });
});

describe("names, merges and differences", () => {
  test("tag and untag in a tar touch no blob", async () => {
    const path = await packed("grown");
    const before = readFileSync(path).length;
    await value("tag", `${path}:main`, "reg.example/app:1", "two");
    expect(await namesIn(path)).toEqual(["main", "feature", "reg.example/app:1", "two"]);
    const removed = await value("untag", `${path}:feature`, `${path}:two`);
    expect(removed.removed).toEqual(["feature", "two"]);
    expect(await namesIn(path)).toEqual(["main", "reg.example/app:1"]);
    expect(readFileSync(path).length - before).toBeLessThan(20_000);
    const again = await cacheport(["untag", `${path}:two`]);
    expect(again.code).toBe(3);
    expect(await value("verify", path)).toMatchObject({ ok: true });
  });

  test("caches in archives merge into an archive as they do in folders", async () => {
    const folder = tempFolder();
    const [a, b] = [fixture("multi-cache-amd64"), fixture("multi-cache-arm64")];
    const { digest } = await value("merge", a, b, join(folder, "merged"));
    const run = await shell(
      folder,
      `tar -C "${a}" -cf a.tar .; tar -C "${b}" -czf b.tar.gz .
       cacheport merge a.tar b.tar.gz m.tar:one --json
       cacheport merge a.tar - m.tar:two <b.tar.gz >out
       cacheport merge a.tar b.tar.gz - 2>out | cacheport resolve -
       cacheport diff m.tar:one merged --json`,
    );
    expect(run.stderr).toBe("");
    const lines = run.stdout.split("\n");
    expect(lines.filter((line) => line.includes(digest)).length).toBeGreaterThan(1);
    expect(run.stdout).toMatch(/"equal": ?true/);
    const named = await value<any[]>("ls", join(folder, "m.tar"));
    expect(named.map((entry) => [entry.refName, entry.digest])).toEqual([
      ["one", digest],
      ["two", digest],
    ]);
    expect(await value("verify", "--deep", join(folder, "m.tar"))).toMatchObject({ ok: true });
  });
});
