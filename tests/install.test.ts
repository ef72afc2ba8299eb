/** scripts/install.sh, with releases that hold a small script in the program's place. */
import { beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { file, gzip, tar } from "../scripts/archive.ts";
import { ended } from "./helpers/output.ts";
import type { Ended } from "./helpers/output.ts";
import { tempFolder } from "./helpers/temp.ts";

const SCRIPT = join(import.meta.dir, "..", "scripts", "install.sh");
const VERSION = "1.2.3";
const OLD = "#!/bin/sh\necho cacheport 0.0.1\n";

/** The shells that are POSIX ones, as far as they are here. */
const SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]].filter(([name]) =>
  Bun.which(name as string),
);

/** A folder with a release for a target. */
async function writeRelease(
  folder: string,
  target: string,
  version = VERSION,
  program = `#!/bin/sh\necho cacheport ${version}\n`,
): Promise<string> {
  const top = `cacheport-${version}-${target}`;
  const bytes = gzip(await tar([file(`${top}/cacheport`, program, 0o755)]));
  const name = `${top}.tar.gz`;
  writeFileSync(join(folder, name), bytes);
  const sum = createHash("sha256").update(bytes).digest("hex");
  const sums = join(folder, "SHA256SUMS");
  const before = existsSync(sums) ? readFileSync(sums, "utf8") : "";
  writeFileSync(sums, `${before}${sum}  ${name}\n`);
  return join(folder, name);
}

interface Installed extends Ended {
  /** What is in the bin folder. */
  bin: string[];
}

