/** Logins, certificates and the log of requests, as the command line gives them for each side. */
import { describe, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { started } from "./helpers/registry-client.ts";
import { load } from "./helpers/registry-commands.ts";
import { TestRegistry } from "./helpers/test-registry.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const A = { username: "anna", password: "first:Secret" };
const B = { username: "bert", password: "second-Secret" };
const one = await started(TestRegistry.start({ basic: A }));
const two = await started(TestRegistry.start({ basic: B }));
load(one, "team/app", fixture("app-image-manifest"), "main");
const source = `${one.domain}/team/app:main`;

/** Runs on a terminal of its own and types a line once it is asked for. */
async function typed(args: string[], keys: string): Promise<{ code: number; screen: string }> {
  const program = `
import os, pty, sys, select
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
out, sent = b"", False
while True:
    if not select.select([fd], [], [], 20)[0]: break
    try: chunk = os.read(fd, 4096)
    except OSError: break
    if not chunk: break
    out += chunk
    if b"Password" in out and not sent:
        sent = True
        import time; time.sleep(0.2)
        os.write(fd, os.environ["KEYS"].encode().decode("unicode_escape").encode())
sys.stdout.buffer.write(out)
sys.exit(os.waitpid(pid, 0)[1] >> 8)`;
  const child = Bun.spawn(["python3", "-c", program, BINARY, ...args], {
    env: { PATH: process.env["PATH"], HOME: "/nonexistent", KEYS: keys, TERM: "xterm" },
  });
  const screen = await new Response(child.stdout).text();
  return { code: await child.exited, screen };
}

describe("two registries with two logins", () => {
  const copy = (...rest: string[]) =>
    cacheport(["copy", source, `${two.domain}/team/copy:1`, ...rest, "--json"]);

  test("each get their own and never the other's", async () => {
    const run = await copy(
      `--src-creds=${A.username}:${A.password}`,
      `--dest-creds=${B.username}:${B.password}`,
    );
    expect(run.code).toBe(0);
    expect(two.repository("team/copy").tags.get("1")).toBe(run.json().digest);
    const sent = (server: TestRegistry): Set<string> =>
      new Set(
        server.seen.flatMap(({ headers }) =>
          headers["authorization"]
            ? [Buffer.from(headers["authorization"].slice(6), "base64").toString()]
            : [],
        ),
      );
    expect([...sent(one)]).toEqual([`${A.username}:${A.password}`]);
    expect([...sent(two)]).toEqual([`${B.username}:${B.password}`]);
  });

  test.each([
    [["--src-creds", "anna:wrong", "--dest-creds", "bert:second-Secret"], 5],
    [["--src-creds", "anna"], 2],
    [["--src-creds", ":x"], 2],
    [["--src-tls-verify", "maybe"], 2],
  ])("%p is refused", async (args, code) => {
    const run = await copy(...args);
    expect(run.code).toBe(code);
    expect(run.stdout + run.stderr).not.toContain("wrong\n");
  });

  test("a side that is in no registry takes none", async () => {
    const target = join(tempFolder(), "layout");
    const run = await cacheport(["copy", source, target, "--dest-creds", "x:y"]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("--dest-creds");
    expect((await cacheport(["ls", source, "--dest-creds", "x:y"])).code).toBe(2);
  });
});

test("--authfile is looked into before anything else", async () => {
  const file = join(tempFolder(), "auth.json");
  const auth = Buffer.from(`${A.username}:${A.password}`).toString("base64");
  writeFileSync(file, JSON.stringify({ auths: { [one.domain]: { auth } } }));
  const wrong = JSON.stringify({ auths: { [one.domain]: { auth: "eDp5" } } });
  const env = { DOCKER_AUTH_CONFIG: wrong };
  expect((await cacheport(["resolve", source, "--authfile", file], { env })).code).toBe(0);
  expect((await cacheport(["resolve", source], { env })).code).toBe(5);
  const missing = await cacheport(["resolve", source, "--authfile", `${file}x`]);
  expect([missing.code, missing.stdout]).toEqual([2, ""]);
});

test("-v logs what was asked and what came back, and no secret", async () => {
  const creds = `${A.username}:${A.password}`;
  const run = await cacheport(["resolve", source, "-v", "--src-creds", creds]);
  expect(run.code).toBe(0);
  expect(run.stderr).toMatch(
    new RegExp(`^GET http://${one.domain}/v2/team/app/manifests/main -> 200 \\(.*B\\) in `, "m"),
  );
  for (const secret of [A.password, Buffer.from(creds).toString("base64")])
    expect(run.stderr).not.toContain(secret);
  const target = join(tempFolder(), "layout");
  const copied = await cacheport(["copy", source, target, "--verbose", "--src-creds", creds]);
  expect(copied.stderr.match(/blobs\/sha256:/g)?.length).toBeGreaterThan(1);
  expect((await cacheport(["resolve", source, "-vq", "--src-creds", creds])).stderr).toBe("");
});

test("an address in the log keeps no signature", async () => {
  const { addressText } = await import("../src/registry-trace.ts");
  const url = new URL(
    "https://u:p@h.example/x?X-Amz-Signature=s3cr3t&digest=sha256:1&_state=s3cr3t#f",
  );
  expect(addressText(url)).toBe(
    "https://h.example/x?X-Amz-Signature=...&digest=sha256:1&_state=...",
  );
});

test("a proxy that does not answer is blamed, not the registry", async () => {
  for (const variable of ["HTTPS_PROXY", "https_proxy"]) {
    const env = { [variable]: "http://me:s3cr3t@127.0.0.1:9" };
    const run = await cacheport(["ls", "registry.example/app"], { env });
    expect(run.code).toBe(1);
    expect(run.stderr).toContain(`the proxy 127.0.0.1:9 (${variable}) does not answer`);
    expect(run.stderr).not.toContain("s3cr3t");
  }
}, 120_000);

describe.skipIf(Bun.which("python3") === null)("on a terminal", () => {
  test.each([
    [["--src-creds", A.username], `${A.password}x\\x7f\\r`],
    [["--username", A.username, "--password-stdin"], `${A.password}\\n`],
    [["--username", A.username], `oops\\x15${A.password}\\r`],
  ])("%p asks for the password and does not show it", async (args, keys) => {
    const { code, screen } = await typed(["resolve", source, ...args], keys);
    expect(screen).toContain(`Password of ${A.username} at ${one.domain}: `);
    expect(screen).not.toContain("Secret");
    expect(screen).toContain("sha256:");
    expect(code).toBe(0);
  });

  test("an interrupt at the question ends the command", async () => {
    const { code } = await typed(["resolve", source, "--username", "x"], "\\x03");
    expect(code).toBe(130);
  });

  test("what was moved is summed up once", async () => {
    const target = join(tempFolder(), "layout");
    const { screen } = await typed(["copy", fixture("image.tar"), target], "");
    expect(screen.match(/3 copied/g)).toHaveLength(1);
    expect(screen).toMatch(/3 copied, 21\.1 kB in /);
    const piped = await cacheport(["copy", fixture("image.tar"), `${target}2`]);
    expect([piped.stderr, piped.stdout.match(/3 copied/g)?.length]).toEqual(["", 1]);
  });

  test("cat writes documents and no binary content", async () => {
    const layout = fixture("app-image-manifest");
    const { json } = await cacheport(["inspect", layout, "--json"]);
    const layer = await typed(["cat", `${layout}@${json().layers[0].digest}`], "");
    expect(layer.code).toBe(2);
    expect(layer.screen).toContain("binary");
    expect((await typed(["cat", layout], "")).screen).toContain("schemaVersion");
  });
});

test("an interrupt says what has arrived, and the same command goes on from there", async () => {
  const open = await started(TestRegistry.start());
  load(open, "team/app", fixture("app-image-manifest"), "main");
  const { json } = await cacheport(["inspect", fixture("app-image-manifest"), "--json"]);
  const layers: { digest: string; size: number }[] = json().layers;
  const smallest = layers.toSorted((a, b) => a.size - b.size)[0]?.digest as string;
  // The largest goes first, so that all others are there when this one keeps them waiting.
  open.faults.push({ method: "GET", path: new RegExp(smallest), act: () => undefined });
  const target = join(tempFolder(), "layout");
  const command = ["copy", `${open.domain}/team/app:main`, target, "--jobs", "1"];
  const child = Bun.spawn([BINARY, ...command], {
    env: { PATH: process.env["PATH"], HOME: "/nonexistent" },
    stdout: "pipe",
    stderr: "pipe",
  });
  while (!open.seen.some(({ url }) => url.includes(smallest))) await Bun.sleep(10);
  child.kill("SIGINT");
  const said = await new Response(child.stderr).text();
  expect(await child.exited).toBe(130);
  const arrived = Number(/hint: (\d+) blobs \(.*\) are in the target by now/.exec(said)?.[1]);
  expect(arrived).toBe(readdirSync(join(target, "blobs", "sha256")).length);
  const again = await cacheport([...command, "--json"]);
  expect(again.code).toBe(0);
  expect(again.json().blobs.skipped).toBe(arrived);
});

test("an interrupt before anything has arrived promises nothing", async () => {
  const open = await started(TestRegistry.start());
  load(open, "team/app", fixture("app-image-manifest"), "main");
  open.faults.push({ path: /manifests/, act: () => undefined });
  const child = Bun.spawn(
    [BINARY, "copy", `${open.domain}/team/app:main`, join(tempFolder(), "x")],
    {
      env: { PATH: process.env["PATH"], HOME: "/nonexistent" },
      stderr: "pipe",
    },
  );
  while (!open.seen.some(({ url }) => url.includes("manifests"))) await Bun.sleep(10);
  child.kill("SIGINT");
  expect(await new Response(child.stderr).text()).toBe("cacheport: Interrupted\n");
  expect(await child.exited).toBe(130);
});
