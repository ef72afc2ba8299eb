/**
 * `cacheport inspect`: text, a graph or the files of a layer; each way of showing is loaded
 * alone.
 */
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";
import { storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import type { CacheGraph } from "./cache-graph.ts";
import type { CacheSet } from "./cache-read.ts";
import { BUILD_OPTION, openAllBuilds } from "./cli-builds.ts";
import type { Build } from "./explain-build.ts";
import type { CacheLabels } from "./explain-labels.ts";
import type { OwnConflict } from "./inspect-conflicts.ts";
import type { GraphNames } from "./inspect-part.ts";
import { PLATFORM_OPTION, resolveSource } from "./location-source.ts";
import { formatBytes } from "./units.ts";

/** In what a cache's graph can be written. */
const FORMATS = ["dot", "mermaid", "json", "html"] as const;
/** Those that draw nodes and lines, of which a part can be drawn as well. */
const DRAWINGS = ["dot", "mermaid"];
/**
 * Columns that lines may pass in a drawing for Graphviz. Measured with `dot -Tsvg` of
 * Graphviz 2.43, processor time: 4,000 took 2 s, 7,000 took 19 s, 8,000 took 9 s (other
 * shapes of caches), 15,000 were not done after 60 s.
 */
const MAX_COLUMNS = 10_000;
type GraphFormat = (typeof FORMATS)[number];

/** `cacheport inspect LOC`: what is inside a cache or an image. */
export const inspectCommand = defineCommand({
  name: "inspect",
  summary: "Show what is inside a cache, an image or an index",
  description:
    "For a cache: its shape, its layers with their sizes, chains and ages, its records, when their results were made, and what is wrong with it. For an image: its config, layers and history. An image that holds an inline cache is shown as an image.\n\nWith --format the graph of a cache is written instead, that of an inline cache too: for Graphviz (dot), for Mermaid, as one HTML page that needs no network, or as JSON. The page shows what is in the layers of a folder or an archive as well, what prune would take away at a size, and images too: config, history, layers. The JSON is {caches: [{shape, digest, config, platform}], layers: [{digest, size, mediaType, diffId, createdAt, parent, depth, records, cache}], records: [{cache, digest, results: [{layer, chain, createdAt}], name}], links: [{from, to, input, selector}]}, where parent, layer, chain, cache, from and to are positions in these lists and a link leads from the record whose result is taken to the record that takes it.\n\nWith --format dot and --format mermaid --root draws what leads to a record, to the results on a layer or to a step alone, and --depth so many steps back from there; --layers-only leaves the records away, and --legend says what shapes and lines mean. What is too much for Graphviz is refused unless --all is given.\n\nWith --build the records are named by the steps of a build: RUN npm ci (Dockerfile:12). A name is proven by the digest of the step's definition. Chains of base images are named without it.\n\nWith --conflicts the records are listed that hold several results with different content, as a cache does into which several builds were exported: BuildKit takes one of them and misses what was built on another. --json has them as conflicts: [{cache, record, digest, names, results: [{layer, createdAt}]}]. Between several caches, see verify and diff.\n\nWith --files the entries of one layer are listed like those of a tar; with --json they are an array of {path, type, size, mode, uid, gid, mtime, link}.",
  operands: [{ name: "LOC", description: "What to look into", kind: "location" }],
  options: [
    PLATFORM_OPTION,
    BUILD_OPTION,
    {
      name: "all",
      short: "a",
      description: "Show every layer, not the 40 largest; write a graph that Graphviz cannot draw",
    },
    {
      name: "conflicts",
      description: "Show the records that hold several results with different content",
    },
    {
      name: "contents",
      description: "Read the layers of a cache, the largest first, and say what is in them",
    },
    {
      name: "format",
      value: "FORMAT",
      choices: FORMATS,
      description: "Write the graph of a cache, or the page of an image, instead",
    },
    {
      name: "root",
      value: "DIGEST|LINE",
      description:
        "Draw what leads to a record, a layer or a step: the start of a digest, or with --build a line of the Dockerfile",
    },
    {
      name: "depth",
      value: "N",
      description: "Draw at most so many steps back from the root",
    },
    {
      name: "layers-only",
      description: "Draw the layers without the records",
    },
    {
      name: "legend",
      description: "Say in the drawing what its shapes and lines mean",
    },
    {
      name: "output",
      short: "o",
      value: "FILE",
      description: "Write the graph to a file, replacing it",
    },
    {
      name: "image",
      value: "REF",
      description:
        "Say in bytes what mode=max adds to mode=min: the image that was built with the cache",
    },
    {
      name: "files",
      value: "LAYER",
      description: "List the files of a layer, named by the start of its digest",
    },
  ],
  examples: [
    { command: "cacheport inspect ./cache", description: "What a cache holds" },
    {
      command: "cacheport inspect ./cache:main --format html --output cache.html",
      description: "A page with a map of the layers, to look at in a browser",
    },
    {
      command: "cacheport inspect ./cache --format dot | dot -Tsvg > cache.svg",
      description: "Draw the graph of the records",
    },
    {
      command: "cacheport inspect ./cache --format mermaid --build build.json --root 12 --depth 3",
      description: "Draw what the step on line 12 is made from",
    },
    {
      command: "cacheport inspect ./cache --build build.json",
      description: "Name the layers by the steps of a build, from its metadata file",
    },
    {
      command: "cacheport inspect ./cache --files 90bc0537",
      description: "What is in a layer",
    },
    {
      command: "cacheport inspect ./cache --image registry.example/app:main",
      description: "What mode=max costs beside mode=min",
    },
    {
      command: "cacheport inspect registry.example/app/cache:main --json | jq .totalSize",
      description: "How much a cache in a registry weighs",
    },
  ],
  async run(context, args) {
    checkOptions(context, args);
    const settings = await storeSettings(context, args);
    const { store, descriptor } = await resolveSource(args.location(0), settings, args);
    try {
      const builds = await openAllBuilds(args.values("build"), settings);
      if (args.value("format") !== undefined)
        await writeGraph(context, args, store, descriptor, settings, builds);
      else await show(context, args, store, descriptor, settings, builds);
    } finally {
      await store.close();
    }
  },
});

type InspectArguments = Arguments<
  "all" | "conflicts" | "contents" | "layers-only" | "legend",
  "depth" | "files" | "format" | "image" | "output" | "root"
>;

function checkOptions({ json }: CommandContext, args: InspectArguments): void {
  const format = args.value("format");
  const refuse = (reason: string, hint: string): never => {
    throw new CacheportError("USAGE", `Cannot run command "inspect": ${reason}`, {
      hint,
    });
  };
  if (format !== undefined && args.value("files") !== undefined)
    refuse("--format and --files do not go together", "Run it once with each of them");
  if (args.value("image") !== undefined && (format ?? args.value("files")) !== undefined)
    refuse("--image goes with neither --format nor --files", "Run it once with each of them");
  const ofDrawing =
    (["layers-only", "legend"] as const).find((name) => args.flag(name)) ??
    (["root", "depth"] as const).find((name) => args.value(name) !== undefined);
  if (ofDrawing && !DRAWINGS.includes(format ?? ""))
    refuse(
      `--${ofDrawing} needs --format dot or --format mermaid`,
      "Only these draw a part of a graph",
    );
  if (args.value("depth") !== undefined && args.value("root") === undefined)
    refuse("--depth needs --root", "Name the record or the step to count from with --root");
  const output = args.value("output");
  if (output !== undefined && format === undefined)
    refuse(
      "--output needs --format",
      /^(?:json|yaml|text|table|wide|name)$/.test(output)
        ? "Write --json to have JSON; --output is the file that --format writes to"
        : `Write --format html --output ${output}`,
    );
  if (json && outputFile(args) === undefined && format !== undefined && format !== "json")
    refuse(
      `with --json standard output is JSON, and --format ${format} is not`,
      "Write the graph to a file with --output",
    );
}

async function show(
  context: CommandContext,
  args: InspectArguments,
  store: Store,
  descriptor: Descriptor,
  settings: StoreSettings,
  builds: readonly Build[],
): Promise<void> {
  const { inspectAndRead, inspectCache, nameInspected } = await import("./inspect.ts");
  const plain = await inspectAndRead(store, descriptor, settings);
  let { found } = plain;
  let conflicts: { found: OwnConflict[]; text: string } | undefined;
  const isNamed = args.value("files") === undefined;
  if (isNamed && (found.kind === "cache" || builds.length > 0)) {
    const { readCache } = await import("./cache-read.ts");
    const set = plain.cache ?? (await readCache(store, descriptor, settings));
    const labels = await naming(set, builds);
    const namesOf = (cache: number) => namesIn(labels, cache);
    const cache = found.kind === "cache" ? found : inspectCache(set);
    found = nameInspected(cache, set.caches, namesOf);
    if (args.flag("conflicts")) {
      const { findOwnConflicts, ownConflictText } = await import("./inspect-conflicts.ts");
      const own = findOwnConflicts(set.caches, namesOf);
      conflicts = { found: own, text: ownConflictText(own, context) };
    }
  }
  if (args.flag("contents") && found.kind === "cache") {
    const { addContents } = await import("./inspect-contents.ts");
    found = await addContents(store, found, context.signal);
  }
  const layer = args.value("files");
  if (layer !== undefined) {
    const { findLayer, writeLayerFiles } = await import("./inspect-files.ts");
    await writeLayerFiles(context, store, findLayer(found, layer));
    return;
  }
  if (args.flag("conflicts") && !conflicts) {
    throw new CacheportError(
      "NOT_A_CACHE",
      `Cannot look for conflicts in "${args.operand(0)}": it is no build cache`,
    );
  }
  const { inspectText } = await import("./inspect-text.ts");
  const { colors, columns } = context;
  const all = args.flag("all");
  const text = (): string =>
    inspectText(found, { colors, columns, all, now: Date.now() }) + (conflicts?.text ?? "");
  const value = conflicts ? { ...found, conflicts: conflicts.found } : found;
  const image = args.value("image");
  if (image === undefined) return context.result(value, text);
  const cost = await costOfMode(store, descriptor, image, settings);
  const { min, added } = cost;
  await context.result(
    { ...value, image: { location: image, ...cost } },
    () =>
      `${text()}\nmode=max adds ${formatBytes(added.bytes)} (${added.layers} layers) to the ${formatBytes(min.bytes)} (${min.layers} layers) of mode=min\n`,
  );
}

/** What a cache has beyond the layers of an image. */
async function costOfMode(
  store: Store,
  descriptor: Descriptor,
  image: string,
  settings: StoreSettings,
) {
  const [{ modeCost, readImageLayers }, { readCache }] = await Promise.all([
    import("./inspect-image.ts"),
    import("./cache-read.ts"),
  ]);
  const { caches } = await readCache(store, descriptor, settings);
  const source = await resolveSource(image, settings, undefined);
  try {
    const layers = await readImageLayers(source.store, source.descriptor, settings);
    return modeCost(
      caches.flatMap((cache) => cache.layers),
      layers,
    );
  } finally {
    await source.store.close();
  }
}

/** Names the records of each cache; the code that does it is loaded for it alone. */
async function naming({ caches }: CacheSet, builds: readonly Build[]): Promise<CacheLabels[]> {
  const { cacheLabels } = await import("./explain-labels.ts");
  return caches.map((cache) => cacheLabels(cache, builds));
}

const namesIn = (labels: readonly CacheLabels[], cache: number): CacheLabels["names"] =>
  labels[cache]?.names ?? new Map();

/** The file that the graph is to be written to; undefined for standard output. */
function outputFile(args: Arguments<never, "output">): string | undefined {
  const path = args.value("output");
  return path === "-" ? undefined : path;
}

async function writeGraph(
  context: CommandContext,
  args: InspectArguments,
  store: Store,
  descriptor: Descriptor,
  settings: StoreSettings,
  builds: readonly Build[],
): Promise<void> {
  const format = args.value("format") as GraphFormat;
  const location = args.location(0);
  const isNear = location.kind === "directory" || location.kind === "archive";
  const source = { store, settings, name: location.text, isNear };
  const text =
    (format === "html" ? await renderImage(context, descriptor, source) : undefined) ??
    (await renderCache(context, args, format, descriptor, source, builds));
  const bytes = new TextEncoder().encode(text);
  const path = outputFile(args);
  if (path === undefined) {
    await context.write(bytes);
    return;
  }
  const { writeOutputFile } = await import("./cli-file.ts");
  await writeOutputFile(path, bytes);
  const size = bytes.length;
  if (context.json) await context.result({ format, path, size }, () => "");
  else context.note(`Wrote ${path} (${formatBytes(size)})`);
}

/** Where what is drawn comes from. */
interface Drawn {
  store: Store;
  settings: StoreSettings;
  /** The location as it was written. */
  name: string;
  /** On this machine: layers can be read without a download. */
  isNear: boolean;
}

/** The page of an image; undefined for what is none, or holds a cache, which the page shows then. */
async function renderImage(
  { signal }: CommandContext,
  descriptor: Descriptor,
  { store, settings, name, isNear }: Drawn,
): Promise<string | undefined> {
  const { inspect } = await import("./inspect.ts");
  const image = await inspect(store, descriptor, settings);
  if (image.kind === "index") {
    const { tryReadCache } = await import("./cache-read.ts");
    if (await tryReadCache(store, descriptor, settings)) return undefined;
    throw new CacheportError(
      "NOT_A_CACHE",
      `Cannot draw "${name}": ${descriptor.digest} is an index of images, and a page shows one`,
      { hint: "Choose one of its images with --platform" },
    );
  }
  if (image.kind !== "image" || image.inlineCache) return undefined;
  const [{ inspectImageHtml }, { readImageSettings }, { readLargest }] = await Promise.all([
    import("./inspect-html.ts"),
    import("./inspect-image.ts"),
    import("./inspect-largest.ts"),
  ]);
  const values = await readImageSettings(store, image.config, settings);
  const contents = isNear ? await readLargest(store, image.layers, undefined, signal) : undefined;
  return inspectImageHtml(image, values, name, { contents });
}

/** Writes the graph of caches in a format. What writes the others is not loaded. */
async function renderCache(
  context: CommandContext,
  args: InspectArguments,
  format: GraphFormat,
  descriptor: Descriptor,
  { store, settings, name, isNear }: Drawn,
  builds: readonly Build[],
): Promise<string> {
  const [{ readCache }, { cacheGraph }, { nameGraph }] = await Promise.all([
    import("./cache-read.ts"),
    import("./cache-graph.ts"),
    import("./explain-labels.ts"),
  ]);
  const set = await readCache(store, descriptor, settings);
  const labels = await naming(set, builds);
  const graph = nameGraph(cacheGraph(set.caches), labels);
  switch (format) {
    case "dot":
    case "mermaid":
      return drawPart(context, args, graph, { labels, builds });
    case "json":
      return `${JSON.stringify(graph, undefined, context.columns > 0 ? 2 : 0)}\n`;
    case "html": {
      const [{ inspectHtml }, { inspectCache, nameInspected }, { readLargest }] = await Promise.all(
        [import("./inspect-html.ts"), import("./inspect.ts"), import("./inspect-largest.ts")],
      );
      const layers = set.caches.flatMap((cache) => cache.layers);
      const namesOf = (cache: number) => namesIn(labels, cache);
      const [only, ...others] = set.caches;
      return inspectHtml(graph, nameInspected(inspectCache(set), set.caches, namesOf), name, {
        cache: others.length > 0 || set.shape === "inline" ? undefined : only,
        contents: isNear ? await readLargest(store, layers, undefined, context.signal) : undefined,
      });
    }
  }
}

/** Draws what was asked for of a graph, and says what that leaves out. */
async function drawPart(
  context: CommandContext,
  args: InspectArguments,
  graph: CacheGraph,
  names: GraphNames,
): Promise<string> {
  const { graphPart } = await import("./inspect-part.ts");
  const root = args.value("root");
  const depth = args.integer("depth", { min: 0, max: 1_000_000 });
  const layersOnly = args.flag("layers-only");
  const part = graphPart(graph, { root, depth, layersOnly }, names);
  const options = { legend: args.flag("legend") };
  if (root !== undefined)
    context.note(
      `Drawn: ${layersOnly ? "" : `${part.records.length} of ${graph.records.length} records, `}${part.layers.length} of ${graph.layers.length} layers`,
    );
  if (args.value("format") === "mermaid") {
    const { graphMermaid, mermaidWarning } = await import("./inspect-mermaid.ts");
    const text = graphMermaid(part, options);
    const warning = mermaidWarning(part, text);
    if (warning) context.note(warning);
    return text;
  }
  const { graphDot, passedColumns } = await import("./inspect-dot.ts");
  const columns = passedColumns(part);
  if (columns > MAX_COLUMNS && !args.flag("all"))
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot draw "${args.operand(0)}" with Graphviz: it comes to no end with ${part.records.length} records and ${part.layers.length} layers whose lines pass ${columns} columns (at most ${MAX_COLUMNS})`,
      {
        hint: "Draw a part with --root and --depth, or with --layers-only; --format html draws caches of any size, and --all writes the graph all the same",
      },
    );
  return graphDot(part, options);
}
