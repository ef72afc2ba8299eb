/** The page of `inspect --format html` in a browser: what a person does with it, at each width. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheGraph } from "../src/cache-graph.ts";
import type { Cache } from "../src/cache-layers.ts";
import { pruneCache } from "../src/cache-prune.ts";
import { inspectHtml, inspectImageHtml } from "../src/inspect-html.ts";
import type { PageExtras } from "../src/inspect-html.ts";
import { parseBytes } from "../src/units.ts";
import { cacheport } from "./helpers/binary.ts";
import { Browser, CHROMIUM } from "./helpers/browser.ts";
import type { Screen } from "./helpers/browser.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { cacheOf, fakeDigest, generateCache } from "./helpers/generated-cache.ts";
import { graphSource, HOSTILE_TEXTS, inspectSources } from "./helpers/graph-source.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

// A browser takes its time to start on a busy machine.
setDefaultTimeout(60_000);

const AXE = join(import.meta.dir, "..", "node_modules", "axe-core", "axe.min.js");
const folder = tempFolder();

const DESK: Screen = { width: 1440, height: 1000 };
const PHONE: Screen = { width: 390, height: 844, mobile: true };
const SCREENS = [DESK, { ...DESK, dark: true }, PHONE, { ...PHONE, dark: true }];

function write(cache: Cache, name = "cache:main", extras: PageExtras = { cache }): string {
  const source = graphSource(cache);
  const found = inspectSources(source);
  const file = join(folder, `${Bun.hash(name + JSON.stringify(cache.config))}.html`);
  writeFileSync(file, inspectHtml(cacheGraph([source]), found, name, extras));
  return file;
}

/** The page that the command writes. */
async function inspectPage(...args: string[]): Promise<string> {
  const file = join(folder, `${Bun.hash(args.join("\n"))}.html`);
  const run = await cacheport(["inspect", ...args, "--format", "html", "--output", file]);
  expect(run).toMatchObject({ code: 0 });
  return file;
}

const steps = (): Promise<string> =>
  inspectPage(vector("ci-app", "A", "cache"), "--build", vector("ci-app", "A", "metadata.json"));