async function install(
  env: Record<string, string>,
  shell: readonly string[] = SHELLS[0] as string[],
  path = process.env["PATH"] as string,
  prefix = tempFolder(),
  options: readonly string[] = [],
): Promise<Installed> {
  const scratch = tempFolder();
  const child = Bun.spawn([...shell, SCRIPT, ...options], {
    env: { PATH: path, HOME: scratch, TMPDIR: scratch, PREFIX: prefix, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const end = await ended(child);
  // Whatever happens, nothing temporary stays.
  expect(readdirSync(scratch).filter((name) => name !== ".local")).toEqual([]);
  const bin = join(prefix, "bin");
  return { ...end, bin: existsSync(bin) ? readdirSync(bin) : [] };
}

/** A folder for PATH with programs that stand before the machine's own. */
function fakePrograms(programs: Record<string, string>): string {
  const folder = tempFolder();
  for (const [name, text] of Object.entries(programs)) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(folder, name), 0o755);
  }
  return `${folder}:${process.env["PATH"]}`;
}

const uname = (system: string, machine: string) =>
  `case $1 in -s) echo ${system} ;; -m) echo ${machine} ;; esac`;

const TARGETS = [
  "linux-x64",
  "linux-x64-baseline",
  "linux-arm64",
  "linux-x64-musl",
  "linux-x64-baseline-musl",
  "linux-arm64-musl",
  "darwin-x64",
  "darwin-arm64",
];

let releases = "";
beforeAll(async () => {
  releases = tempFolder();
  for (const target of TARGETS) await writeRelease(releases, target);
});

describe.each(SHELLS.map((shell) => [shell]))("install.sh in %p", (shell) => {
  test("installs the build for this machine", async () => {
    const env = { CACHEPORT_RELEASES: releases };
    const result = await install(env, shell);
    expect(result).toMatchObject({ code: 0, bin: ["cacheport"] });
    expect(result.stdout).toMatch(
      /^Installed cacheport 1\.2\.3 \((?:linux|darwin)-\S+\) to \S+\/bin\/cacheport\n$/,
    );
    expect(result.stderr).toContain("is not in PATH");
  });

  test("takes what it is told, over what is there", async () => {
    const prefix = tempFolder();
    mkdirSync(join(prefix, "bin"));
    writeFileSync(join(prefix, "bin", "cacheport"), OLD, { mode: 0o700 });
    const env = {
      CACHEPORT_RELEASES: `${releases}/`,
      CACHEPORT_TARGET: "linux-arm64-musl",
    };
    const result = await install(env, shell, undefined, prefix);
    expect(result.code).toBe(0);
    expect(result.stdout).toContain("(linux-arm64-musl)");
    const program = join(prefix, "bin", "cacheport");
    expect(readFileSync(program, "utf8")).toContain(VERSION);
    expect(statSync(program).mode & 0o777).toBe(0o755);
  });

  test("refuses a download that is damaged, cut short or empty", async () => {
    for (const change of ["damage", "truncate", "empty"]) {
      const folder = tempFolder();
      const path = await writeRelease(folder, "linux-x64");
      const { size } = statSync(path);
      if (change === "truncate") truncateSync(path, size - 10);
      if (change === "empty") truncateSync(path, 0);
      if (change === "damage") {
        const bytes = readFileSync(path);
        bytes[size >> 1]! ^= 1;
        writeFileSync(path, bytes);
      }
      const prefix = tempFolder();
      mkdirSync(join(prefix, "bin"));
      writeFileSync(join(prefix, "bin", "cacheport"), OLD);
      const env = {
        CACHEPORT_RELEASES: folder,
        CACHEPORT_TARGET: "linux-x64",
      };
      const result = await install(env, shell, undefined, prefix);
      expect(result).toMatchObject({ code: 1, stdout: "", bin: ["cacheport"] });
      expect(result.stderr).toMatch(
        /^install\.sh: Cannot install "cacheport-1\.2\.3-linux-x64\.tar\.gz": its sum is [0-9a-f]{64} and SHA256SUMS has [0-9a-f]{64}\nhint: /,
      );
      expect(readFileSync(join(prefix, "bin", "cacheport"), "utf8")).toBe(OLD);
    }
  });

  test("refuses an archive without a sum, and one whose sum was cut", async () => {
    const folder = tempFolder();
    await writeRelease(folder, "linux-x64");
    const sums = readFileSync(join(folder, "SHA256SUMS"), "utf8");
    const env = { CACHEPORT_RELEASES: folder, CACHEPORT_TARGET: "linux-x64" };
    for (const [text, message] of [
      ["", /Cannot find version/],
      [sums.slice(0, 40), /Cannot find version/],
      [sums.slice(1), /its sum is/],
      [sums.replace("cacheport-", "../cacheport-"), /Cannot find version/],
    ] as const) {
      writeFileSync(join(folder, "SHA256SUMS"), text);
      const result = await install(env, shell);
      expect(result).toMatchObject({ code: 1, bin: [] });
      expect(result.stderr).toMatch(message);
    }
  });

  test("refuses a machine for which there is no build", async () => {
    const env = { CACHEPORT_RELEASES: releases };
    for (const [system, machine, message] of [
      ["SunOS", "x86_64", 'Cannot install on "SunOS"'],
      ["Linux", "riscv64", 'Cannot install on "riscv64"'],
      ["MINGW64_NT-10.0", "x86_64", "Cannot install on Windows"],
    ] as const) {
      const path = fakePrograms({ uname: uname(system, machine) });
      const result = await install(env, shell, path);
      expect(result).toMatchObject({ code: 1, stdout: "", bin: [] });
      expect(result.stderr).toStartWith(`install.sh: ${message}`);
    }
  });

  test("installs no program that does not start", async () => {
    const folder = tempFolder();
    const broken = "#!/bin/sh\nexit 127\n";
    for (const target of ["linux-x64", "linux-x64-musl"])
      await writeRelease(folder, target, VERSION, broken);
    for (const [target, hint] of [
      ["linux-x64", "CACHEPORT_TARGET"],
      ["linux-x64-musl", "apk add libstdc++"],
    ] as const) {
      const env = { CACHEPORT_RELEASES: folder, CACHEPORT_TARGET: target };
      const result = await install(env, shell);
      expect(result).toMatchObject({ code: 1, stdout: "", bin: [] });
      expect(result.stderr).toContain("the program does not start");
      expect(result.stderr).toContain(hint);
    }
  });

  test("asks which version where there are several", async () => {
    const folder = tempFolder();
    await writeRelease(folder, "linux-x64", "1.0.0");
    await writeRelease(folder, "linux-x64", "2.0.0-rc.1");
    const env = { CACHEPORT_RELEASES: folder, CACHEPORT_TARGET: "linux-x64" };
    const without = await install(env, shell);
    expect(without).toMatchObject({ code: 1, bin: [] });
    expect(without.stderr).toContain("Set CACHEPORT_VERSION");
    for (const [version, code] of [
      ["2.0.0-rc.1", 0],
      ["1.0.0", 0],
      ["*", 1],
      ["3", 1],
    ] as const) {
      const chosen = { ...env, CACHEPORT_VERSION: version };
      const result = await install(chosen, shell);
      expect(result.code).toBe(code);
      if (code === 0) expect(result.stdout).toContain(version);
    }
  });

  test("cleans up when it is interrupted", async () => {
    // Unpacking never ends: the script is told to stop meanwhile.
    const ready = join(tempFolder(), "ready");
    const path = fakePrograms({
      tar: `: > ${ready}; kill -TERM $PPID; sleep 0.2`,
    });
    const env = { CACHEPORT_RELEASES: releases };
    const result = await install(env, shell, path);
    expect(existsSync(ready)).toBe(true);
    expect(result).toMatchObject({ code: 143, stdout: "", bin: [] });
  });

  test("does nothing when the script itself was cut short", async () => {
    const text = readFileSync(SCRIPT, "utf8");
    const folder = tempFolder();
    for (const share of [0.3, 0.6, 0.9]) {
      const cut = text.slice(0, text.length * share);
      const part = join(folder, "part.sh");
      writeFileSync(part, cut.slice(0, cut.lastIndexOf("\n")));
      const prefix = tempFolder();
      Bun.spawnSync([...shell, part], {
        env: {
          PATH: process.env["PATH"],
          PREFIX: prefix,
          CACHEPORT_RELEASES: releases,
        },
      });
      expect(readdirSync(prefix)).toEqual([]);
    }
  });
});

describe("install.sh", () => {
  test.each([
    ["Linux", "x86_64", "avx2", "GNU libc", "linux-x64"],
    ["Linux", "amd64", "sse4_2", "GNU libc", "linux-x64-baseline"],
    ["Linux", "x86_64", "avx2", "musl libc (x86_64)", "linux-x64-musl"],
    ["Linux", "x86_64", "sse4_2", "musl libc", "linux-x64-baseline-musl"],
    ["Linux", "aarch64", "asimd", "GNU libc", "linux-arm64"],
    ["Linux", "arm64", "asimd", "musl libc (aarch64)", "linux-arm64-musl"],
    ["Darwin", "x86_64", "", "", "darwin-x64"],
    ["Darwin", "arm64", "", "", "darwin-arm64"],
  ])("on %s %s with %s and %s takes %s", async (system, machine, flag, libc, target) => {
    const path = fakePrograms({
      uname: uname(system, machine),
      // As the real ones: musl's ldd complains and fails.
      ldd: `echo "${libc}" >&2; exit 1`,
      grep: `[ "$*" = "-qw avx2 /proc/cpuinfo" ] && [ "${flag}" = avx2 ]`,
      sysctl: "echo 0",
    });
    const env = { CACHEPORT_RELEASES: releases };
    const result = await install(env, undefined, path);
    expect(result.stdout).toContain(`(${target})`);
  });

  test("takes the native build in a shell that runs translated", async () => {
    const path = fakePrograms({
      uname: uname("Darwin", "x86_64"),
      sysctl: "echo 1",
    });
    const result = await install({ CACHEPORT_RELEASES: releases }, undefined, path);
    expect(result.stdout).toContain("(darwin-arm64)");
  });

  test("installs from the folder that it lies in", async () => {
    const folder = tempFolder();
    cpSync(releases, folder, { recursive: true });
    cpSync(SCRIPT, join(folder, "install.sh"));
    const prefix = tempFolder();
    const child = Bun.spawnSync(["sh", join(folder, "install.sh")], {
      env: { PATH: process.env["PATH"], PREFIX: prefix },
    });
    expect(child.exitCode).toBe(0);
    expect(readdirSync(join(prefix, "bin"))).toEqual(["cacheport"]);
  });

  test("says what is missing when it is not told from where", async () => {
    const result = await install({});
    expect(result.code).toBe(1);
    expect(result.stderr).toContain("Set CACHEPORT_RELEASES");
    const missing = await install({ CACHEPORT_RELEASES: "/nonexistent" });
    expect(missing.code).toBe(1);
    expect(missing.stderr).toContain('Cannot get "SHA256SUMS"');
  });

  test("does not write into a folder that stands in the program's place", async () => {
    const prefix = tempFolder();
    mkdirSync(join(prefix, "bin", "cacheport"), { recursive: true });
    const env = { CACHEPORT_RELEASES: releases };
    const result = await install(env, undefined, undefined, prefix);
    expect(result.code).toBe(1);
    expect(readdirSync(join(prefix, "bin", "cacheport"))).toEqual([]);
  });

  test("checks sums with whatever program is there", async () => {
    const tools = ["sh", "sed", "tar", "gzip", "cp", "mv", "rm", "mkdir"].concat(
      "mktemp chmod dirname uname grep ldd cat bash".split(" "),
    );
    for (const [name, ok] of [
      ["openssl", true],
      ["nothing", false],
    ] as const) {
      const folder = tempFolder();
      for (const tool of tools) {
        const path = Bun.which(tool);
        if (path) symlinkSync(path, join(folder, tool));
      }
      const openssl = Bun.which("openssl");
      if (ok && !openssl) continue;
      if (ok) symlinkSync(openssl as string, join(folder, name));
      const shell = [Bun.which(SHELLS[0]?.[0] as string) as string];
      const env = { CACHEPORT_RELEASES: releases };
      const result = await install(env, shell, folder);
      expect(result.code).toBe(ok ? 0 : 1);
      if (!ok) expect(result.stderr).toContain("Cannot check the download");
    }
  });

  test.skipIf(!Bun.which("curl") && !Bun.which("wget"))(
    "downloads from a URL, and refuses what is not there or ends early",
    async () => {
      const served = tempFolder();
      await writeRelease(served, "linux-x64");
      using server = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        async fetch(request) {
          const { pathname } = new URL(request.url);
          const [, mode, name] = pathname.split("/") as [string, string, string];
          const path = join(served, name);
          if (mode === "missing" || !existsSync(path)) return new Response("no", { status: 404 });
          const bytes = readFileSync(path);
          const isCut = mode === "cut" && name !== "SHA256SUMS";
          return new Response(isCut ? bytes.subarray(0, 50) : bytes);
        },
      });
      const run = (mode: string) =>
        install({
          CACHEPORT_RELEASES: `http://127.0.0.1:${server.port}/${mode}`,
          CACHEPORT_TARGET: "linux-x64",
          no_proxy: "127.0.0.1",
        });
      expect(await run("good")).toMatchObject({ code: 0, bin: ["cacheport"] });
      expect(await run("missing")).toMatchObject({ code: 1, bin: [] });
      expect(await run("cut")).toMatchObject({ code: 1, bin: [] });
    },
  );
});

