/** Predictions and reasons against what BuildKit reported, for every vector. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { cacheport } from "./helpers/binary.ts";
import { vector, VECTOR_CASES, vectorJson } from "./helpers/explain-vectors.ts";

const CASES = [...VECTOR_CASES.map((name) => [name]), ["mode-min", "ci-app"]];

/** The builds of a variant: several files where there are several platforms. */
function buildsOf(folder: string[]): string[] {
  const names =
    folder[0] === "multi-platform"
      ? ["provenance-v0.2.linux-amd64.json", "provenance-v0.2.linux-arm64.json", "metadata.json"]
      : ["metadata.json"];
  const found = names.map((name) => vector(...folder, name)).filter((path) => existsSync(path));
  return found.length > 1 ? found.slice(0, -1) : found;
}

async function explainVariant(folder: string[], name: string, ...more: string[]): Promise<any> {
  const variant = [...folder, `B-${name}`];
  const run = await cacheport([
    "explain",
    vector(...folder, "A", "cache"),
    ...buildsOf(variant).flatMap((path) => ["--build", path]),
    ...buildsOf([...folder, "A"]).flatMap((path) => ["--was", path]),
    "--context",
    vector(...variant, "context"),
    "--json",
    ...more,
  ]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  return run.json();
}

describe.each(CASES)("%s %s", (...parts) => {
  const folder = parts.filter((part) => typeof part === "string");
  const { variants } = vectorJson(...folder, "expected.json");

  for (const variant of variants) {
    if (!existsSync(vector(...folder, `B-${variant.name}`))) continue;
    test(`B-${variant.name}: ${variant.note}`, async () => {
      const explanation = await explainVariant(folder, variant.name);
      for (const expected of variant.steps) {
        const step = explanation.steps.find(
          ({ id, platform }: any) =>
            id === expected.id && (!expected.platform || platform === expected.platform),
        );
        const what = `${expected.id} ${expected.instruction}`;
        expect([what, step?.line ?? null]).toEqual([what, expected.line ?? null]);
        // A certain answer is what BuildKit reported, and is there wherever it can be.
        if (step.status !== "maybe")
          expect([what, step.status]).toEqual([what, expected.cached ? "hit" : "miss"]);
        else expect([what, expected.predicted]).toEqual([what, "maybe"]);
        if (step.status === "hit" || expected.why === null) continue;
        const kinds = step.why.map(({ kind }: any) => kind);
        for (const { kind } of expected.why)
          expect([what, kinds]).toEqual([what, expect.arrayContaining([kind])]);
      }
      checkFiles(explanation, variant);
    });
  }
});

/** Every file that is named differs, and every proven list is whole. */
function checkFiles(explanation: any, { contextChanges }: any): void {
  const changed = new Map(contextChanges.map((one: any) => [one.path, one.change]));
  for (const { why } of explanation.steps)
    for (const { files = [] } of why)
      for (const { path, change } of files) {
        // What .dockerignore leaves out or lets in differs as well.
        if (changed.has(".dockerignore") && !changed.has(path)) continue;
        expect([...changed.keys()]).toContain(path);
        if (changed.get(path) !== "content") expect(change).toBe(changed.get(path) as string);
      }
}

describe("reasons", () => {
  const whyOf = (explanation: any, line: number): any[] =>
    explanation.steps.find((step: any) => step.line === line).why;

  test("an environment variable by its old and new value", async () => {
    const [why] = whyOf(await explainVariant(["ci-app"], "sha"), 11);
    expect(why).toEqual({
      kind: "definition",
      nearest: "step7",
      changes: ["env GIT_SHA: dev -> abc123"],
      fields: [{ field: "env GIT_SHA", was: "dev", is: "abc123", origin: "ENV, line 10" }],
    });
  });

  test("the file that differs, proven by the content key of the record", async () => {
    const [why] = whyOf(await explainVariant(["ci-app"], "app"), 8);
    expect(why).toMatchObject({
      kind: "content",
      context: "context",
      proven: true,
      files: [{ path: "src/app.js", change: "content" }],
      total: 5,
    });
  });

  test("a mode, as octal numbers, with a hint at the umask", async () => {
    const explanation = await explainVariant(["scratch"], "umask");
    const files = explanation.steps.flatMap(({ why }: any) =>
      why.flatMap((reason: any) => reason.files ?? []),
    );
    expect(files).toContainEqual(expect.objectContaining({ change: "mode", from: "644" }));
    expect(explanation.hints.map(({ code }: any) => code)).toContain("mode-only");
  });

  test("a miss has the records of its definition, with the layer that the cache has for it", async () => {
    const explanation = await explainVariant(["ci-app"], "app");
    const step = explanation.steps.find(({ line }: any) => line === 8);
    expect(step.status).toBe("miss");
    expect(step.records).toEqual([0]);
    expect(step.layer).toMatch(/^sha256:a7c1b86c75a4/);
  });

  test("another parent, by the name of the step that it was cached after", async () => {
    const explanation = await explainVariant(["multi-stage"], "reorder");
    const parents = explanation.steps.flatMap(({ why }: any) =>
      why.filter(({ kind }: any) => kind === "parent"),
    );
    expect(parents).toHaveLength(1);
    expect(parents[0].was).toEqual(["WORKDIR /deps (Dockerfile:3)"]);
    expect(parents[0].is).toStartWith("FROM docker.io/library/base:latest");
  });

  test("chmod and user by what people write", async () => {
    const chmod = await explainVariant(["copy-flags"], "chmod");
    expect(whyOf(chmod, 6)[0].changes).toEqual(["chmod: 755 -> 700"]);
    const user = await explainVariant(["run-basic"], "user");
    expect(whyOf(user, 8)[0].changes).toEqual(["user: 1000:1000 -> 1001:1000"]);
  });

  test("a step that only follows says where it all began", async () => {
    const explanation = await explainVariant(["ci-app"], "app");
    expect(whyOf(explanation, 16)).toEqual([
      { kind: "upstream", input: 0, step: "step9", root: ["step6"], contentBased: false },
    ]);
  });
});

test("without --context a step that copies files is no certain miss", async () => {
  const run = await cacheport([
    "explain",
    vector("ci-app", "A", "cache"),
    "--build",
    vector("ci-app", "B-app", "metadata.json"),
  ]);
  expect(run.stdout).toContain("give --context DIR to know");
  expect(run.stdout).not.toContain("MISS");
});
