import { beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { completionScript, SHELLS } from "../src/cli-completion.ts";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";

describe.each(SHELLS)("the script for %s", (shell) => {
  test("asks the program, so that it needs no list of its own", () => {
    const script = completionScript(shell);
    expect(script).toContain("cacheport");
    expect(script).toContain("__complete --line");
    for (const word of ["convert", "image-manifest", "quiet", "plain-http"])
      expect(script).not.toContain(word);
    expect(script.split("\n").length).toBeLessThan(45);
  });

  test.skipIf(shell === "powershell" || Bun.which(shell) === null)(
    "is read by the shell without a word, and runs nothing",
    () => {
      const cwd = tempFolder();
      writeFileSync(join(cwd, "script"), completionScript(shell));
      const prelude = shell === "zsh" ? "compdef() { : }; " : "";
      const flag = { zsh: ["-f"], fish: ["--no-config"] }[shell as string] ?? [];
      const child = Bun.spawnSync([shell, ...flag, "-c", `${prelude}source ./script`], {
        cwd,
        env: { PATH: process.env["PATH"], HOME: cwd },
      });
      expect(child.stderr.toString()).toBe("");
      expect(child.exitCode).toBe(0);
      expect(Bun.spawnSync(["ls", cwd]).stdout.toString()).toBe("script\n");
    },
  );
});

/** What every shell must offer: the command line so far, and what of it can follow. */
const CASES: [line: string, some: string[], none: string[]][] = [
  ["cacheport comp", ["completion"], ["copy"]],
  ["cacheport --jobs 4 comp", ["completion"], []],
  ["cacheport completion ", ["bash", "zsh", "fish", "powershell"], ["layout"]],
  ["cacheport completion f", ["fish"], ["bash"]],
  ["cacheport completion --pro", ["--progress"], ["--json"]],
  ["cacheport completion --progress ", ["auto", "json"], ["bash"]],
  ["cacheport completion --progress=j", ["json"], ["auto", "plain"]],
  ["cacheport help comp", ["completion"], []],
  ["cacheport ls lay", ["layout"], ["bash"]],
  ["cacheport copy --compress ", ["gzip", "zstd"], ["layout"]],
  ["cacheport copy --tag x layout lay", ["layout"], []],
  ["cacheport merge layout layout lay", ["layout"], []],
  ["cacheport ls layout lay", [], ["layout"]],
];

/** A folder with a layout in it, where the shells run. */
let folder = "";

beforeAll(() => {
  folder = dirname(fixtureCopy("image-dir"));
  Bun.spawnSync(["mv", "image-dir", "layout"], { cwd: folder });
  mkdirSync(join(folder, "a b"));
});

function environment() {
  return {
    PATH: `${dirname(BINARY)}:${process.env["PATH"]}`,
    HOME: folder,
    LD_LIBRARY_PATH: process.env["LD_LIBRARY_PATH"],
  };
}

async function names(): Promise<string[]> {
  const result = await cacheport(["ls", "layout", "--json"], { cwd: folder });
  return result
    .json<{ refName: string | null; imageName: string | null }[]>()
    .flatMap(({ imageName, refName }) => imageName ?? refName ?? []);
}

describe.skipIf(Bun.which("bash") === null)("bash completes", () => {
  /** The words that would stand on the command line after each candidate. */
  function complete(line: string, breaks = " \t\n\"'><=;|&(:@"): string[] {
    const program = `
      source <(cacheport completion bash)
      COMP_WORDBREAKS=$BREAKS COMP_LINE=$LINE COMP_POINT=\${#LINE}
      _cacheport
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const child = Bun.spawnSync(["bash", "--norc", "-c", program], {
      cwd: folder,
      env: { ...environment(), LINE: line, BREAKS: breaks },
    });
    expect(child.stderr.toString()).toBe("");
    return child.stdout.toString().split("\n").filter(Boolean);
  }

  test.each(CASES)("%p", (line, some, none) => {
    const words = complete(line);
    for (const word of some) expect(words).toContain(word);
    for (const word of none) expect(words).not.toContain(word);
  });

  test("the names in a layout, whatever breaks words", async () => {
    const all = await names();
    expect(all.length).toBeGreaterThan(0);
    const after = (name: string) => name.slice(name.lastIndexOf(":") + 1);
    expect(complete("cacheport ls layout:").toSorted()).toEqual(all.toSorted());
    const whole = all.map((name) => `layout:${name}`).toSorted();
    expect(complete("cacheport ls layout:", " ").toSorted()).toEqual(whole);
    const first = all[0] as string;
    const most = `layout:${first.slice(0, -1)}`;
    expect(complete(`cacheport ls ${most}`)).toContain(after(first));
  });

  test("values after = also where = breaks no word", () => {
    expect(complete("cacheport completion --progress=j", " ")).toEqual(["--progress=json"]);
  });

  test("paths with blanks", () => {
    expect(complete("cacheport ls a\\ ")).toEqual(["a b"]);
  });
});

describe.skipIf(Bun.which("fish") === null)("fish completes", () => {
  function complete(line: string): string[] {
    const program = "cacheport completion fish | source; complete -C $LINE";
    const child = Bun.spawnSync(["fish", "--no-config", "-c", program], {
      cwd: folder,
      env: { ...environment(), LINE: line },
    });
    expect(child.stderr.toString()).toBe("");
    return child.stdout
      .toString()
      .split("\n")
      .map((entry) => entry.split("\t")[0]?.replace(/^--progress=|\/$/, ""))
      .filter((word) => word !== undefined);
  }

  test.each(CASES)("%p", (line, some, none) => {
    const words = complete(line);
    for (const word of some) expect(words).toContain(word);
    for (const word of none) expect(words).not.toContain(word);
  });

  test("the names in a layout", async () => {
    const words = complete("cacheport ls layout:");
    for (const name of await names()) expect(words).toContain(`layout:${name}`);
  });
});

describe("cacheport __complete --line", () => {
  const asked = async (...words: string[]): Promise<string[]> => {
    const run = await cacheport(["__complete", "--line", "--", ...words], { cwd: folder });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    return run.stdout.split("\n").filter(Boolean);
  };

  test("says what each word means", async () => {
    expect(await asked("conv")).toEqual([
      "convert\tConvert a build cache to another shape, in place or on the way to another store",
    ]);
    expect(await asked("ls", "--tr")).toEqual(["--tree\tShow all content below each entry"]);
  });

  test("knows where values, operands and the end of options are", async () => {
    expect(await asked("convert", "--to", "o")).toEqual(["oci-index"]);
    expect(await asked("convert", "--to=o")).toEqual(["--to=oci-index"]);
    expect(await asked("copy", "-at", "")).toEqual([]);
    expect(await asked("self-check", "--dir", "")).toEqual([":files"]);
    expect(await asked("self-check", "")).toEqual([]);
    expect(await asked("copy", "--", "--a")).toEqual([":files"]);
    expect(await asked("copy", "a", "b", "")).toEqual([]);
    expect(await asked("nope", "")).toEqual([]);
    expect(await asked()).toContain("help\tShow the help of a command");
    const run = await cacheport(["__complete", "--line", "--new", "--", "completion"]);
    expect(run.stdout).toBe("bash\nzsh\nfish\npowershell\n");
  });
});

describe("cacheport __complete", () => {
  test.each([
    "",
    "layout",
    "layout:",
    "oci:layout:",
    "./layout:",
    "nothing:",
    "docker.io/library/alpine:",
    ":",
    "layout@sha256:",
    "\u0000",
  ])("never fails: %p", async (text) => {
    const argv = ["__complete", "--", text].map((word) => word.replace("\0", ""));
    const result = await cacheport(argv, { cwd: folder });
    expect(result).toMatchObject({ code: 0, stderr: "" });
    for (const line of result.stdout.split("\n").filter(Boolean)) expect(line).toStartWith(text);
  });

  test("gives the names in layouts however they are written", async () => {
    const all = await names();
    for (const place of [
      "layout",
      "./layout",
      "oci:layout",
      "oci-layout://layout",
      join(folder, "layout"),
    ]) {
      const { stdout } = await cacheport(["__complete", `${place}:`], {
        cwd: folder,
      });
      const expected = all.map((name) => `${place}:${name}`);
      expect(stdout.trimEnd().split("\n").toSorted()).toEqual(expected.toSorted());
    }
  });

  test("prints no name that a shell could trip over", async () => {
    const index = join(folder, "layout", "index.json");
    const value = await Bun.file(index).json();
    value.manifests[0].annotations = {
      "org.opencontainers.image.ref.name": "evil\nname\u001b[2J",
    };
    const copy = join(tempFolder(), "layout");
    Bun.spawnSync(["cp", "-r", join(folder, "layout"), copy]);
    writeFileSync(join(copy, "index.json"), JSON.stringify(value));
    const { code, stdout } = await cacheport(["__complete", `${copy}:`]);
    expect(code).toBe(0);
    expect(stdout).not.toContain("evil");
  });
});

test("the completion command prints the script, and with --json a value", async () => {
  const text = await cacheport(["completion", "zsh"]);
  expect(text.stdout).toStartWith("#compdef cacheport\n");
  const { json } = await cacheport(["completion", "zsh", "--json"]);
  expect(json()).toEqual({ shell: "zsh", script: text.stdout });
});
