/** `cacheport inspect --format dot|mermaid`: a part of the graph, a legend, and where it is too much. */
import { describe, expect, test } from "bun:test";
import { cacheGraph } from "../src/cache-graph.ts";
import { encodeCacheConfig } from "../src/cache-config.ts";
import { CACHE_CONFIG, OCI_MANIFEST } from "../src/media-types.ts";
import { passedColumns } from "../src/inspect-dot.ts";
import { graphPart } from "../src/inspect-part.ts";
import { cacheport } from "./helpers/binary.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { cacheOf, generateCache } from "./helpers/generated-cache.ts";
import { graphSource, HOSTILE_TEXTS } from "./helpers/graph-source.ts";
import { addBlob, writeLayout } from "./helpers/layout.ts";
import { tempFolder } from "./helpers/temp.ts";

const NO_NAMES = { labels: [], builds: [] };

/** `a` and `x` are apart from each other; `d` takes `c` and `b`, which takes `a`. */
const CACHE = cacheOf({
  d: [
    ["c", "b/sel"],
    ["base", "b", "d"],
  ],
  x: [["y"], ["other"]],
  c: [[]],
  b: [["a"], ["base", "b"]],
  a: [[], ["base"]],
  y: [[]],
});
const GRAPH = cacheGraph([graphSource(CACHE)]);

const digests = (graph: ReturnType<typeof cacheGraph>): string[] =>
  graph.records.map(({ digest }) => digest);

/** The cache in a layout, as `inspect` reads it. */
function layoutOf({ config, layers }: ReturnType<typeof generateCache>): string {
  const folder = tempFolder();
  writeLayout(folder, []);
  const blob = addBlob(folder, encodeCacheConfig(config), CACHE_CONFIG);
  const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: blob, layers };
  writeLayout(folder, [addBlob(folder, document, OCI_MANIFEST)]);
  return folder;
}

describe("graphPart()", () => {
  test("a root leaves what leads to it, and the layers of that", () => {
    const part = graphPart(GRAPH, { root: "b" }, NO_NAMES);
    expect(digests(part)).toEqual(["b", "a"]);
    expect(part.links).toEqual([{ from: 1, to: 0, input: 0, selector: "" }]);
    expect(part.layers).toHaveLength(2);
    for (const [at, { results }] of part.records.entries())
      for (const { layer } of results)
        expect(part.layers[layer]?.digest).toBe(
          GRAPH.layers[GRAPH.records[at === 0 ? 3 : 4]?.results[0]?.layer as number]?.digest as any,
        );
  });

  test.each([
    [0, ["d"]],
    [1, ["d", "c", "b"]],
    [2, ["d", "c", "b", "a"]],
    [9, ["d", "c", "b", "a"]],
  ])("depth %d goes back so many links", (depth, kept) => {
    const part = graphPart(GRAPH, { root: "d", depth }, NO_NAMES);
    expect(digests(part)).toEqual(kept);
    // What stands below the layer of a kept result stays in sight.
    expect(part.layers).toHaveLength(3);
  });

  test("a layer stands for the records whose results it is on top of", () => {
    const top = GRAPH.layers[GRAPH.records[3]?.results[0]?.layer as number]?.digest as string;
    expect(digests(graphPart(GRAPH, { root: top.slice(7, 20) }, NO_NAMES))).toEqual(["b", "a"]);
  });

  test("layers alone, of all or of what leads to the root", () => {
    const all = graphPart(GRAPH, { layersOnly: true }, NO_NAMES);
    expect([all.records, all.links, all.layers.length]).toEqual([[], [], GRAPH.layers.length]);
    const some = graphPart(GRAPH, { root: "b", layersOnly: true }, NO_NAMES);
    expect([some.records, some.links, some.layers.length]).toEqual([[], [], 2]);
  });

  test("links in a circle come to an end", () => {
    const config = {
      layers: [],
      records: ["p", "q"].map((digest, at) => ({
        digest,
        results: [],
        chains: [],
        inputs: [[{ selector: "", link: 1 - at }]],
      })),
    };
    const circle = cacheGraph([graphSource({ config, layers: [] })]);
    expect(digests(graphPart(circle, { root: "p" }, NO_NAMES))).toEqual(["p", "q"]);
    expect(passedColumns(circle)).toBe(2);
  });

  test("of several caches only those stay of which something is drawn", () => {
    const other = cacheOf({ only: [[], ["alone"]] });
    const two = cacheGraph([graphSource(CACHE), graphSource(other)]);
    const part = graphPart(two, { root: "only" }, NO_NAMES);
    expect(part.caches).toHaveLength(1);
    expect(part.records.map(({ cache }) => cache)).toEqual([0]);
    expect(part.layers.map(({ cache, parent }) => [cache, parent])).toEqual([[0, null]]);
  });

  test.each([
    ["nowhere", "NAME_NOT_FOUND"],
    ["", "NAME_NOT_FOUND"],
    ["sha256:", "NAME_AMBIGUOUS"],
    ["12", "USAGE"],
    ["Dockerfile:12", "USAGE"],
  ])("the root %p is refused", (root, code) => {
    expect(() => graphPart(GRAPH, { root }, NO_NAMES)).toThrow(expect.objectContaining({ code }));
  });

  test("a hostile root is shown in plain characters", () => {
    for (const root of HOSTILE_TEXTS)
      try {
        graphPart(GRAPH, { root: `${root}!` }, NO_NAMES);
        expect.unreachable();
      } catch (error) {
        // oxlint-disable-next-line no-control-regex
        expect((error as Error).message).not.toMatch(/[\x00-\x1f\u202e]/);
      }
  });
});

