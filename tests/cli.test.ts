import { beforeAll, describe, expect, test } from "bun:test";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { run } from "../src/cli.ts";
import type { CommandSpec } from "../src/cli-command.ts";
import { COMMANDS } from "../src/command-table.ts";
import { CacheportError } from "../src/errors.ts";
import { BINARY, cacheport } from "./helpers/binary.ts";
import type { FakeHostOptions } from "./helpers/host.ts";
import { fakeHost } from "./helpers/host.ts";
import { tempFolder } from "./helpers/temp.ts";

const NAMES = COMMANDS.map(({ name }) => name);
const LISTED = COMMANDS.filter(({ hidden }) => !hidden).map(({ name }) => name);

/** Runs a made-up command in this process. */
async function runCommand(
  command: CommandSpec["run"],
  argv: string[] = [],
  options: FakeHostOptions = {},
) {
  const fake = fakeHost(options);
  const spec: CommandSpec = {
    name: "try",
    summary: "Try",
    description: "Tries.",
    operands: [],
    options: [],
    examples: [],
    run: command,
  };
  const entry = { name: "try", summary: "Try", load: async () => spec };
  const code = await run(["try", ...argv], fake.host, [entry]);
  return { code, stdout: fake.stdout(), stderr: fake.stderr() };
}

describe("run", () => {
  test("gives the command's exit code, 0 where it gives none", async () => {
    expect((await runCommand(async () => {})).code).toBe(0);
    expect((await runCommand(async () => 4)).code).toBe(4);
  });

  test("gives an error's exit code and tells it", async () => {
    const result = await runCommand(async () => {
      throw new CacheportError("NAME_NOT_FOUND", "Cannot find it");
    }, ["--json"]);
    expect(result.code).toBe(3);
    expect(result.stderr).toBe("cacheport: Cannot find it\n");
    expect(JSON.parse(result.stdout).error.code).toBe("NAME_NOT_FOUND");
  });

  test("gives a code to what nobody caught, and shows no stack", async () => {
    const fault = await runCommand(async () => {
      throw new TypeError("x is not a function");
    });
    expect(fault.code).toBe(1);
    expect(fault.stderr).toBe(
      "cacheport: Cannot finish the command: x is not a function\n" +
        "hint: This is a fault in cacheport: please report it with what CACHEPORT_DEBUG=1 prints\n",
    );
    const system = await runCommand(async () => {
      throw Object.assign(new Error("EACCES: ..."), { code: "EACCES" });
    });
    expect(system.stderr).toBe("cacheport: Cannot finish the command: permission denied\n");
    const text = await runCommand(async () => {
      throw "text";
    });
    expect(text.stderr).toContain("Cannot finish the command: text");
  });

  test("shows the stack with CACHEPORT_DEBUG=1 alone", async () => {
    const fails = async () => {
      throw new CacheportError("NAME_NOT_FOUND", "Cannot find it");
    };
    const on = await runCommand(fails, [], { env: { CACHEPORT_DEBUG: "1" } });
    expect(on.stderr).toContain("cli.test.ts");
    const off = await runCommand(fails, [], { env: { CACHEPORT_DEBUG: "0" } });
    expect(off.stderr).not.toContain("cli.test.ts");
  });

  test("an interrupt is 130, whatever the command throws then", async () => {
    const interruption = new AbortController();
    const result = await runCommand(
      async () => {
        interruption.abort();
        throw new CacheportError("IO_FAILED", "Cannot read");
      },
      ["--json"],
      { signal: interruption.signal },
    );
    expect(result).toEqual({
      code: 130,
      stdout: "",
      stderr: "cacheport: Interrupted\n",
    });
  });

  test("a reader that has gone ends the command quietly", async () => {
    const result = await runCommand(
      async (context) => {
        await context.write(new Uint8Array(1)).catch((error) => {
          throw new CacheportError("IO_FAILED", "Wrapped", { cause: error });
        });
      },
      [],
      {
        onWrite: () => {
          throw Object.assign(new Error("EPIPE"), { code: "EPIPE" });
        },
      },
    );
    expect(result).toEqual({ code: 0, stdout: "", stderr: "" });
  });
});