describe.skipIf(!CHROMIUM)("the page", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await Browser.start();
  });
  afterAll(async () => {
    await browser?.close();
  });

  const text = (selector: string): Promise<string> =>
    browser.evaluate(`document.querySelector(${JSON.stringify(selector)}).innerText`);
  const setLimit = (step: number): Promise<void> =>
    browser.evaluate(
      `limit.value = ${step}; limit.dispatchEvent(new Event("input", { bubbles: true })); 0`,
    );

  test("names steps and what is in layers, not digests", async () => {
    await browser.open(await steps(), DESK);
    const list = await text("#list .body");
    expect(list).toContain("COPY . . (Dockerfile:8)");
    expect(list).toContain("FROM docker.io/library/base:latest (Dockerfile:1)");
    expect(list).toContain("app/bundle.js");
    expect(list).not.toMatch(/\b[0-9a-f]{12}\b/);
    await browser.evaluate(`document.querySelectorAll("#views button")[2].click()`);
    expect(await text("#list .body")).toContain("RUN --network=none ls -la (Dockerfile:16)");
    expect(browser.console).toEqual([]);
  });

  test("lists the files of a layer that is chosen", async () => {
    const digest = fakeDigest("base");
    const contents = { path: "usr/lib", files: 3 };
    const largest = [
      { path: "usr/lib/big.so", size: 1400, type: "file" as const },
      { path: "<img src=x onerror=alert(1)>\u202e", size: 0, type: "whiteout" as const },
    ];
    const cache = cacheOf({ x: [[], ["base"]], y: [["x"], ["base", "top"]] });
    const file = write(cache, "a b's:c", {
      contents: new Map([[digest, { contents, bytes: 1500, isWhole: false, largest }]]),
    });
    await browser.open(`${file}#layer=${digest}`, DESK);
    expect(await text("#list .body")).toContain("usr/lib, 3 files");
    const detail = await text("#detail");
    expect(detail).toContain("Contents: over 3 files, 1.50 kB");
    expect(detail).toContain("usr/lib/big.so");
    expect(detail).toContain("<img src=x onerror=alert(1)>\\u202e");
    // The name of the cache is one word to a shell.
    expect(detail).toContain(`cacheport inspect 'a b'\\''s:c' --files `);
    expect(await browser.evaluate("document.querySelectorAll('img').length")).toBe(0);
    await browser.open(`${file}#layer=${fakeDigest("top")}`, DESK);
    expect(await text("#detail")).toContain("Not read.");
  });

  test("says at every size what prune says", async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const cache = generateCache(seed, 60);
      // Times that nobody knows, and a blob that the manifest does not list.
      if (seed % 2 === 0)
        for (const { results } of cache.config.records.slice(0, 20))
          for (const result of results) result.createdAt = "";
      if (seed % 3 === 0) cache.layers.splice(4, 1);
      await browser.open(write(cache, `seed-${seed}`), DESK);
      const total = await browser.evaluate("data.totalSize");
      for (let part = 0; part <= 20; part++) {
        const maxSize = Math.floor((total * part) / 20) - (part % 3);
        if (maxSize < 0) continue;
        const pruned = pruneCache(cache, { maxSize, now: 0 });
        const shown = await browser.evaluate(
          `(() => { showLimit(${maxSize}); const { size, kept } = resultsWithin(${maxSize});
            return { size, lost: allResults.length - kept.size,
              layers: kept.size === 0 ? blobs.filter(({ size }) => size !== null)
                .map(({ digest }) => digest).sort() : [...goes.blobs].map(({ digest }) => digest).sort() }; })()`,
        );
        expect({ seed, maxSize, ...shown }).toEqual({
          seed,
          maxSize,
          size: pruned.size,
          lost: pruned.dropped.results,
          layers: pruned.dropped.layers.map(({ digest }) => digest).sort(),
        });
      }
    }
  });

  test("shows with the slider what would go, and the command for it", async () => {
    const cache = generateCache(3, 60);
    await browser.open(write(cache), DESK);
    expect(await text("#went")).toContain("Nothing goes");
    await setLimit(400);
    expect(await text("#went")).toMatch(/would go: \d+ layers? of \d+, \d+ results? of \d+/);
    const [, limit = ""] =
      /cacheport prune cache:main --max-size (\S+) --dry-run/.exec(await text("#went")) ?? [];
    const { dropped } = pruneCache(cache, { maxSize: parseBytes(limit), now: 0 });
    expect(await text("#went")).toContain(`${dropped.layers.length} layer`);
    expect(
      await browser.evaluate("document.querySelectorAll('.tile.goes').length"),
    ).toBeGreaterThan(0);
    await setLimit(1000);
    expect(await browser.evaluate("document.querySelectorAll('.goes').length")).toBe(0);
  });

  test("the command that it shows does what it said", async () => {
    const cache = `${fixture("grown")}:main`;
    await browser.open(await inspectPage(cache), DESK);
    for (const step of [0, 1, 15, 990]) {
      await setLimit(step);
      const [, limit = "0"] = /--max-size (\S+)/.exec(await text("#went")) ?? [];
      const run = await cacheport(["prune", cache, "--max-size", limit, "--dry-run", "--json"]);
      expect(run.code).toBe(0);
      const { dropped } = JSON.parse(run.stdout);
      if (dropped.results === 0) {
        expect(await text("#went")).toContain("prune would leave the cache as it is");
        continue;
      }
      expect({ limit, text: await text("#went") }).toEqual({
        limit,
        text: expect.stringMatching(
          new RegExp(`${dropped.layers.length} layers? of 8, ${dropped.results} results? of 7[.]`),
        ),
      });
    }
  });

  test("shows no slider for a cache that prune would refuse", async () => {
    const cache = cacheOf({ x: [[], ["base"]] });
    cache.config.layers.push({ blob: fakeDigest("loop"), parent: 7 });
    await browser.open(write(cache), DESK);
    expect(await browser.evaluate("prune.hidden")).toBe(true);
  });

  test("copies digests, and explains its words where they are pointed at", async () => {
    await browser.open(await steps(), DESK);
    // What it says for a moment is written down: the machine may be slow to look.
    await browser.evaluate(
      `window.said = []; new MutationObserver(() => said.push(document.querySelector("#identity .copy").textContent))
        .observe(document.querySelector("#identity .copy"), { childList: true, characterData: true, subtree: true });
       window.copied = ""; document.addEventListener("copy", () => { copied = String(getSelection()); });
       navigator.clipboard.writeText = async (text) => { copied = text; }; 0`,
    );
    await browser.tap("#identity .copy");
    await browser.until(`said.includes("Copied")`);
    expect(await browser.evaluate("copied")).toBe(await browser.evaluate("data.digest"));
    await browser.until(`document.querySelector("#identity .copy").textContent === "Copy"`);
    // Without that clipboard it copies as pages have always done.
    await browser.evaluate(
      `navigator.clipboard.writeText = () => Promise.reject(new Error("denied"));
       said.length = 0; document.execCommand = (command) => {
         copied = command + " " + document.activeElement.value; return true; }; 0`,
    );
    await browser.tap("#identity .copy");
    await browser.until(`said.includes("Copied")`);
    expect(await browser.evaluate(`copied === "copy " + data.digest`)).toBe(true);
    for (const [at, word] of [
      [2, /Cache keys/],
      [3, /What steps made/],
    ] as const) {
      await browser.evaluate(`document.querySelectorAll("#facts .term")[${at}].focus()`);
      expect(await text("#tip")).toMatch(word);
    }
    for (const [title, word] of [
      ["Depth", /How many layers lie below/],
      ["Places", /In how many chains/],
    ] as const) {
      await browser.evaluate(
        `[...document.querySelectorAll("#list .head button")].find((each) => each.textContent === "${title}").focus()`,
      );
      expect(await text("#tip")).toMatch(word);
    }
    await browser.press("Escape");
    expect(await browser.evaluate("tip.hidden")).toBe(true);
  });

  test("on a phone the head moves with its columns, and a tap opens a sheet", async () => {
    await browser.open(await steps(), PHONE);
    const lefts = (): Promise<number[]> =>
      browser.evaluate(
        `[".head > :nth-child(3)", ".row > :nth-child(3)"].map((each) =>
          document.querySelector("#list " + each).getBoundingClientRect().right)`,
      );
    await browser.evaluate("list.scrollLeft = 200");
    const [head, cell] = await lefts();
    expect(await browser.evaluate("list.scrollLeft")).toBe(200);
    expect(head).toBe(cell as number);
    // The page itself does not move sideways.
    expect(await browser.evaluate("document.documentElement.scrollWidth")).toBe(390);
    await browser.evaluate("list.scrollLeft = 0");
    await browser.tap("#row-1 > :first-child");
    await browser.until(`detail.classList.contains("chosen")`);
    const sheet = await browser.evaluate(
      `(({ top, bottom, width }) => ({ top, bottom, width, at: getComputedStyle(detail).position }))(detail.getBoundingClientRect())`,
    );
    expect(sheet).toMatchObject({ bottom: 844, width: 390, at: "fixed" });
    expect(sheet.top).toBeGreaterThan(200);
    expect(await text("#detail h2")).toContain("COPY . . (Dockerfile:8)");
    await browser.tap("#detail .close");
    await browser.until(`!detail.classList.contains("chosen")`);
    expect(await browser.evaluate("getComputedStyle(detail).position")).toBe("static");
  });

  test.skipIf(!existsSync(AXE))(
    "has no finding of axe that is serious, anywhere",
    async () => {
      const axe = readFileSync(AXE, "utf8");
      const hostile = cacheOf({ x: [[], ["base"]] });
      hostile.config.records.push(
        ...HOSTILE_TEXTS.map((digest) => ({ digest, results: [], chains: [], inputs: [] })),
      );
      const pages = [
        await steps(),
        await inspectPage(fixture("image-dir")),
        write(generateCache(5, 300)),
        write(hostile),
        write({ config: { layers: [], records: [] }, layers: [] }),
      ];
      for (const page of pages)
        for (const screen of SCREENS) {
          await browser.open(page, screen);
          await browser.evaluate(`${axe};0`);
          const states = [
            "0",
            `document.querySelector("#row-0")?.click(); limit.value = 300;
           limit.dispatchEvent(new Event("input"))`,
            `byId("search").value = "a1"; byId("search").dispatchEvent(new Event("input"));
           document.querySelector(".term").focus()`,
          ];
          for (const state of states) {
            await browser.evaluate(`${state}; 0`);
            if (state.includes("click"))
              await browser.until(
                `!document.querySelector("#row-0") || document.querySelector("#detail.chosen") !== null`,
              );
            const found = await browser.evaluate(
              `axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
              violations.filter(({ impact }) => impact === "serious" || impact === "critical")
                .map(({ id, nodes }) => [id, nodes[0].target.join(" "), nodes[0].failureSummary]))`,
            );
            expect({ page, screen, state, found }).toEqual({ page, screen, state, found: [] });
          }
        }
    },
    240_000,
  );

  test("the list is walked with keys, and Escape lets go of what was chosen", async () => {
    await browser.open(await steps(), DESK);
    await browser.evaluate("list.focus()");
    for (const key of ["ArrowDown", "ArrowDown", "ArrowUp", "Enter"]) await browser.press(key);
    await browser.until(`detail.classList.contains("chosen")`);
    expect(await text("#detail h2")).toContain("COPY . . (Dockerfile:8)");
    expect(await browser.evaluate(`list.getAttribute("aria-activedescendant")`)).toBe("row-1");
    await browser.press("Escape");
    await browser.until(`!detail.classList.contains("chosen")`);
    expect(await browser.evaluate("location.hash")).toBe("");
  });

  test("whatever the age of a layer, its text has a contrast of 4.5 to 1", async () => {
    for (const dark of [false, true]) {
      await browser.open(write(generateCache(5, 10)), { ...DESK, dark });
      // The browser mixes and draws the colours; their luminance is that of WCAG 2.2.
      const least = await browser.evaluate(`(() => {
        const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const probe = document.body.appendChild(document.createElement("i"));
        const luminance = (colour) => {
          probe.style.color = colour;
          context.fillStyle = getComputedStyle(probe).color;
          context.fillRect(0, 0, 1, 1);
          const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) =>
            value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const ink = luminance("var(--ink)");
        const mixes = Array.from({ length: 101 }, (_, part) =>
          ratio(ink, luminance("color-mix(in oklab, var(--new) " + part + "%, var(--old))")));
        const texts = ["--muted", "--bad", "--ink"].flatMap((text) => ["--paper", "--panel"].map((on) =>
          ratio(luminance("var(" + text + ")"), luminance("var(" + on + ")"))));
        return Math.min(...mixes, ...texts);
      })()`);
      expect(least).toBeGreaterThanOrEqual(4.5);
    }
  });

  test("prints all rows, light, without what only a screen can do", async () => {
    const cache = generateCache(5, 400);
    await browser.open(write(cache), { ...DESK, dark: true });
    const inSight = await browser.evaluate("document.querySelectorAll('#list .row').length");
    await browser.evaluate(`dispatchEvent(new Event("beforeprint"))`);
    await browser.send("Emulation.setEmulatedMedia", { media: "print", features: [] });
    const rows = await browser.evaluate("document.querySelectorAll('#list .row').length");
    expect(rows).toBe(new Set(cache.layers.map(({ digest }) => digest)).size);
    expect(rows).toBeGreaterThan(inSight);
    expect(
      await browser.evaluate(
        `["#search", "#limit", ".copy"].map((each) => getComputedStyle(document.querySelector(each)).display)`,
      ),
    ).toEqual(["none", "none", "none"]);
    expect(await browser.evaluate("getComputedStyle(document.body).backgroundColor")).toBe(
      "rgb(255, 255, 255)",
    );
    await browser.send("Emulation.setEmulatedMedia", { media: "", features: [] });
    await browser.evaluate(`dispatchEvent(new Event("afterprint"))`);
    expect(await browser.evaluate("document.querySelectorAll('#list .row').length")).toBeLessThan(
      rows,
    );
  });
});

