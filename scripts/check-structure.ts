/**
 * Checks what no linter knows: that a file's name tells its room and rooms are entered by
 * their doors (scripts/structure.ts), that imports only point downwards through the
 * layers and in no circle, that nothing is imported that package.json does not list, that no package is loaded before a command is known
 * (`--version` stays fast), that only main.ts knows the process, and that source
 * files stay readable in one sitting.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { COMPOUNDS, LAYERS, ROOMS } from "./structure.ts";

const SOURCE = join(import.meta.dir, "..", "src");
const LINES = 450;
/** Texts that help shows as they are, and options of other programs. */
const OPTION_NAMES = /^(?:self-check|verify-problem|explain-.*)\.ts$/;

/** What `node:process` may be asked for outside main.ts: facts of the machine, and whether a process lives. */
const PROCESS_FACTS = /^import \{ (?:(?:arch|kill|pid|platform),? )+\} from "node:process"/m;

const faults: string[] = [];
const manifest = JSON.parse(readFileSync(join(SOURCE, "..", "package.json"), "utf8")) as {
  dependencies: Record<string, string>;
};
const files = readdirSync(SOURCE).filter((file) => file.endsWith(".ts"));
/** The imports that are run when a file is loaded, for what a command loads. */
const loads = new Map<string, string[]>();
/** All imports of a file, type-only and dynamic ones too, for the search for circles. */
const imports = new Map<string, string[]>();

for (const file of files) {
  const text = readFileSync(join(SOURCE, file), "utf8");
  checkLength(`src/${file}`, text);
  checkName(file);
  if (!text.startsWith("/**")) faults.push(`src/${file} does not say at its head what it is`);
  checkImports(file, text);
  checkProcess(file, text);
  checkOptionNames(file, text);
}
for (const file of readdirSync(import.meta.dir))
  checkLength(`scripts/${file}`, readFileSync(join(import.meta.dir, file), "utf8"));
checkCircles();
checkStart();

for (const fault of faults) console.error(fault);
process.exitCode = faults.length === 0 ? 0 : 1;

function checkLength(file: string, text: string): void {
  const lines = text.split("\n").length;
  if (lines > LINES) faults.push(`${file} has ${lines} lines; split it (limit ${LINES})`);
}

/** The room of a file by its first word; undefined for vocabulary. */
function roomOf(file: string): (typeof ROOMS)[number] | undefined {
  const name = file.replace(/\.ts$/, "");
  if (COMPOUNDS.includes(name)) return undefined;
  const word = name.split("-")[0];
  return ROOMS.find((room) => room.name === word);
}

function checkName(file: string): void {
  const name = file.replace(/(?:\.d)?\.ts$/, "");
  if (name.includes("-") && !roomOf(file) && !COMPOUNDS.includes(name))
    faults.push(`src/${file} is in no room; name it after one of ROOMS in scripts/structure.ts`);
}

function checkDoor(file: string, target: string): void {
  const room = roomOf(target);
  const name = target.replace(/\.ts$/, "");
  if (!room || room === roomOf(file) || room.doors === "*" || name === room.name) return;
  const door = name.slice(room.name.length + 1);
  if (!room.doors.split(" ").includes(door))
    faults.push(`src/${file} imports ${target}, which is no door of the room "${room.name}"`);
}

/** The layer of a file; a whole name goes before a pattern, a longer pattern before a shorter one. */
function layerOf(file: string): number {
  const name = file.replace(/\.ts$/, "");
  let best = -1;
  let bestLength = -1;
  LAYERS.forEach(([, patterns], layer) => {
    for (const pattern of patterns.split(/\s+/)) {
      const start = pattern.replace(/\*$/, "");
      const fits = pattern === start ? name === start : name.startsWith(start);
      const length = pattern === start ? Infinity : start.length;
      if (fits && length > bestLength) [best, bestLength] = [layer, length];
    }
  });
  return best;
}

function checkImports(file: string, text: string): void {
  const layer = layerOf(file);
  if (layer < 0)
    faults.push(`src/${file} is in no layer; add it to LAYERS in scripts/structure.ts`);
  const loaded: string[] = [];
  const all: string[] = [];
  const statements = text.matchAll(
    /^(?:import|export)\s+(type\s)?(?:[^;"]*?\sfrom\s+)?"([^"]+)"/gm,
  );
  for (const [, type, target] of statements) {
    checkImport(file, layer, target as string);
    all.push((target as string).replace("./", ""));
    if (!type) loaded.push((target as string).replace("./", ""));
  }
  for (const [, target] of text.matchAll(/\bimport\(\s*"([^"]+)",?\s*\)/g)) {
    checkImport(file, layer, target as string);
    all.push((target as string).replace("./", ""));
  }
  loads.set(file, loaded);
  imports.set(file, all);
}

function checkImport(file: string, layer: number, target: string): void {
  if (target.startsWith("./")) {
    const below = layerOf(target.slice(2));
    checkDoor(file, target.slice(2));
    if (below > layer && layer >= 0)
      faults.push(
        `src/${file} (${LAYERS[layer]?.[0]}) imports ${target} (${LAYERS[below]?.[0]}): imports only point downwards`,
      );
    return;
  }
  const builtIn = /^(?:node|bun):/.test(target);
  const listed = Object.hasOwn(manifest.dependencies, target);
  const version = file === "version.ts" && target === "../package.json";
  if (!builtIn && !listed && !version)
    faults.push(`src/${file} imports ${target}, which package.json does not list`);
}

function checkProcess(file: string, text: string): void {
  if (file === "main.ts") return;
  const code = text
    .replace(/\/\*[^]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "")
    .replace(PROCESS_FACTS, "");
  if (/(?:^|[^.\w"'-])process\s*[.[]|"node:process"/m.test(code))
    faults.push(`src/${file} touches the process; only main.ts does`);
}

/** Below the edge nobody knows how an option is called: a failure there has a remedy instead. */
function checkOptionNames(file: string, text: string): void {
  const edge = LAYERS.findIndex(([layer]) => layer === "edge");
  if (layerOf(file) >= edge || OPTION_NAMES.test(file)) return;
  const code = text.replace(/\/\*[^]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const found = /["`][^"`\n]*(?:^|[\s(])--[a-z][^"`\n]*["`]/m.exec(code)?.[0];
  if (found)
    faults.push(
      `src/${file} names an option of the command line: ${found}; give a Remedy of errors.ts instead and word it in cli-hints.ts`,
    );
}

/** Walks the imports depth first; a file that is met on its own path closes a circle. */
function checkCircles(): void {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) {
      const circle = [...path.slice(path.indexOf(file)), file];
      faults.push(`src/ has a circle of imports: ${circle.join(" -> ")}`);
      return;
    }
    if (done.has(file)) return;
    for (const next of imports.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of imports.keys()) visit(file, []);
}

/** Follows what main.ts loads at once: packages belong behind a command's dynamic import. */
function checkStart(): void {
  const reached = new Set(["main.ts"]);
  for (const file of reached)
    for (const target of loads.get(file) ?? [])
      if (Object.hasOwn(manifest.dependencies, target))
        faults.push(`src/${file} loads ${target} before any command is known`);
      else reached.add(target);
}
