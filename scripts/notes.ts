/**
 * Writes what CHANGELOG.md says of one release, for its page: to a file, else to standard
 * output.
 *
 *   notes.ts v0.1.0 [notes.md]
 *
 * Fails where the tag is not the version of package.json or has no section: a release
 * without notes is one that nobody finished.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./compile.ts";
import { project } from "./sbom.ts";

/**
 * The section of a version, without its heading.
 *
 * @param changelog In the format of Keep a Changelog: `## 1.2.3 - 2026-01-02` or
 *   `## [1.2.3] - 2026-01-02`.
 * @returns Undefined where there is none, or nothing in it.
 */
export function sectionOf(changelog: string, version: string): string | undefined {
  for (const section of changelog.split(/^(?=## )/m)) {
    const [heading = "", ...lines] = section.split("\n");
    if (/^## \[?([^\]\s]+)/.exec(heading)?.[1] !== version) continue;
    // The links of the headings stand at the end of such a file.
    const text = lines.filter((line) => !/^\[[^\]]+\]: /.test(line)).join("\n");
    return text.trim() === "" ? undefined : `${text.trim()}\n`;
  }
  return undefined;
}

if (import.meta.main) {
  const [tag = "", path] = process.argv.slice(2);
  const { version } = project();
  const section = sectionOf(readFileSync(join(ROOT, "CHANGELOG.md"), "utf8"), version);
  if (tag !== `v${version}`)
    fail(`Cannot release "${tag}": package.json has version ${version}, whose tag is v${version}`);
  else if (section === undefined)
    fail(`Cannot release "${tag}": CHANGELOG.md has no section "## ${version}", or nothing in it`);
  else if (path === undefined) process.stdout.write(section);
  else writeFileSync(path, section);
}

function fail(message: string): void {
  console.error(message);
  process.exitCode = 1;
}