test("passedColumns() counts what lines pass, not lines alone", () => {
  const chain = { a: [[]], b: [["a"]], c: [["b"]] } satisfies Parameters<typeof cacheOf>[0];
  const columns = (steps: Parameters<typeof cacheOf>[0]): number =>
    passedColumns(cacheGraph([graphSource(cacheOf(steps))]));
  expect(columns(chain)).toBe(2);
  expect(columns({ ...chain, d: [["c", "a"]] })).toBe(2 + 1 + 3);
  // A record's line to its layer, and a layer's line to the one above.
  expect(columns({ a: [[], ["low", "high"]] })).toBe(2);
});

describe("inspect --format dot|mermaid", () => {
  const cache = vector("ci-app", "A", "cache");
  const build = ["--build", vector("ci-app", "A", "metadata.json")];
  const draw = (...args: string[]) => cacheport(["inspect", cache, ...build, ...args]);
  const plain = (text: string): string =>
    text.replaceAll(/#(\d+);/g, (_, code) => String.fromCharCode(code));

  test.each(["16", "Dockerfile:16"])("--root %s draws what leads to the step", async (root) => {
    for (const format of ["dot", "mermaid"]) {
      const run = await draw("--format", format, "--root", root, "--depth", "1");
      expect([run.code, run.stderr]).toEqual([0, "Drawn: 2 of 15 records, 4 of 10 layers\n"]);
      expect(plain(run.stdout)).toContain("RUN --network=none ls -la (Dockerfile:16)");
      expect(plain(run.stdout)).toContain("(Dockerfile:14)");
      expect(plain(run.stdout)).not.toContain("(Dockerfile:11)");
    }
  });

  test("any line of a step that has several names it", async () => {
    const roots = (line: number) =>
      cacheport([
        "inspect",
        vector("heredoc-copy", "A", "cache"),
        "--build",
        vector("heredoc-copy", "A", "metadata.json"),
        "--format=mermaid",
        `--root=${line}`,
      ]);
    const [first, within, last, next] = [
      await roots(2),
      await roots(3),
      await roots(4),
      await roots(5),
    ];
    expect([first.code, within.stdout, last.stdout]).toEqual([0, first.stdout, first.stdout]);
    expect([next.code, next.stdout === first.stdout]).toEqual([0, false]);
  });

  test("a digest names a record without a build", async () => {
    const { records } = (await cacheport(["inspect", cache, "--format=json"])).json();
    const { digest } = records[0];
    for (const root of [digest, digest.slice(7), digest.slice(0, 24)]) {
      const run = await cacheport(["inspect", cache, "--format=dot", "--root", root, "--depth=0"]);
      expect(run.code).toBe(0);
      expect(run.stdout.match(/^ {2}r\d+ \[/gm)).toHaveLength(
        records.filter((one: any) => one.digest === digest).length,
      );
    }
  });

  test("--layers-only names the layers by their steps", async () => {
    const run = await draw("--format=mermaid", "--layers-only");
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.stdout).not.toMatch(/^ {2}r\d/m);
    expect(run.stdout.match(/^ {2}l\d+\[/gm)).toHaveLength(10);
    expect(plain(run.stdout)).toContain('["COPY . . (Dockerfile:8)<br/>');
  });

  test("--legend adds a box and changes nothing else", async () => {
    for (const format of ["dot", "mermaid"]) {
      const [without, legend] = [
        (await draw("--format", format)).stdout,
        (await draw("--format", format, "--legend")).stdout,
      ];
      expect(legend).toContain("Legend");
      const lines = without.trimEnd().split("\n");
      expect(legend).toStartWith(lines.slice(0, -1).join("\n"));
      expect(legend.trimEnd()).toEndWith(lines.at(-1) as string);
    }
  });

  test.each([
    [["--root", "16"], "--root needs --format dot or --format mermaid"],
    [["--legend", "--format=html"], "--legend needs --format dot or --format mermaid"],
    [["--layers-only", "--format=json"], "--layers-only needs"],
    [["--depth=1", "--files", "ab"], "--depth needs"],
    [["--format=dot", "--depth=1"], "--depth needs --root"],
    [["--format=dot", "--root=16", "--depth=-1"], "a whole number"],
  ])("%p is wrong usage", async (args, reason) => {
    const run = await draw(...args);
    expect([run.code, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toContain(reason);
  });

  test.each([
    ["999", "the build has no step on that line"],
    ["Other:16", "the build has no step on that line"],
    ["sha256:00000000000000", "no digest of a record or a layer starts with it"],
  ])("--root %s is not found", async (root, reason) => {
    const run = await draw("--format=dot", "--root", root);
    expect([run.code, run.stdout]).toEqual([3, ""]);
    expect(run.stderr).toContain(reason);
  });
});

describe("what Graphviz comes to no end with", () => {
  const big = generateCache(1, 2000);
  const folder = layoutOf(big);
  const inspect = (...args: string[]) => cacheport(["inspect", folder, ...args]);

  test("is refused with the way to draw less, and nothing is written", async () => {
    const run = await inspect("--format=dot");
    expect([run.code, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toContain("2000 records");
    for (const way of ["--root", "--depth", "--layers-only", "--format html", "--all"])
      expect(run.stderr).toContain(way);
  });

  test("is written with --all, and in the other formats", async () => {
    const run = await inspect("--format=dot", "--all");
    expect(run.code).toBe(0);
    expect(run.stdout.match(/^ {2}r\d+ \[/gm)).toHaveLength(2000);
    const mermaid = await inspect("--format=mermaid");
    expect([mermaid.code, mermaid.stdout.startsWith("flowchart LR\n")]).toEqual([0, true]);
    expect(mermaid.stderr).toContain("--layers-only");
  });

  test.skipIf(!Bun.which("dot"))(
    "is drawn in part: the layers, or what is near a root",
    async () => {
      const root = big.config.records.at(-1)?.digest as string;
      for (const args of [["--layers-only"], ["--root", root, "--depth", "2"]]) {
        const run = await inspect("--format=dot", "--legend", ...args);
        expect(run.code).toBe(0);
        const dot = Bun.spawnSync(["dot", "-Tsvg"], { stdin: Buffer.from(run.stdout) });
        expect([dot.exitCode, `${dot.stderr}`]).toEqual([0, ""]);
        expect(`${dot.stdout}`).toContain("Legend");
      }
    },
  );
});
