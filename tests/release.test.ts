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
import { components, licenseTexts, spdxDocument } from "../scripts/sbom.ts";
import { tempFolder } from "./helpers/temp.ts";

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
      "install.sh",
      "notes.txt",
    ]);
    const sums = readFileSync(join(outdir, "SHA256SUMS"), "utf8");
    const lines = sums.trimEnd().split("\n");
    expect(lines).toHaveLength(3);
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
