/** README is true: what it shows is what is printed, what it says to run can be run. */
import { beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { findCommand, parseArguments } from "../src/cli-arguments.ts";
import { LEADING_OPTIONS, sharedOptions } from "../src/cli-options.ts";
import { COMMANDS } from "../src/command-table.ts";
import { locate } from "../src/location-open.ts";
import { ROOMS } from "../scripts/structure.ts";
import { cacheport } from "./helpers/binary.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { tempFolder } from "./helpers/temp.ts";

const ROOT = join(import.meta.dir, "..");
const README = readFileSync(join(ROOT, "README.md"), "utf8");
const blocks = [...README.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].map(
  ([, kind = "", text = ""]) => ({
    kind,
    text,
  }),
);

/** The shell's words of a line, as far as README uses the shell. */
function words(line: string): string[] {
  return [...line.matchAll(/(?:[^\s"'\\]|\\.|"[^"]*"|'[^']*')+/g)].map(([word]) =>
    word.replace(/"([^"]*)"|'([^']*)'/g, (_, double, single) => double ?? single),
  );
}

/** Every command line of cacheport in README, without what the shell makes of its ends. */
const commandLines = blocks
  .filter(({ kind }) => ["sh", "yaml", "console"].includes(kind))
  .flatMap(({ text }) => text.replace(/\\\n\s*/g, " ").split("\n"))
  .flatMap((line) => {
    const found = /(?:^\s*|[|;&] ?|- )\$? ?cacheport ([^|;&#>]*)/.exec(
      line.replace(/\$\{\{.*?\}\}/g, "x"),
    );
    return found ? [(found[1] as string).trim()] : [];
  });

test("README has command lines", () => {
  expect(commandLines.length).toBeGreaterThan(15);
});

test.each(commandLines)("cacheport %s is a command line that is understood", async (line) => {
  const argv = words(line);
  const { command, rest } = findCommand(argv, LEADING_OPTIONS);
  if (command === "help") return expect(rest.length).toBeLessThan(2);
  const entry = COMMANDS.find(({ name }) => name === command);
  expect(entry?.name).toBe(command as string);
  const spec = await (entry as (typeof COMMANDS)[number]).load();
  const args = parseArguments(
    {
      command: spec.name,
      operands: spec.operands,
      options: [...spec.options, ...sharedOptions(spec)],
    },
    rest,
  );
  const locations = spec.operands.some(({ kind }) => kind === "location");
  if (locations && spec.name !== "tag")
    for (const operand of args.operands)
      expect(() => locate(operand.replace(/\$\w+/g, "x"), "target")).not.toThrow();
});

describe("what README shows is what is printed", () => {
  let folder = "";

  beforeAll(() => {
    const vectors = vector("ci-app");
    folder = tempFolder();
    cpSync(join(vectors, "A", "cache"), join(folder, "cache"), { recursive: true });
    cpSync(join(vectors, "B-sha", "context"), join(folder, "app"), { recursive: true });
    cpSync(join(vectors, "B-sha", "metadata.json"), join(folder, "build.json"));
    cpSync(join(vectors, "A", "metadata.json"), join(folder, "main.json"));
  });

  const shown = blocks
    .filter(({ kind }) => kind === "console")
    .flatMap(({ text }) => text.split(/^(?=\$ )/m))
    .map((part) => /^\$ cacheport ([^\n]*)\n([^]*)$/.exec(part))
    .filter((match) => match !== null);

  test("there is something to compare", () => expect(shown.length).toBeGreaterThan(0));

  test.each(shown.map(([, line = "", output = ""]) => [line, output] as const))(
    "cacheport %s",
    async (line, output) => {
      const run = await cacheport(words(line), { cwd: folder });
      expect(run.stderr).toBe("");
      expect(run.stdout.trimEnd()).toBe(output.trimEnd());
    },
  );
});

test("every file that README and its neighbours name is there", () => {
  const neighbours = [".github/CONTRIBUTING.md", ".github/SECURITY.md"];
  for (const file of ["README.md", ...neighbours]) {
    // The blocks show other projects and their files.
    const text = readFileSync(join(ROOT, file), "utf8").replace(/^```[^]*?^```$/gm, "");
    const paths = [...text.matchAll(/(?:^|[\s`(])((?:\.github|scripts|src|tests)\/[\w./-]*\w)/gm)];
    for (const [, path = ""] of paths)
      expect([path, existsSync(join(ROOT, path))]).toEqual([path, true]);
  }
  const contributing = readFileSync(join(ROOT, ".github/CONTRIBUTING.md"), "utf8");
  const way = /The way of one conversion: ([^]*?)\n\n/.exec(contributing)?.[1] ?? "";
  const files = [...way.matchAll(/`([\w-]+\.ts)`/g)].map(([, name]) => name as string);
  expect(files.length).toBeGreaterThan(8);
  for (const name of files)
    expect([name, existsSync(join(ROOT, "src", name))]).toEqual([name, true]);
});

test('"Where to look" has every room as scripts/structure.ts has it', () => {
  const table = /## Where to look\n([^]*?)\n## |## Where to look\n([^]*)$/.exec(README)?.[0] ?? "";
  const rows = [...table.matchAll(/^\| `([\w-]+-\*)` +\| (.*?) +\|$/gm)].map(([, name, holds]) => [
    name,
    holds,
  ]);
  expect(rows).toEqual(ROOMS.map(({ name, holds }) => [`${name}-*`, holds]));
});

test("no line of README destroys what the reader has", () => {
  expect(README).not.toMatch(/prune -a|system prune|rm -rf/);
});
