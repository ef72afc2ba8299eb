/** Secrets of builds are never shown, other values are cut. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HIDDEN, isSecretName, Redactor } from "../src/explain-redact.ts";
import { cacheport } from "./helpers/binary.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { tempFolder } from "./helpers/temp.ts";

test.each([
  ["NPM_TOKEN", true],
  ["AWS_SECRET_ACCESS_KEY", true],
  ["DB_PASSWORD", true],
  ["DB_PWD", true],
  ["API_KEY", true],
  ["SSH_KEY", true],
  ["GIT_AUTH_HEADER", true],
  ["SENTRY_DSN", true],
  ["GIT_SHA", false],
  ["VERSION", false],
  ["KEYBOARD", false],
  ["GIT_AUTHOR_NAME", false],
  ["PATH", false],
])("isSecretName(%s) is %p", (name, expected) => expect(isSecretName(name)).toBe(expected));

describe("Redactor", () => {
  const redactor = new Redactor([]);

  test.each([
    "curl https://user:hunter22@example.com/x",
    "curl -H 'Authorization: Bearer abcdefgh12345678'",
    "npm config set //r/:_authToken=abcdefgh12345678",
    "login --password hunter22 --password=hunter2222",
    "export API_KEY=hunter2222",
    "git clone https://ghp_abcdefghijklmnop1234@github.com/x",
  ])("no secret of %s", (text) => {
    expect(redactor.text(text)).not.toMatch(/hunter2222|abcdefgh12345678|ghp_abcdef|:hunter22@/);
  });

  test("values are cut, and line feeds do not break the line", () => {
    expect(redactor.value("X", "a".repeat(500)).length).toBeLessThanOrEqual(60);
    expect(redactor.value("X", "a\nb")).toBe("a\\nb");
  });
});

describe("explain", () => {
  /** The builds of ci-app with another variable instead of GIT_SHA. */
  function builds(name: string, was: string, is: string): string[] {
    const folder = tempFolder();
    return [
      ["A", "dev", was],
      ["B-sha", "abc123", is],
    ].map(([build, old, value]) => {
      const text = readFileSync(vector("ci-app", build!, "metadata.json"), "utf8")
        .replaceAll(`GIT_SHA=${old}`, `${name}=${value}`)
        .replaceAll('"build-arg:GIT_SHA": "abc123"', `"build-arg:${name}": "${value}"`);
      const path = join(folder, `${build}.json`);
      writeFileSync(path, text);
      return path;
    });
  }

  test.each(["text", "json", "markdown", "html"])(
    "--format %s names a secret without its value",
    async (format) => {
      const [was, is] = builds("NPM_TOKEN", "s3cretOne", "s3cretTwo");
      const run = await cacheport([
        "explain",
        vector("ci-app", "A", "cache"),
        "--build",
        is!,
        "--was",
        was!,
        "--format",
        format,
        "--all",
      ]);
      expect(run.code).toBe(0);
      expect(run.stdout.replaceAll("&#95;", "_")).toContain("NPM_TOKEN");
      expect(run.stdout).not.toMatch(/s3cret/);
    },
  );

  test("--redact shows no values at all", async () => {
    const args = [
      "explain",
      vector("ci-app", "A", "cache"),
      "--build",
      vector("ci-app", "B-sha", "metadata.json"),
      "--was",
      vector("ci-app", "A", "metadata.json"),
    ];
    const open = await cacheport(args);
    expect(open.stdout).toContain("env GIT_SHA: dev -> abc123 (ENV, line 10)");
    const run = await cacheport([...args, "--redact"]);
    expect(run.stdout).toContain("env GIT_SHA changed");
    expect(run.stdout).not.toContain("abc123");
    expect((await cacheport([...args, "--redact", "--json"])).stdout).not.toContain("abc123");
    expect(HIDDEN).toBe("(hidden)");
  });
});