describe.each(SHELLS.map((shell) => [shell]))("the options of install.sh in %p", (shell) => {
  const run = (options: string[], env: Record<string, string> = {}, prefix = tempFolder()) =>
    install(env, shell, undefined, prefix, options);

  test("--help explains and installs nothing", async () => {
    const result = await run(["--help"], { CACHEPORT_RELEASES: releases });
    expect(result).toMatchObject({ code: 0, stderr: "", bin: [] });
    for (const word of ["--prefix", "--uninstall", "linux-x64-musl", "apk add libstdc++"])
      expect(result.stdout).toContain(word);
  });

  test.each([["--nope"], ["--prefix"], ["extra"]])("%p is wrong usage", async (option) => {
    const result = await run([option], { CACHEPORT_RELEASES: releases });
    expect(result).toMatchObject({ code: 2, stdout: "", bin: [] });
    expect(result.stderr).toContain("install.sh --help");
  });

  test("the manual page and the completions get to their places, and go again", async () => {
    const folder = tempFolder();
    const top = `cacheport-${VERSION}-linux-x64`;
    const files = {
      "cacheport.1": "share/man/man1/cacheport.1",
      "completions/cacheport.bash": "share/bash-completion/completions/cacheport",
      "completions/_cacheport": "share/zsh/site-functions/_cacheport",
      "completions/cacheport.fish": "share/fish/vendor_completions.d/cacheport.fish",
    };
    const bytes = gzip(
      await tar([
        file(`${top}/cacheport`, `#!/bin/sh\necho cacheport ${VERSION}\n`, 0o755),
        ...Object.keys(files).map((name) => file(`${top}/${name}`, name)),
      ]),
    );
    writeFileSync(join(folder, `${top}.tar.gz`), bytes);
    const sum = createHash("sha256").update(bytes).digest("hex");
    writeFileSync(join(folder, "SHA256SUMS"), `${sum}  ${top}.tar.gz\n`);
    const prefix = join(tempFolder(), "a b");
    mkdirSync(join(prefix, "share"), { recursive: true });
    writeFileSync(join(prefix, "share", "mine"), "mine");
    const options = [`--prefix=${prefix}`];
    const installed = await run(
      [...options, "--from", folder, "--version", VERSION, "--target=linux-x64"],
      { PREFIX: "" },
    );
    expect([installed.code, installed.stdout]).toEqual([
      0,
      `Installed cacheport ${VERSION} (linux-x64) to ${prefix}/bin/cacheport\n`,
    ]);
    for (const [name, place] of Object.entries(files)) {
      expect(readFileSync(join(prefix, place), "utf8")).toBe(name);
      expect(statSync(join(prefix, place)).mode & 0o777).toBe(0o644);
    }
    const removed = await run([...options, "--uninstall"], { PREFIX: "" });
    expect(removed.code).toBe(0);
    for (const place of ["bin/cacheport", ...Object.values(files)]) {
      expect(removed.stdout).toContain(`Removed ${prefix}/${place}\n`);
      expect(existsSync(join(prefix, place))).toBe(false);
    }
    expect(readFileSync(join(prefix, "share", "mine"), "utf8")).toBe("mine");
    const again = await run([...options, "--uninstall"], { PREFIX: "" });
    expect(again.code).toBe(1);
    expect(again.stderr).toContain("Cannot find");
  });

  test("SHA256SUMS may lack its last line feed, have Windows' ones, or list an archive twice", async () => {
    const folder = tempFolder();
    await writeRelease(folder, "linux-x64");
    const sums = readFileSync(join(folder, "SHA256SUMS"), "utf8");
    const env = { CACHEPORT_RELEASES: folder, CACHEPORT_TARGET: "linux-x64" };
    for (const text of [
      sums.trimEnd(),
      sums.replaceAll("\n", "\r\n"),
      `# comment\r\n\r\n${sums.trimEnd()}\r`,
      sums + sums,
      sums + sums.replace("  ", " *").trimEnd(),
    ]) {
      writeFileSync(join(folder, "SHA256SUMS"), text);
      expect((await run([], env)).code).toBe(0);
    }
    writeFileSync(join(folder, "SHA256SUMS"), `${"0".repeat(64)}  ${sums.split("  ")[1]}${sums}`);
    const twice = await run([], env);
    expect([twice.code, twice.bin]).toEqual([1, []]);
    expect(twice.stderr).toContain("lists it twice with different sums");
  });
});

