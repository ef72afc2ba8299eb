/** The page and the Markdown of an explanation. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ExplainedStep, Explanation } from "../src/explain.ts";
import { explainHtml } from "../src/explain-html.ts";
import { explainMarkdown } from "../src/explain-markdown.ts";
import { explainText } from "../src/explain-text.ts";
import { cacheport } from "./helpers/binary.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { HOSTILE_TEXTS } from "./helpers/graph-source.ts";
import { tempFolder } from "./helpers/temp.ts";

// A browser takes its time to start on a busy machine.
setDefaultTimeout(60_000);

const CHROMIUM = ["chromium", "chromium-browser", "google-chrome"].find((name) => Bun.which(name));
const OPTIONS = { all: false, hasWas: true };

/** An explanation in which every text is hostile. */
function hostile(): Explanation {
  const steps = HOSTILE_TEXTS.map((text, at): ExplainedStep => ({
    platform: "linux/amd64",
    id: `step${at}`,
    stage: text,
    name: text,
    file: "Dockerfile",
    line: at + 1,
    endLine: at + 1,
    kind: "exec",
    opDigest: null,
    recordDigest: null,
    records: [],
    cache: null,
    layer: null,
    status: at % 2 === 0 ? "miss" : "maybe",
    was: null,
    seconds: at,
    internal: false,
    inputs: at === 0 ? [] : [`step${at - 1}`],
    lost: null,
    why: [
      {
        kind: "content",
        input: 0,
        context: "context",
        was: null,
        is: "sha256:1",
        proven: false,
        paths: [],
        files: [{ path: text, change: "link", from: text, to: text }],
        total: 1,
      },
    ],
  }));
  const cache = { location: HOSTILE_TEXTS[2]!, digest: "d", shape: "s", records: 1 };
  return {
    schema: 1,
    cache,
    caches: [cache],
    builds: [{ source: HOSTILE_TEXTS[3]!, slsa: "1", platform: "linux/amd64" }],
    summary: {
      steps: steps.length,
      hit: 0,
      miss: 1,
      maybe: 1,
      hitPercent: 0,
      costSeconds: 1,
      savedSeconds: null,
    },
    steps,
    costs: [{ platform: "linux/amd64", step: "step2", line: 3, seconds: 3, steps: 2 }],
    unnamed: [],
    hints: HOSTILE_TEXTS.map((text) => ({ code: "x", steps: [], text })),
  };
}

describe("the page", () => {
  test("needs nothing from elsewhere, and no text ends an element of it", () => {
    const html = explainHtml(hostile(), OPTIONS);
    expect(html).toContain(`content="default-src 'none'; style-src 'unsafe-inline'`);
    expect(html.match(/<script/g)).toHaveLength(2);
    expect(html.match(/<\/script/g)).toHaveLength(2);
    expect(html).not.toMatch(/\/\* (?:style|data|script) \*\//);
    expect(html).not.toMatch(/<(?:img|link|iframe)|url\(|@import/);
  });

  test.skipIf(!CHROMIUM)("shows a box for each step and the reason of the first miss", async () => {
    const file = join(tempFolder(), "page.html");
    const run = await cacheport([
      "explain",
      vector("ci-app", "A", "cache"),
      "--build",
      vector("ci-app", "B-app", "metadata.json"),
      "--context",
      vector("ci-app", "B-app", "context"),
      "--format",
      "html",
      "-o",
      file,
    ]);
    expect(run.code).toBe(0);
    const dom = await dump(file);
    expect(dom.match(/<button type="button" class="step /g)).toHaveLength(9);
    expect(dom.match(/class="step miss root"/g)).toHaveLength(1);
    expect(dom.match(/<h2>(?:base|deps|build|run)<\/h2>/g)).toHaveLength(4);
    expect(dom).toMatch(/<p class="reason miss">1 of 5 files differs<\/p>/);
    expect(dom).toContain("src/app.js");
  });

  test.skipIf(!CHROMIUM)("texts from outside stay texts", async () => {
    const file = join(tempFolder(), "page.html");
    writeFileSync(file, explainHtml(hostile(), OPTIONS));
    const dom = await dump(file);
    expect(dom.match(/<button type="button" class="step /g)).toHaveLength(HOSTILE_TEXTS.length);
    // An attribute may hold such text as it is; an element would follow the end of another one.
    expect(dom).not.toMatch(/>\s*<(?:img|script>alert)/);
  });
});

async function dump(file: string): Promise<string> {
  const browser = Bun.spawn(
    [
      CHROMIUM as string,
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--enable-logging=stderr",
      "--window-size=1500,1000",
      `--user-data-dir=${tempFolder()}`,
      "--dump-dom",
      `file://${file}`,
    ],
    { stdout: "pipe", stderr: "pipe" },
  );
  const [dom, log] = await Promise.all([
    new Response(browser.stdout).text(),
    new Response(browser.stderr).text(),
    browser.exited,
  ]);
  expect(log.split("\n").filter((line) => line.includes("CONSOLE"))).toEqual([]);
  return dom;
}

test("Markdown: a row is a row, and no text is markup", () => {
  const markdown = explainMarkdown(hostile(), OPTIONS);
  const rows = markdown.split("\n").filter((line) => line.startsWith("| "));
  expect(rows).toHaveLength(HOSTILE_TEXTS.length + 2);
  for (const row of rows) expect(row.split("|")).toHaveLength(7);
  expect(markdown.replaceAll(/```[^]*?```/g, "")).not.toMatch(/<script|<img/);
});

test("text: nothing in it can drive a terminal", () => {
  const text = explainText(hostile(), { ...OPTIONS, colors: false, columns: 80 });
  // eslint-disable-next-line no-control-regex
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f\u202e]/);
});

test("--format markdown goes to standard output, with the files below the table", async () => {
  const run = await cacheport([
    "explain",
    vector("ci-app", "A", "cache"),
    "--build",
    vector("ci-app", "B-app", "metadata.json"),
    "--format",
    "markdown",
    "--context",
    vector("ci-app", "B-app", "context"),
  ]);
  expect(run.code).toBe(0);
  expect(run.stdout).toStartWith("### Build cache: 4 of 9 steps cached\n");
  expect(run.stdout).toContain(
    "| 8 | <code>COPY . .</code> | 🔴 **miss** | 1 of 5 files differs |",
  );
  expect(run.stdout).toMatch(/<details>[^]*src\/app\.js  content 4 B -> 5 B[^]*<\/details>/);
});
