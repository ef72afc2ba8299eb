/**
 * Builds the files of a release into dist/release: an archive for each system,
 * one script for people who have Bun, their sums, what is inside them, and the script that
 * installs them.
 *
 *   release.ts [--only linux-x64 ...] [--outdir DIR]
 *
 * The same commit always gives the same bytes.
 */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { loadCommands } from "../src/cli-command.ts";
import { COMMANDS } from "../src/command-table.ts";
import { completionScript } from "../src/cli-completion.ts";
import { manPage } from "../src/cli-man.ts";
import { file, folder, gzip, tar, zip } from "./archive.ts";
import type { ArchiveEntry } from "./archive.ts";
import { bundle, compile, executableName, parseTarget, ROOT, TARGETS } from "./compile.ts";
import type { Target } from "./compile.ts";
import { components, licenseTexts, project, SCRIPT, spdxDocument } from "./sbom.ts";
import type { ScriptFile } from "./sbom.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true },
    outdir: { type: "string", default: join(ROOT, "dist", "release") },
  },
});
const outdir = resolve(values.outdir);
const targets = values.only?.map(parseTarget) ?? TARGETS;
const { name, version } = project();

mkdirSync(outdir, { recursive: true });
removeOldFiles();
const sums = new Map<string, string>();
const scratch = mkdtempSync(join(tmpdir(), "cacheport-release-"));
try {
  const documents = await documentation();
  const script = await releaseScript();
  for (const target of targets) await releaseTarget(target, documents, script);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
write("install.sh", readFileSync(join(ROOT, "scripts", "install.sh")), 0o755);
writeFileSync(join(outdir, "SHA256SUMS"), sumsFile());

/** Only what an earlier release left: the folder may be anybody's. */
function removeOldFiles(): void {
  for (const entry of readdirSync(outdir))
    if (
      /^(?:cacheport-.*\.(?:tar\.gz|zip|spdx\.json)|SHA256SUMS|install\.sh|cacheport\.js)$/.test(
        entry,
      )
    )
      rmSync(join(outdir, entry));
}

/** What all archives hold. */
async function documentation(): Promise<ArchiveEntry[]> {
  const commands = await loadCommands(COMMANDS);
  const own = ["LICENSE", "README.md", "CHANGELOG.md"];
  return [
    ...own.map((path) => file(path, readFileSync(join(ROOT, path)))),
    file("cacheport.1", manPage(commands)),
    folder("completions"),
    file("completions/cacheport.bash", completionScript("bash")),
    file("completions/_cacheport", completionScript("zsh")),
    file("completions/cacheport.fish", completionScript("fish")),
    file("completions/cacheport.ps1", completionScript("powershell")),
  ];
}

/** Writes the script that Bun runs, with all licences in it, since it goes alone. */
async function releaseScript(): Promise<ScriptFile> {
  const { script, packages } = await bundle();
  // Bun runs it and is not in it.
  const parts = components(packages).filter((part) => part.name !== "bun");
  const own = readFileSync(join(ROOT, "LICENSE"), "utf8");
  const licences = `${own}\n${licenseTexts(parts)}`.replaceAll("*/", "* /");
  const content = `${script.trimEnd()}\n/*\n${licences.trimEnd()}\n*/\n`;
  console.log(`Built ${write(SCRIPT, content, 0o755)}`);
  return { sha256: sums.get(SCRIPT) ?? "", parts };
}

async function releaseTarget(
  target: Target,
  documents: readonly ArchiveEntry[],
  script: ScriptFile,
): Promise<void> {
  const binary = join(scratch, target);
  const parts = components(await compile(binary, target));
  const top = `${name}-${version}-${target}`;
  const entries = [
    folder(top),
    ...[
      ...documents,
      file("THIRD-PARTY-LICENSES", licenseTexts(parts)),
      file(executableName(target), readFileSync(binary), 0o755),
    ].map((entry) => ({ ...entry, path: `${top}/${entry.path}` })),
  ];
  const archive = target.startsWith("windows")
    ? write(`${top}.zip`, zip(entries))
    : write(`${top}.tar.gz`, gzip(await tar(entries)));
  rmSync(binary);
  // The same for all: every binary is made of the same code.
  write(`${name}-${version}.spdx.json`, spdxDocument(parts, script));
  console.log(`Built ${archive}`);
}

/** Writes a file of the release and notes its sum down. @returns Its name and size */
function write(path: string, content: Uint8Array | string, mode = 0o644): string {
  writeFileSync(join(outdir, path), content, { mode });
  sums.set(path, createHash("sha256").update(content).digest("hex"));
  return `${path} (${(content.length / 1e6).toFixed(1)} MB)`;
}

/** In the form that sha256sum --check reads. */
function sumsFile(): string {
  return [...sums]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, sum]) => `${sum}  ${path}\n`)
    .join("");
}
