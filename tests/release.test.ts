import { beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { file, folder, gzip, tar, zip } from "../scripts/archive.ts";
import { sectionOf } from "../scripts/notes.ts";
import { components, licenseTexts, spdxDocument } from "../scripts/sbom.ts";
import { BINARY } from "./helpers/binary.ts";
import { random } from "./helpers/random.ts";
import { layoutOf } from "./helpers/layer-cache.ts";
import { blobFile, layoutFaults, readDocument, readIndex, snapshot } from "./helpers/layout.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";

/** Milliseconds for a build, with all that is compressed for it, on a busy machine. */
const BUILD_TIME = 120_000;

const ROOT = join(import.meta.dir, "..");
const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

function run(command: string[], cwd?: string) {
  const child = Bun.spawnSync(command, cwd === undefined ? {} : { cwd });
  const stdout = child.stdout.toString();
  return { code: child.exitCode, stdout, stderr: child.stderr.toString() };
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Copies what a build is made of. @returns The new project's folder */
function copySources(project: string, name: string): string {
  const folder = join(tempFolder(), name);
  for (const part of ["src", "scripts", "package.json", "bun.lock"])
    cpSync(join(project, part), join(folder, part), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  return folder;
}

const ENTRIES = [
  file("top/program", "x".repeat(5000), 0o755),
  folder("top"),
  file("top/LICENSE", "text"),
  file("top/empty", ""),
  folder("top/tmp", 0o1777, 65532),
];

describe.each([
  ["tar", async (entries: typeof ENTRIES) => gzip(await tar(entries))],
  ["zip", async (entries: typeof ENTRIES) => zip(entries)],
] as const)("a %s", (kind, write) => {
  test("has the same bytes whenever and in whatever order it is written", async () => {
    const first = await write(ENTRIES);
    await Bun.sleep(1100);
    expect(sha256(await write(ENTRIES.toReversed()))).toBe(sha256(first));
  });

  test.skipIf(Bun.which(kind === "zip" ? "unzip" : "tar") === null)(
    "is unpacked by others, with permissions",
    async () => {
      const place = tempFolder();
      const path = join(place, "archive");
      writeFileSync(path, await write(ENTRIES));
      const unpack = kind === "zip" ? ["unzip", "-q"] : ["tar", "-xzpf"];
      expect(run([...unpack, path], place)).toMatchObject({ code: 0 });
      const mode = (name: string) => statSync(join(place, "top", name)).mode & 0o7777;
      expect(mode("program")).toBe(0o755);
      expect(mode("LICENSE")).toBe(0o644);
      expect(statSync(join(place, "top", "tmp")).isDirectory()).toBe(true);
      const content = readFileSync(join(place, "top", "program"), "utf8");
      expect(content).toBe("x".repeat(5000));
      expect(statSync(join(place, "top", "empty")).size).toBe(0);
    },
  );
});

test("a gzip header holds no time and no system", async () => {
  const header = gzip(await tar(ENTRIES)).subarray(4, 10);
  expect([...header.subarray(0, 4), header[5]]).toEqual([0, 0, 0, 0, 255]);
});

describe("the notes of a release", () => {
  const changelog = `# Changelog\n\n## Unreleased\n\n- later\n\n## [1.10.0] - 2026-02-03\n\n### Added\n\n- ten\n\n## 1.1.0 - 2026-01-02\n\n- one\n\n## 1.0.0\n\n[1.10.0]: https://example/1\n`;

  test("are the section of its version and nothing else of the changelog", () => {
    expect(sectionOf(changelog, "1.10.0")).toBe("### Added\n\n- ten\n");
    expect(sectionOf(changelog, "1.1.0")).toBe("- one\n");
  });

  test("are missing where there is no such section, or an empty one", () => {
    for (const version of ["1.1", "1.0.0", "2.0.0", "Changelog"])
      expect(sectionOf(changelog, version)).toBeUndefined();
  });

  test("are refused for a tag that is not the version, and for a version that nobody described", () => {
    const copy = copySources(ROOT, "notes");
    const notes = (...args: string[]) =>
      run([process.execPath, join(copy, "scripts/notes.ts"), ...args]);
    const tag = `v${manifest.version}`;
    writeFileSync(join(copy, "CHANGELOG.md"), `## ${manifest.version} - today\n\n- new\n`);
    expect(notes(tag)).toEqual({ code: 0, stdout: "- new\n", stderr: "" });
    expect(notes(tag, join(copy, "notes.md"))).toMatchObject({ code: 0, stdout: "" });
    expect(readFileSync(join(copy, "notes.md"), "utf8")).toBe("- new\n");
    for (const other of ["v9.9.9", manifest.version, ""])
      expect(notes(other)).toMatchObject({ code: 1, stdout: "" });
    writeFileSync(join(copy, "CHANGELOG.md"), "## Unreleased\n\n- new\n");
    expect(notes(tag)).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^Cannot release "v[^\n]* has no section "## [^\n]*\n$/),
    });
  });

  test("are what the workflow gives to the release, and it asks for them before it builds", () => {
    const workflow = Bun.YAML.parse(
      readFileSync(join(ROOT, ".github/workflows/release.yml"), "utf8"),
    ) as { jobs: { release: { steps: { run?: string }[] } } };
    const scripts = workflow.jobs.release.steps.flatMap(({ run: script }) => script ?? []);
    const at = (text: string) => scripts.findIndex((script) => script.includes(text));
    expect(at(`notes "$TAG" "$RUNNER_TEMP/notes.md"`)).toBe(0);
    expect(at("npm run release")).toBeGreaterThan(0);
    expect(scripts.at(-1)).toContain('--notes-file "$RUNNER_TEMP/notes.md"');
  });
});

describe("the list of what is inside", () => {
  const parts = components(["tar-stream", "valibot"]);

  test("has the runtime and each package with version, licence and the lock's digest", () => {
    const byName = new Map(parts.map((part) => [part.name, part]));
    expect([...byName.keys()]).toEqual(["bun", "tar-stream", "valibot"]);
    expect(byName.get("bun")?.version).toBe(manifest.devDependencies.bun);
    for (const name of ["tar-stream", "valibot"])
      expect(byName.get(name)).toMatchObject({
        version: manifest.dependencies[name],
        license: "MIT",
        purl: `pkg:npm/${name}@${manifest.dependencies[name]}`,
        sha512: expect.stringMatching(/^[0-9a-f]{128}$/),
      });
  });

  test("is an SPDX document in which every relationship has its ends", () => {
    const document = JSON.parse(spdxDocument(parts));
    // SPDX 2.3, clause 6: what a document must have.
    expect(document).toMatchObject({
      spdxVersion: "SPDX-2.3",
      dataLicense: "CC0-1.0",
      SPDXID: "SPDXRef-DOCUMENT",
      documentNamespace: expect.stringMatching(/^https:\/\/[^#]+$/),
      creationInfo: {
        created: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
        creators: [expect.stringMatching(/^Tool: /)],
      },
    });
    const ids = document.packages.map(({ SPDXID }: any) => SPDXID);
    expect(new Set(ids).size).toBe(parts.length + 1);
    for (const id of ids) expect(id).toMatch(/^SPDXRef-[A-Za-z0-9.-]+$/);
    for (const { spdxElementId, relatedSpdxElement } of document.relationships) {
      expect(["SPDXRef-DOCUMENT", ...ids]).toContain(spdxElementId);
      expect(ids).toContain(relatedSpdxElement);
    }
    expect(document.relationships).toHaveLength(parts.length + 1);
    expect(spdxDocument(parts)).toBe(spdxDocument(parts));
  });

  test("comes with the text of every licence", () => {
    const texts = licenseTexts(parts);
    for (const { name, version } of parts) expect(texts).toContain(`${name} ${version} (MIT)\n===`);
    expect(texts).toContain("Fabian Hiller");
    expect(texts).toContain("JavaScriptCore");
  });
});

// Others' systems need their runtimes downloaded, so only this one's is built here.
describe.skipIf(process.platform !== "linux")("npm run release", () => {
  const target = `linux-${process.arch}`;
  const top = `cacheport-${manifest.version}-${target}`;
  let outdir = "";
  let unpacked = "";

  beforeAll(() => {
    outdir = tempFolder();
    writeFileSync(join(outdir, "cacheport-0.0.1-linux-x64.tar.gz"), "old");
    writeFileSync(join(outdir, "cacheport.js"), "old");
    writeFileSync(join(outdir, "notes.txt"), "mine");
    const script = join(ROOT, "scripts", "release.ts");
    const built = run([process.execPath, script, "--only", target, "--outdir", outdir]);
    expect(built).toMatchObject({ code: 0 });
    unpacked = tempFolder();
    run(["tar", "-xzf", join(outdir, `${top}.tar.gz`), "-C", unpacked]);
  }, BUILD_TIME);

  test("writes archives, sums, the list and the script, and no more", () => {
    expect(readdirSync(outdir).toSorted()).toEqual([
      "SHA256SUMS",
      `${top}.tar.gz`,
      `cacheport-${manifest.version}.spdx.json`,
      "cacheport.js",
      "install.sh",
      "notes.txt",
    ]);
    const sums = readFileSync(join(outdir, "SHA256SUMS"), "utf8");
    const lines = sums.trimEnd().split("\n");
    expect(lines).toHaveLength(4);
    for (const line of lines) {
      const [sum, name] = line.split("  ") as [string, string];
      expect(sha256(readFileSync(join(outdir, name)))).toBe(sum);
    }
  });

  test("puts licences, man page and completions beside the program", () => {
    const files = readdirSync(join(unpacked, top), { recursive: true });
    expect((files as string[]).toSorted()).toEqual([
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "THIRD-PARTY-LICENSES",
      "cacheport",
      "cacheport.1",
      "completions",
      "completions/_cacheport",
      "completions/cacheport.bash",
      "completions/cacheport.fish",
      "completions/cacheport.ps1",
    ]);
    const program = join(unpacked, top, "cacheport");
    for (const [path, args] of [
      ["cacheport.1", ["__man"]],
      ["completions/cacheport.bash", ["completion", "bash"]],
      ["completions/_cacheport", ["completion", "zsh"]],
      ["completions/cacheport.fish", ["completion", "fish"]],
      ["completions/cacheport.ps1", ["completion", "powershell"]],
    ] as const) {
      const text = readFileSync(join(unpacked, top, path), "utf8");
      expect(text).toBe(run([program, ...args]).stdout);
    }
  });

  test("lists all packages whose code is in the program", () => {
    const path = join(outdir, `cacheport-${manifest.version}.spdx.json`);
    const { packages } = JSON.parse(readFileSync(path, "utf8"));
    const names = packages.map(({ name }: any) => name);
    expect(names.slice(0, 2)).toEqual(["cacheport", "bun"]);
    for (const name of Object.keys(manifest.dependencies)) expect(names).toContain(name);
    for (const name of Object.keys(manifest.devDependencies))
      if (name !== "bun") expect(names).not.toContain(name);
  });

  describe("cacheport.js, for people who have Bun", () => {
    /** Runs a copy that lies alone and is called otherwise. */
    const script = (...args: string[]) => run([process.execPath, alone, ...args]);
    let alone = "";

    beforeAll(() => {
      alone = join(tempFolder(), "renamed.js");
      cpSync(join(outdir, "cacheport.js"), alone);
    });

    test("is the program: the same answers as the binary", () => {
      expect(JSON.parse(script("version", "--json").stdout)).toEqual({
        ...JSON.parse(run([BINARY, "version", "--json"]).stdout),
        target: "bun",
        commit: expect.any(String),
      });
      for (const args of [
        ["ls", fixture("grown"), "--json"],
        ["inspect", fixture("leaves")],
      ])
        expect(script(...args)).toEqual(run([BINARY, ...args]));
      expect(script("ls", "/nowhere/at/all").code).toBe(3);
      expect(script("self-check")).toMatchObject({ code: 0 });
    });

    test("converts a cache to the binary's bytes, and verifies it to the ground", () => {
      const [one, other] = [fixtureCopy("app-oci-index"), fixtureCopy("app-oci-index")];
      expect(script("convert", one)).toMatchObject({ code: 0, stderr: "" });
      run([BINARY, "convert", other]);
      expect(snapshot(one)).toEqual(snapshot(other));
      expect(script("verify", one, "--deep")).toMatchObject({ code: 0 });
    });

    test("is its own thread: large layers are recompressed and checked there", async () => {
      // Random, so that it is large when it is compressed as well.
      const { below } = random(1);
      const content = Uint8Array.from({ length: 3_000_000 }, () => below(256));
      const { layout } = layoutOf(await tar([file("random", content)]));
      expect(script("convert", layout, "--compression", "zstd")).toMatchObject({ code: 0 });
      expect(layoutFaults(layout)).toEqual([]);
      expect(script("verify", layout, "--deep")).toMatchObject({ code: 0 });
      const [zstd] = readIndex(layout).manifests.map(
        ({ digest }: any) => readDocument(layout, digest).layers[0],
      );
      expect(zstd.mediaType).toEndWith("+zstd");
      const path = blobFile(layout, zstd.digest);
      const bytes = readFileSync(path);
      expect(bytes.length).toBeGreaterThan(2_000_000);
      bytes[1_500_000] = (bytes[1_500_000] as number) ^ 1;
      writeFileSync(path, bytes);
      const damaged = script("verify", layout, "--json");
      expect([damaged.code, JSON.parse(damaged.stdout).problems[0].code]).toEqual([
        4,
        "DIGEST_MISMATCH",
      ]);
    });

    test("carries the licences of what is in it, and is a package of the list", () => {
      const text = readFileSync(alone, "utf8");
      for (const holder of ["The cacheport authors", "Fabian Hiller", "Mathias Buus"])
        expect(text).toContain(holder);
      const path = join(outdir, `cacheport-${manifest.version}.spdx.json`);
      const { packages, relationships } = JSON.parse(readFileSync(path, "utf8"));
      const own = packages.find(({ name }: any) => name === "cacheport.js");
      expect(own.checksums).toEqual([
        { algorithm: "SHA256", checksumValue: sha256(readFileSync(alone)) },
      ]);
      const related = (type: string) =>
        relationships.filter(
          (each: any) =>
            each.relationshipType === type &&
            [each.spdxElementId, each.relatedSpdxElement].includes(own.SPDXID),
        );
      expect(related("DESCRIBES")).toHaveLength(1);
      expect(related("RUNTIME_DEPENDENCY_OF")[0].spdxElementId).toBe("SPDXRef-Package-bun");
      // The same code as in the binary, without the runtime.
      expect(related("CONTAINS")).toHaveLength(packages.length - 3);
    });

    test("has the same bytes from another folder", () => {
      const copy = copySources(ROOT, "elsewhere");
      const call = `import { bundle } from "./scripts/compile.ts"; process.stdout.write((await bundle()).script)`;
      const built = [copy, copySources(copy, "twice")].map((cwd) =>
        run([process.execPath, "-e", call], cwd),
      );
      expect(built[0]).toMatchObject({ code: 0, stderr: "" });
      expect(built[0]?.stdout).toBe(built[1]?.stdout as string);
    });

    test("says with one sentence that Bun is too old", () => {
      const old = join(tempFolder(), "old.js");
      const text = readFileSync(alone, "utf8");
      const oldest = /semver\.order\(Bun\.version,"([\d.]+)"\)/.exec(text)?.[1] as string;
      expect(manifest.devDependencies.bun).toStartWith(oldest.replace(/0$/, ""));
      writeFileSync(
        old,
        text.replaceAll(`"${oldest}"`, '"999.0.0"').replace(`needs ${oldest}`, "needs 999.0.0"),
      );
      const { code, stdout, stderr } = run([process.execPath, old, "--version"]);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toStartWith(
        `error: Cannot run cacheport.js with Bun ${Bun.version}: it needs 999.0.0 or later\nhint: `,
      );
    });
  });

  test("makes a program that knows what it is", () => {
    const program = join(unpacked, top, "cacheport");
    expect(JSON.parse(run([program, "version", "--json"]).stdout)).toMatchObject({
      version: manifest.version,
      target,
    });
    expect(run([program, "self-check"])).toMatchObject({ code: 0 });
  });

  test(
    "is installed by its own script",
    () => {
      const prefix = tempFolder();
      const child = Bun.spawnSync(["sh", join(outdir, "install.sh")], {
        env: {
          PATH: process.env["PATH"],
          PREFIX: prefix,
          CACHEPORT_TARGET: target,
        },
      });
      expect(child.exitCode).toBe(0);
      expect(existsSync(join(prefix, "bin", "cacheport"))).toBe(true);
    },
    BUILD_TIME,
  );

  test(
    "makes the same program in another folder at another time",
    () => {
      const first = copySources(ROOT, "one");
      // A copy of the copy, should somebody be at work on the project meanwhile.
      const second = copySources(first, "the other");
      const [one, other] = [first, second].map((folder) => {
        const outfile = join(folder, "dist", "program");
        const script = join(folder, "scripts", "build.ts");
        const command = [process.execPath, script, "--outfile", outfile];
        const built = run([...command, "--target", target]);
        expect(built).toMatchObject({ code: 0 });
        return sha256(readFileSync(outfile));
      });
      expect(other).toBe(one as string);
    },
    BUILD_TIME,
  );

  test("refuses a system that there is no build for", () => {
    for (const name of ["build.ts", "release.ts"]) {
      const option = name === "build.ts" ? "--target" : "--only";
      const script = join(ROOT, "scripts", name);
      const result = run([process.execPath, script, option, "linux-sparc"]);
      expect(result.code).not.toBe(0);
      expect(result.stderr).toContain('Cannot build for "linux-sparc"');
    }
  });
});
