/** What goes wrong at a registry, through the binary. */
import { beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { BINARY } from "./helpers/binary.ts";
import { started } from "./helpers/registry-client.ts";
import { ask, load } from "./helpers/registry-commands.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";
import type { TestServer } from "./helpers/test-registry.ts";

const REPO = "team/cache";

let open: TestRegistry;
beforeAll(async () => {
  open = await started(TestRegistry.start());
  load(open, REPO, fixture("app-oci-index"), "main");
});
const at = ({ domain }: TestServer): string => `${domain}/${REPO}`;

const answer = (status: number, code: string, message: string) => ({
  status,
  body: JSON.stringify({ errors: [{ code, message }] }),
});

test("a registry that is not there", async () => {
  const gone = await TestRegistry.start();
  const { domain } = gone;
  gone.stop();
  const run = await ask(gone, ["ls", `${domain}/${REPO}`, "--json"]);
  expect(run.code).toBe(1);
  expect(run.json().error).toMatchObject({
    code: "REGISTRY_FAILED",
    message: `Cannot reach registry "${domain}": the connection was refused`,
  });
});

test.each([
  ["resolve", "team/none:x", "NAME_NOT_FOUND", "no such repository"],
  ["copy", "team/none", "NAME_NOT_FOUND", "no such repository"],
  ["ls", "team/none", "LOCATION_NOT_FOUND", "no such repository"],
  ["resolve", `${REPO}:none`, "NAME_NOT_FOUND", "does not have it"],
  ["convert", `${REPO}:none`, "NAME_NOT_FOUND", "does not have it"],
  ["untag", `${REPO}:none`, "NAME_NOT_FOUND", "does not have it"],
  ["cat", `${REPO}@sha256:${"0".repeat(64)}`, "BLOB_NOT_FOUND", "does not have it"],
])("%s %s is %s", async (command, name, code, text) => {
  const more = command === "copy" ? [join(tempFolder(), "x")] : [];
  const source = `${open.domain}/${name}`;
  const run = await ask(open, [command, source, ...more, "--json"]);
  expect(run.code).toBe(3);
  const { error } = run.json();
  expect([error.code, error.message]).toEqual([code, expect.stringContaining(text)]);
  if (name.startsWith(`${REPO}:`)) expect(error.hint).toStartWith("The tags there are: main");
  expect(run.writes).toEqual([]);
});

test("a manifest over the limit", async () => {
  const layers = Array.from({ length: 40_000 }, (_, size) => ({
    mediaType: "x/y",
    size,
    digest: `sha256:${"0".repeat(64)}`,
  }));
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  open.addManifest(REPO, { schemaVersion: 2, mediaType, layers }, "huge");
  const name = `${at(open)}:huge`;
  for (const command of ["resolve", "inspect", "convert", "cat"]) {
    const run = await ask(open, [command, name, "--json"]);
    expect(run.code).toBe(4);
    expect(run.json().error).toEqual({
      code: "DOCUMENT_TOO_LARGE",
      message: `Cannot read "${name}": it has more than 4194304 bytes`,
      hint: "Raise the limit with --max-document if you trust where it comes from",
    });
  }
  const raised = ["resolve", name, "--max-document", "16MiB"];
  expect((await ask(open, raised)).code).toBe(0);
  const listed = await ask(open, ["ls", at(open), "--json"]);
  expect(listed.code).toBe(0);
  const entry = listed.json().find((one: any) => one.refName === "huge");
  expect(entry.problem).toContain("4194304");
  open.repository(REPO).tags.delete("huge");
});

test("a digest header that lies", async () => {
  open.faults.push({
    method: "GET",
    path: /manifests\/main/,
    answer: {
      status: 200,
      headers: { "docker-content-digest": `sha256:${"1".repeat(64)}` },
      body: "{}",
    },
  });
  const run = await ask(open, ["resolve", `${at(open)}:main`, "--json"]);
  expect(run.code).toBe(4);
  expect(run.json().error.code).toBe("DIGEST_MISMATCH");
});

test.each([
  [
    "POST",
    answer(404, "NAME_UNKNOWN", "The repository does not exist"),
    [3, "LOCATION_NOT_FOUND", "Create the repository first"],
  ],
  [
    "PUT",
    answer(400, "TAG_INVALID", "tag main exists and is immutable"),
    [5, "REGISTRY_REJECTED", "Choose another tag"],
  ],
  [
    "PUT",
    answer(403, "DENIED", "would exceed the storage quota"),
    [5, "NO_SPACE", "ask for a larger quota"],
  ],
  [
    "PUT",
    answer(403, "DENIED", "requested access is denied"),
    [5, "REGISTRY_DENIED", "Log in with docker login"],
  ],
] as const)("%s refused with %j", async (method, reply, expected) => {
  const target = `team/refused-${crypto.randomUUID()}`;
  const path = method === "PUT" ? /manifests/ : /uploads/;
  open.faults.push({ method, path, times: 9, answer: reply });
  const source = fixture("app-image-manifest");
  const name = `${open.domain}/${target}:main`;
  const run = await ask(open, ["copy", source, name, "--json"]);
  open.faults.length = 0;
  const { code, hint } = run.json().error;
  expect([run.code, code, hint]).toEqual([
    ...expected.slice(0, 2),
    expect.stringContaining(expected[2]),
  ]);
  expect(open.repository(target).tags.size).toBe(0);
});

test.each(["SIGINT", "SIGTERM"] as const)(
  "%s in the middle of an upload ends it with 130 and nothing tagged",
  async (signal) => {
    const target = `team/stopped-${signal.toLowerCase()}`;
    const waiting = Promise.withResolvers<void>();
    // The registry has the bytes and does not answer.
    open.faults.push({
      method: "PUT",
      path: /uploads/,
      times: 99,
      act: () => waiting.resolve(),
    });
    const child = Bun.spawn(
      [
        BINARY,
        "copy",
        fixture("app-image-manifest"),
        `${open.domain}/${target}:x`,
        "--json",
        "--progress=none",
      ],
      {
        env: { HOME: "/nonexistent" },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    await waiting.promise;
    child.kill(signal);
    expect(await child.exited).toBe(130);
    open.faults.length = 0;
    expect(await new Response(child.stdout).text()).toBe("");
    const told = await new Response(child.stderr).text();
    expect(told).toBe("cacheport: Interrupted\n");
    expect(open.repository(target).tags.size).toBe(0);
    expect(open.requests("PUT", new RegExp(`${target}/manifests`))).toEqual([]);
  },
);