test("a redirect from https to http is not followed", async () => {
  const folder = tempFolder();
  await writeRelease(folder, "linux-x64");
  const asked: string[] = [];
  const plain = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => {
      const name = new URL(request.url).pathname.slice(1);
      asked.push(name);
      return new Response(Bun.file(join(folder, name)));
    },
  });
  const keys = tempFolder();
  const made = Bun.spawnSync(
    `openssl req -x509 -newkey rsa:2048 -nodes -keyout ${keys}/k -out ${keys}/c -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost`.split(
      " ",
    ),
  );
  expect(made.exitCode).toBe(0);
  const secure = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    tls: { key: Bun.file(join(keys, "k")), cert: Bun.file(join(keys, "c")) },
    fetch: (request) =>
      Response.redirect(`http://127.0.0.1:${plain.port}${new URL(request.url).pathname}`, 302),
  });
  try {
    const trust = { CURL_CA_BUNDLE: join(keys, "c"), SSL_CERT_FILE: join(keys, "c") };
    const env = { CACHEPORT_TARGET: "linux-x64", ...trust };
    const result = await install({
      ...env,
      CACHEPORT_RELEASES: `https://localhost:${secure.port}`,
    });
    expect([result.code, result.bin]).toEqual([1, []]);
    expect(asked).toEqual([]);
    // By http alone it is installed, and a redirect from there is the server's business.
    const open = await install({ ...env, CACHEPORT_RELEASES: `http://127.0.0.1:${plain.port}` });
    expect(open.code).toBe(0);
  } finally {
    await Promise.all([plain.stop(true), secure.stop(true)]);
  }
});
