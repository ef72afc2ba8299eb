/** Compiles cacheport with its runtime into one file, for this machine or another. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { dirname, join } from "node:path";

/** The project's folder. */
export const ROOT: string = join(import.meta.dir, "..");

/** What can be built: system, processor and, where it is musl, C library. */
export const TARGETS = [
  "linux-x64",
  "linux-x64-baseline",
  "linux-arm64",
  "linux-x64-musl",
  "linux-x64-baseline-musl",
  "linux-arm64-musl",
  "darwin-x64",
  "darwin-arm64",
  "windows-x64",
  "windows-arm64",
] as const;

/** A system that cacheport is built for. */
export type Target = (typeof TARGETS)[number];

/**
 * Threads are started by file name, so their files are entry points of their own, at
 * the same place in the program's own file system as main.ts.
 */
function entryPoints(): string[] {
  const source = join(ROOT, "src");
  const workers = readdirSync(source).filter((name) => name.endsWith("-worker.ts"));
  return ["main.ts", ...workers.toSorted()].map((name) => join(source, name));
}

/**
 * Compiles into a file. The same commit always gives the same bytes.
 *
 * A build for another system may have to fetch that system's runtime first, and the
 * compiler shows the progress of that on standard error: such a build runs as a process of
 * its own, whose words are passed on only when it fails.
 *
 * @param outfile An absolute path.
 * @param target This machine's own system when undefined.
 * @returns The names of the packages whose code is in the file.
 */
export async function compile(outfile: string, target?: Target): Promise<string[]> {
  if (target === undefined) return compileHere(outfile);
  const child = spawnSync(process.execPath, [import.meta.path, outfile, target], {
    encoding: "utf8",
  });
  if (child.status === 0) return JSON.parse(child.stdout) as string[];
  throw new Error(`The build for ${target} failed: ${child.stderr || child.error?.message}`);
}

async function compileHere(outfile: string, target?: Target): Promise<string[]> {
  mkdirSync(dirname(outfile), { recursive: true });
  // The compiler names files by their paths from here, and the names are in the bytes.
  process.chdir(ROOT);
  // Built aside and renamed: a run that has begun keeps the binary it began with, and
  // the name that the compiler embeds is the same for every output.
  const aside = mkdtempSync(join(dirname(outfile), ".build-"));
  try {
    const built = join(aside, executableName(target));
    const result = await Bun.build({
      entrypoints: entryPoints(),
      minify: true,
      // A command that does not need the rest does not load its bytecode: half the
      // start-up time of --version.
      splitting: true,
      // Without the format, bytecode means CommonJS, which has no top-level await.
      format: "esm",
      bytecode: true,
      sourcemap: "linked",
      metafile: true,
      define: buildFacts(target ?? hostTarget()),
      compile: {
        ...(target && {
          target: `bun-${target}` as Bun.Build.CompileTarget,
        }),
        outfile: built,
        // cacheport runs inside other people's checkouts: their bunfig.toml could name
        // a script to run, their .env could change where it connects.
        autoloadDotenv: false,
        autoloadBunfig: false,
      },
    });
    for (const log of result.logs) console.error(log);
    if (!result.success) throw new Error("The build failed");
    chmodSync(built, 0o755);
    renameSync(built, outfile);
    return packagesOf(Object.keys(result.metafile?.inputs ?? {}));
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
}

/** The oldest Bun that the single file is for: the minor version that it is tested with. */
function oldestBun(): string {
  return `${Bun.version.split(".").slice(0, 2).join(".")}.0`;
}

/**
 * Bundles the program into one script for people who have Bun. The same commit always gives
 * the same bytes.
 *
 * @returns The script, and the names of the packages whose code is in it.
 */
export async function bundle(): Promise<{ script: string; packages: string[] }> {
  process.chdir(ROOT);
  const result = await Bun.build({
    entrypoints: [join(ROOT, "scripts", "single-file.ts")],
    target: "bun",
    format: "esm",
    minify: true,
    metafile: true,
    define: {
      ...buildFacts("bun"),
      BUILD_BUN: JSON.stringify(oldestBun()),
      // A thread is the same file once more.
      BUILD_WORKER: JSON.stringify(""),
    },
  });
  for (const log of result.logs) console.error(log);
  const [output, ...others] = result.outputs;
  if (!result.success || !output || others.length > 0) throw new Error("The bundle is no one file");
  return {
    script: await output.text(),
    packages: packagesOf(Object.keys(result.metafile?.inputs ?? {})),
  };
}

/** What src/version.ts says of the build. */
function buildFacts(target: string): Record<string, string> {
  return { BUILD_COMMIT: JSON.stringify(commit()), BUILD_TARGET: JSON.stringify(target) };
}

/** The packages that files are part of, by the last `node_modules` in their paths. */
function packagesOf(paths: readonly string[]): string[] {
  const names = paths.flatMap((path) => {
    const match = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
    return match?.[1] ?? [];
  });
  return [...new Set(names)].toSorted();
}

/** The name of the program's file. */
export function executableName(target: Target = hostTarget()): string {
  return target.startsWith("windows") ? "cacheport.exe" : "cacheport";
}

/** Reads a target from a command line. */
export function parseTarget(text: string): Target {
  const target = TARGETS.find((one) => one === text);
  if (target) return target;
  throw new Error(`Cannot build for "${text}": the targets are ${TARGETS.join(", ")}`);
}

/** What a build without a target is for: the system of the Bun that builds. */
function hostTarget(): Target {
  const system = process.platform === "win32" ? "windows" : process.platform;
  const loader = {
    x64: "/lib/ld-musl-x86_64.so.1",
    arm64: "/lib/ld-musl-aarch64.so.1",
  };
  const isMusl = system === "linux" && runsOn(loader[process.arch as "x64" | "arm64"]);
  return `${system}-${process.arch}${isMusl ? "-musl" : ""}` as Target;
}

/** Tells whether this process was started by a dynamic loader. */
function runsOn(loader: string): boolean {
  return readFileSync("/proc/self/maps", "utf8").includes(loader);
}

/**
 * The commit of the work tree, with `-dirty` behind it when tracked files differ
 * from it; `unknown` where there is no git, or where the tree is a part of another.
 */
export function commit(): string {
  return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*");
}

/** When the commit was made, in seconds since 1970; 0 where that is unknown. */
export function commitTime(): number {
  return Number(git("show", "--no-patch", "--format=%ct", "HEAD")) || 0;
}

function git(...args: string[]): string {
  if (!existsSync(join(ROOT, ".git"))) return "unknown";
  const { status, stdout } = spawnSync("git", args, {
    cwd: ROOT,
    encoding: "utf8",
  });
  return (status === 0 && stdout.trim()) || "unknown";
}

if (import.meta.main) {
  const [outfile = "", target = ""] = process.argv.slice(2);
  console.log(JSON.stringify(await compileHere(outfile, parseTarget(target))));
}
