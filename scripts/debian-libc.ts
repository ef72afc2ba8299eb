/**
 * Gets the C library that a glibc build needs, from Debian's own package of it. apt
 * keeps its lists in a folder that is gone afterwards: the machine's own packages
 * and architectures stay as they are, and nobody needs to be root.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** An architecture as images call it. */
export type Architecture = "amd64" | "arm64";

/** The files of a C library. */
export interface CLibrary {
  /** The version of the package, undefined when the files are from a folder. */
  version: string | undefined;
  /** Each file with the path that the program looks for it at, without a slash before it. */
  files: { path: string; content: Uint8Array }[];
}

/** Where the loader stands, which is part of the program, and the folder of the others. */
const PLACES = {
  amd64: { loader: "lib64/ld-linux-x86-64.so.2", folder: "x86_64-linux-gnu" },
  arm64: { loader: "lib/ld-linux-aarch64.so.1", folder: "aarch64-linux-gnu" },
} as const;

/** What Bun's glibc builds are linked with, beside the loader. */
const LIBRARIES = ["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"];

/**
 * Reads the five files that the program needs.
 *
 * @param source A libc6 package or a folder with its files; downloaded with apt
 *   when undefined.
 */
export function cLibrary(architecture: Architecture, source: string | undefined): CLibrary {
  if (source !== undefined && !existsSync(source))
    throw new Error(`Cannot find the C library "${source}"`);
  if (source !== undefined && statSync(source).isDirectory())
    return readFiles(resolve(source), architecture, undefined);
  const scratch = mkdtempSync(join(tmpdir(), "cacheport-libc-"));
  try {
    const debian = source ?? download(architecture, scratch);
    const files = join(scratch, "files");
    run("dpkg-deb", ["--extract", debian, files]);
    const fields = ["Architecture", "Version"].map((field) =>
      run("dpkg-deb", ["--field", debian, field]).trim(),
    );
    if (fields[0] !== architecture)
      throw new Error(`Cannot use "${debian}": it is for ${fields[0]}`);
    return readFiles(files, architecture, fields[1]);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function readFiles(
  root: string,
  architecture: Architecture,
  version: string | undefined,
): CLibrary {
  const { loader, folder } = PLACES[architecture];
  // Debian moved all of /lib to /usr/lib; the old paths are links since then.
  const place = ["lib", "usr/lib"]
    .map((lib) => join(root, lib, folder))
    .find((path) => existsSync(join(path, "libc.so.6")));
  if (place === undefined) throw new Error(`Cannot find ${folder}/libc.so.6 in "${root}"`);
  const name = loader.replace(/.*\//, "");
  return {
    version,
    files: [
      { path: loader, content: readFileSync(join(place, name)) },
      ...LIBRARIES.map((library) => ({
        path: `lib/${folder}/${library}`,
        content: readFileSync(join(place, library)),
      })),
    ],
  };
}

function download(architecture: Architecture, scratch: string): string {
  const state = join(scratch, "state");
  const cache = join(scratch, "cache");
  const packages = join(scratch, "packages");
  for (const folder of [
    join(state, "lists", "partial"),
    join(cache, "archives", "partial"),
    packages,
  ])
    mkdirSync(folder, { recursive: true });
  const options = [
    `APT::Architecture=${architecture}`,
    `APT::Architectures=${architecture}`,
    `Dir::State=${state}`,
    `Dir::State::lists=${join(state, "lists")}`,
    "Dir::State::status=/dev/null",
    `Dir::Cache=${cache}`,
    "APT::Sandbox::User=",
  ].flatMap((option) => ["-o", option]);
  try {
    run("apt-get", [...options, "--quiet", "update"]);
    run("apt-get", [...options, "--quiet", "download", "libc6"], packages);
  } catch (error) {
    throw new Error(
      `Cannot get libc6 for ${architecture} from Debian; name its package with --libc ${architecture}=FILE.deb`,
      { cause: error },
    );
  }
  const [file] = readdirSync(packages);
  if (file === undefined) throw new Error("apt-get downloaded no libc6");
  return join(packages, file);
}

/** Runs a program. @returns What it printed */
function run(command: string, args: string[], cwd?: string): string {
  const { error, status, stdout, stderr } = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
  });
  if (error) throw new Error(`Cannot run ${command}: ${error.message}`);
  if (status !== 0) throw new Error(`${command} failed: ${stderr.trim()}`);
  return stdout;
}
