// The one door to every task: `node scripts/run.mjs TASK [ARG...]`. It runs under
// plain Node, so that a fresh clone needs nothing but node and npm: it installs
// what is missing first (Bun itself comes as the npm package `bun`, in the version
// that package.json pins), then hands the task to Bun.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join, dirname } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const bun = join(root, "node_modules", "bun", "bin", "bun.exe");
const [task = "", ...args] = process.argv.slice(2);

// The fixtures are other programs' bytes and are never formatted.
const formatted = ["src", "scripts", "tests/**/*.ts", "*.json", "*.md"];
const tasks = {
  demo: [["scripts/build.ts"], ["scripts/demo.ts"]],
  test: [["scripts/test.ts", ...args]],
  map: [["scripts/map.ts"]],
  build: [["scripts/build.ts", ...args]],
  check: [
    ["fmt", "--no-script", "--check", ...formatted],
    ["x", "oxlint", "--type-aware", "--deny-warnings", "-c", "scripts/lint.json"],
    ["check", "--no-script"],
    // The page's script runs in a browser: it is checked with that one's names.
    ["check", "--no-script", "-p", "scripts/tsconfig.page.json"],
    ["scripts/check-structure.ts"],
  ],
  fmt: [["fmt", "--no-script", ...formatted]],
  bench: [["scripts/build.ts"], ["scripts/bench.ts", ...args]],
  release: [["scripts/release.ts", ...args]],
  image: [["scripts/image.ts", ...args]],
  notes: [["scripts/notes.ts", ...args]],
};

tasks.ok = [...tasks.check, ["scripts/test.ts"]];

function run(command, commandArgs) {
  const { status, error } = spawnSync(command, commandArgs, {
    cwd: root,
    stdio: "inherit",
  });
  if (error) console.error(`Cannot run "${command}": ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

/** Installs the locked dependencies unless this very lock is installed already. */
function install() {
  const stamp = join(root, "node_modules", ".installed");
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package.json")))
    .update(readFileSync(join(root, "bun.lock")))
    .digest("hex");
  if (existsSync(bun) && existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return;
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const version = manifest.devDependencies.bun;
  if (!existsSync(bun)) {
    run(npm, [
      "install",
      "--no-save",
      "--no-package-lock",
      "--no-audit",
      "--no-fund",
      "--loglevel=error",
      `bun@${version}`,
    ]);
  }
  run(bun, ["install", "--frozen-lockfile"]);
  // Another working copy may share the file by a hard link: it keeps its own.
  rmSync(stamp, { force: true });
  writeFileSync(stamp, lock);
}

if (!Object.hasOwn(tasks, task)) {
  console.error(`Cannot run task "${task}": the tasks are ${Object.keys(tasks).join(", ")}`);
  process.exit(2);
}
install();
for (const step of tasks[task]) run(bun, step);