describe.skipIf(!CHROMIUM)("the page of an image", () => {
  test("has its config, its history and its layers", async () => {
    const browser = await Browser.start();
    try {
      await browser.open(await inspectPage(fixture("image-dir")), DESK);
      const shown = await browser.evaluate("document.body.innerText");
      for (const each of [
        "Image",
        "linux/amd64",
        "PATH=/usr/local/sbin",
        "COPY /out.bin /out.bin",
        "layer cec9f0ed6d51, 20.3 kB",
        "out.bin",
      ])
        expect(shown).toContain(each);
      expect(shown).not.toMatch(/What would go|Records/);
      expect(browser.console).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});

describe.skipIf(!CHROMIUM)("texts of an image", () => {
  test("stay texts", async () => {
    const browser = await Browser.start();
    try {
      const digest = fakeDigest("image");
      const descriptor = { mediaType: "x", digest, size: 1 };
      const html = inspectImageHtml(
        {
          kind: "image",
          manifest: descriptor,
          config: descriptor,
          platform: { os: "<b>", architecture: HOSTILE_TEXTS[2] as string },
          created: "<script>",
          layers: HOSTILE_TEXTS.map((createdBy, at) => ({
            digest: fakeDigest(`${at}`),
            size: at,
            mediaType: createdBy,
            diffId: createdBy,
            createdBy,
          })),
          history: HOSTILE_TEXTS.map((createdBy) => ({
            createdBy,
            comment: createdBy,
            created: createdBy,
            emptyLayer: false,
          })),
          totalSize: 9,
          inlineCache: false,
        },
        [["<i>", [...HOSTILE_TEXTS, "<img src=x onerror=alert(1)>"]]],
        "</title><script>alert(1)</script>",
      );
      const file = join(folder, "hostile-image.html");
      writeFileSync(file, html);
      await browser.open(`${file}#layer=${fakeDigest("2")}`, DESK);
      expect(html.match(/<script/g)).toHaveLength(2);
      expect(
        await browser.evaluate(`document.querySelectorAll("img, b > *, script:not([id])").length`),
      ).toBe(1);
      expect(await browser.evaluate("document.body.innerText")).toContain(
        "<img src=x onerror=alert(1)>",
      );
      expect(await browser.evaluate("document.body.textContent")).toContain("\\u202e");
      expect(browser.console).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});

test("the page of an index of images asks for one of them", async () => {
  const run = await cacheport(["inspect", fixture("multi-image"), "--format", "html"]);
  expect(run.code).not.toBe(0);
  expect(run.stderr).toContain("hint: Choose one of its images with --platform");
  const one = await cacheport([
    "inspect",
    fixture("multi-image"),
    "--platform",
    "linux/arm64",
    "--format",
    "html",
  ]);
  expect(one.code).toBe(0);
  expect(one.stdout).toContain('"kind":"image"');
});

test("layers in a registry are not downloaded for a page, and listed where a folder has them", async () => {
  const registry = await TestRegistry.start();
  try {
    const there = `${registry.domain}/app/cache:main`;
    expect(await cacheport(["copy", `${fixture("grown")}:main`, there])).toMatchObject({ code: 0 });
    registry.seen.length = 0;
    const far = await cacheport(["inspect", there, "--format", "html"]);
    expect(far.code).toBe(0);
    expect(far.stdout).toContain('"files":{}');
    // The manifest and the cache config, and no layer.
    expect(registry.requests("GET", /\/blobs\//)).toHaveLength(1);
    const near = await cacheport(["inspect", `${fixture("grown")}:main`, "--format", "html"]);
    expect(near.stdout).not.toContain('"files":{}');
  } finally {
    registry.stop();
  }
});