describe("the binary", () => {
  beforeAll(() => {
    if (!existsSync(BINARY)) throw new Error(`There is no binary at ${BINARY}: run npm run build`);
  });

  test("tells its version", async () => {
    for (const flag of ["--version", "-V"]) {
      const result = await cacheport([flag]);
      expect(result).toMatchObject({ code: 0, stderr: "" });
      expect(result.stdout).toMatch(/^cacheport \d+\.\d+\.\d+\n$/);
    }
    const { json } = await cacheport(["--version", "--json"]);
    expect(json()).toMatchObject({ name: "cacheport" });
  });

  test("alone prints its help as an error, and with --help as the result", async () => {
    const alone = await cacheport([]);
    expect(alone).toMatchObject({ code: 2, stdout: "" });
    const asked = await cacheport(["--help"]);
    expect(asked).toMatchObject({ code: 0, stderr: "" });
    expect(asked.stdout).toBe(alone.stderr);
    expect((await cacheport(["help"])).stdout).toBe(asked.stdout);
    expect((await cacheport(["-h"])).stdout).toBe(asked.stdout);
    for (const name of LISTED) expect(asked.stdout).toContain(`\n  ${name} `);
  });

  test.each(NAMES)("has help on %s, whatever else is asked", async (name) => {
    const asked = await cacheport([name, "--help"]);
    expect(asked).toMatchObject({ code: 0, stderr: "" });
    expect(asked.stdout).toContain(`cacheport ${name}`);
    expect(asked.stdout).toContain("Examples:");
    const others = [
      ["help", name],
      ["-h", name],
      [name, "-h", "--no-such", "a"],
    ];
    for (const argv of others) expect((await cacheport(argv)).stdout).toBe(asked.stdout);
    const { json } = await cacheport([name, "--help", "--json"]);
    expect(json()).toMatchObject({ name, sharedOptions: expect.any(Array) });
  });

  test.each([
    [["complation"], "Did you mean completion?"],
    [["xyzzy"], "Run cacheport --help to see the commands"],
    [["help", "complation"], "Did you mean completion?"],
    [["completion", "--jsn", "bash"], "Did you mean --json?"],
    [["--jsn"], "Did you mean --json?"],
    [["--versoin"], "Did you mean --version?"],
    [["completion", "bsh"], "Did you mean bash?"],
    [["completion"], "Run cacheport completion --help to see how it is used"],
    [["--quiet"], "Run cacheport --help to see the commands"],
    [["__proto__"], "Run cacheport --help to see the commands"],
  ])("refuses %p with exit code 2 and a hint", async (argv, hint) => {
    const text = await cacheport(argv);
    expect(text).toMatchObject({ code: 2, stdout: "" });
    const [sentence, last, ...rest] = text.stderr.split("\n");
    expect(sentence).toStartWith("cacheport: Cannot run ");
    expect(last).toBe(`hint: ${hint}`);
    expect(rest).toEqual([""]);
    const json = await cacheport(["--json", ...argv]);
    expect(json.code).toBe(2);
    expect(json.json()).toEqual({
      error: {
        code: "USAGE",
        message: sentence?.replace("cacheport: ", ""),
        hint,
      },
    });
    expect(json.stderr).toBe(text.stderr);
  });

  test("runs no bunfig.toml and reads no .env of the folder it is used in", async () => {
    const cwd = tempFolder();
    const marker = join(cwd, "marker");
    writeFileSync(
      join(cwd, "bunfig.toml"),
      'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n',
    );
    writeFileSync(
      join(cwd, "evil.ts"),
      `require("node:fs").writeFileSync(${JSON.stringify(marker)}, "");`,
    );
    writeFileSync(join(cwd, ".env"), "CACHEPORT_DEBUG=1\nFORCE_COLOR=1\n");
    writeFileSync(join(cwd, "package.json"), '{"name":"evil","version":"9.9.9"}');
    writeFileSync(join(cwd, "tsconfig.json"), "{");
    const result = await cacheport(["xyzzy"], { cwd });
    expect(existsSync(marker)).toBe(false);
    expect(result.stderr).toBe(
      'cacheport: Cannot run command "xyzzy": there is no such command\n' +
        "hint: Run cacheport --help to see the commands\n",
    );
  });

  test("obeys NO_COLOR and FORCE_COLOR", async () => {
    const forced = await cacheport(["--help"], { env: { FORCE_COLOR: "1" } });
    expect(forced.stdout).toContain("\x1b[1m");
    const env = { FORCE_COLOR: "1", NO_COLOR: "1" };
    expect((await cacheport(["--help"], { env })).stdout).not.toContain("\x1b");
  });

  test("ends quietly when its reader has had enough", () => {
    const command = `"${BINARY}" completion bash | head -n 1; echo "\${PIPESTATUS[0]}"`;
    const child = Bun.spawnSync(["bash", "-c", command]);
    expect(child.stdout.toString()).toMatch(/^# Completions[^\n]*\n0\n$/);
    expect(child.stderr.toString()).toBe("");
  });

  test("tells by its exit code that it could not write", () => {
    const command = `"${BINARY}" --help > /dev/full; echo $?`;
    const child = Bun.spawnSync(["bash", "-c", command]);
    expect(child.stdout.toString()).toBe("1\n");
    expect(child.stderr.toString()).toContain("no space left on the device");
  });

  describe.skipIf(!NAMES.includes("cat"))("with 10 MB to print", () => {
    const BYTES = 10_000_000;
    let location = "";

    beforeAll(() => {
      const layout = join(tempFolder(), "layout");
      const blob = new Uint8Array(BYTES).fill(10);
      const hex = createHash("sha256").update(blob).digest("hex");
      mkdirSync(join(layout, "blobs", "sha256"), { recursive: true });
      writeFileSync(join(layout, "blobs", "sha256", hex), blob);
      writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
      writeFileSync(join(layout, "index.json"), '{"schemaVersion":2,"manifests":[]}');
      location = `${layout}@sha256:${hex}`;
    });

    function shell(rest: string) {
      const command = `"${BINARY}" cat "${location}" --max-document 1GB ${rest}`;
      const child = Bun.spawnSync(["bash", "-c", command]);
      return child.stdout.toString().trim() + child.stderr.toString();
    }

    test("prints all of it down a pipe and into a file", () => {
      expect(shell("| (sleep 0.1; wc -c)")).toBe(`${BYTES}`);
      const file = join(tempFolder(), "out");
      expect(shell(`> "${file}"`)).toBe("");
      expect(statSync(file).size).toBe(BYTES);
    });

    test("ends quietly when its reader has had enough", () => {
      expect(shell('| head -n 1; echo "${PIPESTATUS[0]}"')).toBe("0");
    });

    test.each(["INT", "TERM"])(
      "ends with 130 on SIG%s though its reader does not read",
      async (signal) => {
        const child = Bun.spawn([BINARY, "cat", location, "--max-document=1GB"], {
          stdout: "pipe",
          stderr: "pipe",
        });
        // The first bytes are there, so it runs and is stuck in the full pipe.
        const reader = child.stdout.getReader();
        await reader.read();
        child.kill(`SIG${signal}` as NodeJS.Signals);
        expect(await child.exited).toBe(130);
        expect(await new Response(child.stderr).text()).toBe("cacheport: Interrupted\n");
      },
    );
  });
});
