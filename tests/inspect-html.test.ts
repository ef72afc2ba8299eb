import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheGraph } from "../src/cache-graph.ts";
import type { GraphSource } from "../src/cache-graph.ts";
import type { Cache } from "../src/cache-layers.ts";
import { inspectHtml, pageData } from "../src/inspect-html.ts";
import { CHROMIUM } from "./helpers/browser.ts";
import { cacheOf, fakeDigest, generateCache } from "./helpers/generated-cache.ts";
import { graphSource, HOSTILE_TEXTS, inspectSources } from "./helpers/graph-source.ts";
import { tempFolder } from "./helpers/temp.ts";

// A browser takes its time to start on a busy machine.
setDefaultTimeout(60_000);

function inspected(cache: Cache, ...more: GraphSource[]) {
  const source = graphSource(cache);
  return { graph: cacheGraph([source, ...more]), found: inspectSources(source, ...more) };
}

function page(cache: Cache, name = "registry.example/app:main"): string {
  const { graph, found } = inspected(cache);
  return inspectHtml(graph, found, name);
}

/** The data as the page's script reads it. */
function embedded(html: string): ReturnType<typeof pageData> {
  const [, json = ""] =
    /<script id="data" type="application\/json">([^]*?)<\/script>/.exec(html) ?? [];
  return JSON.parse(json);
}

const hostile = (): Cache => ({
  config: {
    layers: [{ blob: fakeDigest("x"), parent: -1 }],
    records: HOSTILE_TEXTS.map((text, at) => ({
      digest: text,
      results: [{ layer: 0, createdAt: "2026-01-01T00:00:00Z" }],
      chains: [],
      inputs: at === 0 ? [] : [[{ selector: text, link: at - 1 }]],
    })),
  },
  layers: [
    {
      digest: fakeDigest("x"),
      size: 9,
      mediaType: "</script><img src=x onerror=alert(1)>",
      annotations: { "containerd.io/uncompressed": "<b>" },
    },
  ],
});

