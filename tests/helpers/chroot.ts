/** Root file systems that hold one program and little else, and running it in them. */
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { cLibrary } from "../../scripts/debian-libc.ts";
import { tempFolder } from "./temp.ts";

/** Nobody's number. */
export const USER = 65532;

/** True for root on Linux, where namespaces may be made. */
export const canChroot: boolean =
  process.platform === "linux" &&
  process.getuid?.() === 0 &&
  Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

/** Makes a root with a program, the folders to mount on and what the program needs. */
function makeRoot(binary: string): string {
  const root = tempFolder();
  for (const folder of ["usr/bin", "proc", "work"])
    mkdirSync(join(root, folder), { recursive: true });
  cpSync(binary, join(root, "usr/bin/cacheport"));
  return root;
}

/** True when this machine has the C library of x64 Debian to take files from. */
export const hasGlibc: boolean =
  process.arch === "x64" && existsSync("/lib/x86_64-linux-gnu/libc.so.6");

/** A root with a glibc program and its five libraries. */
export function glibcRoot(binary: string): string {
  const root = makeRoot(binary);
  for (const { path, content } of cLibrary("amd64", "/").files) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content, { mode: 0o755 });
  }
  return root;
}

const MUSL = "/lib/x86_64-linux-musl";
const GCC = "/usr/lib/gcc/x86_64-linux-gnu";

/** True with Debian's packages musl and g++, of which a root can be made. */
export const hasMusl: boolean =
  process.arch === "x64" &&
  existsSync(join(MUSL, "libc.so")) &&
  Bun.which("gcc") !== null &&
  existsSync(GCC);

/**
 * A root with a musl program and what Alpine has for it: musl and libstdc++.
 *
 * Debian has no libstdc++ for musl. What Bun needs of it does not depend on the C
 * library, so a stand-in is linked from the objects of Debian's libstdc++.
 */
export function muslRoot(binary: string): string {
  const root = makeRoot(binary);
  mkdirSync(join(root, "lib"));
  mkdirSync(join(root, "usr/lib"));
  cpSync(join(MUSL, "libc.so"), join(root, "lib/ld-musl-x86_64.so.1"));
  symlinkSync("ld-musl-x86_64.so.1", join(root, "lib/libc.musl-x86_64.so.1"));
  linkStandIn(binary, join(root, "usr/lib/libstdc++.so.6"));
  return root;
}

/** What those objects want of glibc. */
const GLIBC_ONLY = `
char __libc_single_threaded;
unsigned arc4random(void) { return 4; }
int _dl_find_object(void *address, void *result) { return -1; }
`;

function linkStandIn(binary: string, target: string): void {
  const gcc = join(GCC, readdirSync(GCC).toSorted().at(-1) as string);
  const scratch = tempFolder();
  const source = join(scratch, "stub.c");
  writeFileSync(source, GLIBC_ONLY);
  const missing = symbols(binary, "UVBDR").filter((name) =>
    /^_Z|^__(?:cxa|once|dynamic_cast|(?:de)?register_frame)/.test(name),
  );
  const wanted = missing
    // Weak: glibc has it, libstdc++ does not.
    .filter((name) => name !== "__cxa_thread_atexit_impl")
    .filter((name) => !symbols(join(MUSL, "libc.so"), "T").includes(name));
  const archives = ["libstdc++.a", "libgcc_eh.a", "libgcc.a"];
  run([
    ..."gcc -shared -nostdlib -fPIC -Wl,-soname,libstdc++.so.6 -o".split(" "),
    target,
    join(gcc, "crtbeginS.o"),
    source,
    ...wanted.map((name) => `-Wl,-u,${name}`),
    "-Wl,--start-group",
    ...archives.map((name) => join(gcc, name)),
    "-Wl,--end-group",
    `-L${MUSL}`,
    "-l:libc.so",
    join(gcc, "crtendS.o"),
  ]);
}

/** The dynamic symbols of a file in some classes of nm. */
function symbols(path: string, classes: string): string[] {
  return run(["nm", "--dynamic", path])
    .split("\n")
    .map((line) => /(?:^|\s)([A-Za-z]) (\S+?)(?:@.*)?$/.exec(line))
    .filter((match) => match && classes.includes(match[1] as string))
    .map((match) => match?.[2] as string);
}

function run(command: string[]): string {
  const child = Bun.spawnSync(command);
  if (child.exitCode !== 0) throw new Error(`${command[0]} failed: ${child.stderr.toString()}`);
  return child.stdout.toString();
}

/** Gives all of a folder to the user that programs run as. */
export function giveAway(folder: string): string {
  for (const path of ["", ...readdirSync(folder, { recursive: true })]) {
    chownSync(join(folder, path as string), USER, USER);
    chmodSync(join(folder, path as string), 0o755);
  }
  return folder;
}

/**
 * The command that runs the program of a root as a user without rights and without a way
 * to more: the root cannot be written to, /proc is there, /dev is not, a folder is mounted
 * on /work.
 */
export function commandIn(root: string, work: string, args: readonly string[]): string[] {
  const script = `
    root=$1 work=$2; shift 2
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --bind "$work" "$root/work"
    mount -o remount,bind,ro "$root"
    exec setpriv --no-new-privs chroot --userspec=${USER}:${USER} "$root" /usr/bin/cacheport "$@"`;
  return ["unshare", "--mount", "sh", "-ec", script, "sh", root, work, ...args];
}

/** Runs the program of a root as {@link commandIn} says. */
export function runIn(root: string, work: string, args: readonly string[]) {
  const child = Bun.spawnSync(commandIn(root, work, args), {
    env: { PATH: process.env["PATH"] },
  });
  return {
    code: child.exitCode,
    stdout: child.stdout.toString(),
    stderr: child.stderr.toString(),
  };
}