describe("inspectHtml()", () => {
  test("the page needs nothing from elsewhere and says so to the browser", () => {
    const html = page(generateCache(1, 50));
    expect(html).toContain(
      `content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"`,
    );
    expect(html).not.toMatch(/\b(?:src|href)="|url\(|@import|https?:/);
    expect(html).not.toMatch(/\/\* (?:style|data|script) \*\//);
  });

  test("texts from outside end no element, and reach the script as they are", () => {
    const html = page(hostile(), "</title><script>alert(1)</script>$&");
    expect(html.match(/<script/g)).toHaveLength(2);
    expect(html.match(/<\/script/g)).toHaveLength(2);
    expect(html).not.toContain("<!--");
    const data = embedded(html);
    expect(data.name).toBe("</title><script>alert(1)</script>$&");
    expect(data.records.map(([digest]) => digest)).toEqual([...HOSTILE_TEXTS]);
  });

  test("the parts of the script make one that can be parsed", () => {
    const html = page(generateCache(1, 5));
    const script = html.slice(
      html.lastIndexOf("<script>") + "<script>".length,
      html.lastIndexOf("</script>"),
    );
    expect(script).not.toMatch(/^(?:import|export) /m);
    // A name that two parts declare is an error here already.
    expect(() => new Function(script)).not.toThrow();
  });

  test("the same cache gives the same page", () => {
    expect(page(generateCache(2, 80))).toBe(page(generateCache(2, 80)));
  });
});

describe("pageData()", () => {
  test("blobs once, places as often as they stand somewhere", () => {
    const { graph, found } = inspected(
      cacheOf({ x: [[], ["twice"]], y: [["x/sel"], ["base", "twice"], 90] }),
      graphSource(cacheOf({ z: [[], ["base"]] }), {
        os: "linux",
        architecture: "arm64",
      }),
    );
    const data = pageData(graph, found, "name");
    expect(data.blobs.map(([digest]) => digest)).toEqual([fakeDigest("twice"), fakeDigest("base")]);
    expect(data.places).toEqual([
      [0, -1, 0],
      [1, -1, 0],
      [0, 1, 0],
      [1, -1, 1],
    ]);
    expect(data.links).toEqual([0, 1, 0, 0]);
    expect(data.selectors).toEqual(["sel"]);
    expect(data.caches).toEqual([expect.any(String), "linux/arm64"]);
    expect(data.records[1]).toEqual(["y", 0, [[2, Date.parse("2026-01-01T00:01:30Z")]]]);
  });

  test("20,000 records take some megabytes", () => {
    const { graph, found } = inspected(generateCache(9, 20_000));
    expect(inspectHtml(graph, found, "big").length).toBeLessThan(10_000_000);
  });
});

const folder = tempFolder();
let pages = 0;

/**
 * Opens a page in the browser and gives what its script has made of it; there must
 * be nothing on the console, where errors of the script and of the policy are told.
 */
async function dump(html: string, hash = ""): Promise<string> {
  const file = join(folder, `${pages++}.html`);
  writeFileSync(file, html);
  const browser = Bun.spawn(
    [
      CHROMIUM as string,
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--enable-logging=stderr",
      "--virtual-time-budget=1000",
      "--window-size=1400,1000",
      `--user-data-dir=${folder}/profile`,
      "--dump-dom",
      `file://${file}${hash}`,
    ],
    { stdout: "pipe", stderr: "pipe" },
  );
  const [dom, log] = await Promise.all([
    new Response(browser.stdout).text(),
    new Response(browser.stderr).text(),
    browser.exited,
  ]);
  expect(log.split("\n").filter((line) => line.includes("CONSOLE"))).toEqual([]);
  // Without the page's own source.
  return dom.replaceAll(/<(script|style)[^]*?<\/\1>/g, "");
}

/** What is told of the selection. */
function detailOf(dom: string): string {
  return /<section id="detail"[^]*?>([^]*?)<\/section>/.exec(dom)?.[1] ?? "";
}

describe.skipIf(!CHROMIUM)("the page in a browser", () => {
  const cache = cacheOf({
    source: [[], ["base"], 0],
    build: [["source/sel"], ["base", "modules"], 86_400],
    test: [["build"], ["base", "modules", "report"], 172_800],
  });
  const digest = fakeDigest("modules");
  const count = (dom: string, pattern: RegExp): number => dom.match(pattern)?.length ?? 0;

  test("a tile and a row for each layer, facts, a bar for each span", async () => {
    const dom = await dump(page(cache));
    expect(dom).toContain('<h1 id="name">registry.example/app:main</h1>');
    expect(dom).toMatch(/>Layers<\/button><\/dt><dd>3<\/dd>/);
    expect(dom).toMatch(/>Records<\/button><\/dt><dd>3<\/dd>/);
    expect(count(dom, /<button class="tile/g)).toBe(3);
    expect(count(dom, /role="row" class="row/g)).toBe(3);
    expect(count(dom, /<i title="/g)).toBeGreaterThan(1);
    expect(dom).toContain("Choose a layer or a record");
  });

  test("a layer that is chosen shows its records and its chain", async () => {
    const dom = await dump(page(cache), `#layer=${digest.slice(7, 15)}`);
    const detail = detailOf(dom);
    expect(detail).toContain(digest);
    expect(detail).toMatch(/Records with a result here<\/h3>[^]*href="#record=1"[^>]*>build</);
    expect(detail).toContain("Chain of 2 layers");
    expect(detail).toContain(`href="#layer=${fakeDigest("base")}"`);
    expect(detail).toMatch(new RegExp(`Layers on top of it<[^]*${fakeDigest("report")}`));
    expect(count(dom, /class="tile[^>]*aria-pressed="true"/g)).toBe(1);
    expect(count(dom, /role="row"[^>]*aria-selected="true"/g)).toBe(1);
  });

  test("a record that is chosen shows what it takes and what takes it", async () => {
    const dom = await dump(page(cache), "#record=1");
    const detail = detailOf(dom);
    expect(detail).toMatch(/Takes the results of<\/h3>[^]*href="#record=0"[^]*sel/);
    expect(detail).toMatch(/Is taken by<\/h3>[^]*href="#record=2"/);
  });

  test("texts from outside stay texts", async () => {
    const dom = await dump(page(hostile(), "</title><script>alert(1)</script>"), "#record=2");
    expect(dom).toContain('<h1 id="name">&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;</h1>');
    expect(dom).toContain("&lt;/script&gt;&lt;script&gt;alert(1)");
    expect(dom).not.toContain("<img");
    expect(dom).not.toContain("\u202e");
  });

  test("an empty cache, and one of 20,000 records", async () => {
    expect(await dump(page({ config: { layers: [], records: [] }, layers: [] }))).toContain(
      "No layers",
    );
    const dom = await dump(page(generateCache(9, 20_000)));
    expect(dom).toMatch(/>Records<\/button><\/dt><dd>20,000<\/dd>/);
    expect(count(dom, /role="row" class="row/g)).toBeLessThan(100);
  });

  test("nonsense in the address chooses nothing", async () => {
    for (const hash of ["#record=99", "#layer=%E0%A4%A"])
      expect(await dump(page(cache), hash)).toContain("Choose a layer");
  });
});
