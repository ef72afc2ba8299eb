/**
 * `cacheport explain`: for each step of a build, whether a cache serves it, and if not,
 * why.
 */
import { statSync } from "node:fs";
import { openAllBuilds } from "./cli-builds.ts";
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import { readCache } from "./cache-read.ts";
import type { ContentReader, Store } from "./content-store.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import type { Build } from "./explain-build.ts";
import type { ExplainCache, Explanation } from "./explain.ts";
import { storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { resolveSource } from "./location-source.ts";
import { join, resolve } from "./paths.ts";

const FORMATS = ["text", "json", "markdown", "html"] as const;

/** `cacheport explain CACHE --build BUILD`. */
export const explainCommand = defineCommand({
  name: "explain",
  summary: "Say of each step of a build whether a cache serves it, and if not, why",
  description:
    "Compares the steps of a build with the records of a cache, as BuildKit does, and says of each step whether it is a hit, a miss, or depends on files that are not made yet. A miss has a reason: the field of the instruction that changed, the files that differ, another parent, a moved base image, a layer that is gone.\n\nA build is a metadata file made with BUILDX_METADATA_PROVENANCE=max, a provenance (statement or predicate, SLSA v0.2 or v1), a .dockerbuild file of docker buildx history export, or an image with its attestation in any location. Without --build the cache's own image explains itself, where it has an attestation. --was is the build that filled the cache: with it the changed field is named. --context is the folder that was built: with it the files are compared, all but the file that --build names, if it lies there: the build wrote it at its end.\n\nSeveral caches are searched as BuildKit searches several --cache-from. Values of variables whose names look like those of secrets are never shown.\n\nA hit and a miss are certain. maybe depends on files that a step has still to make, or on a folder that was not given; what BuildKit has in its own cache is not known here and may serve more.\n\nThe JSON value is {schema, cache, caches, builds, summary: {steps, hit, miss, maybe, hitPercent, costSeconds, savedSeconds}, steps: [{platform, id, stage, name, file, line, kind, opDigest, recordDigest, records, cache, layer, status, was, seconds, internal, inputs, why, lost}], costs, unnamed, hints: [{code, steps, text}]}; each of why has a kind: option, definition, no-layer, content, parent, source, upstream, version or nothing.",
  operands: [
    { name: "CACHE", description: "The cache, or several of them", kind: "location", repeat: true },
  ],
  options: [
    {
      name: "build",
      value: "BUILD",
      repeat: true,
      description: "The build: a metadata file, a provenance, a .dockerbuild file or an image",
    },
    {
      name: "was",
      value: "BUILD",
      repeat: true,
      description: "The build that filled the cache, to name what changed",
    },
    {
      name: "context",
      value: "DIR|NAME=DIR",
      repeat: true,
      description: "The folder that was built, or that of a named context",
    },
    { name: "all", short: "a", description: "Show every step and every file" },
    { name: "redact", description: "Show no values at all" },
    {
      name: "fail-below",
      value: "PERCENT",
      description: "Exit with 1 when fewer percent of the steps are certain hits",
    },
    {
      name: "format",
      value: "FORMAT",
      choices: FORMATS,
      description: "Write text, JSON, Markdown for a job summary, or a page",
    },
    {
      name: "output",
      short: "o",
      value: "FILE",
      description: "Write to a file, replacing it",
    },
  ],
  examples: [
    {
      command: "cacheport explain ./cache --build build.json --context .",
      description: "What the cache does for a build with this metadata file",
    },
    {
      command:
        "cacheport explain registry.example/app/cache:main --build build.json --was registry.example/app:main --context .",
      description: "Name what changed since the image that filled the cache",
    },
    {
      command:
        'cacheport explain registry.example/app/cache --build new.dockerbuild --format markdown >> "$GITHUB_STEP_SUMMARY"',
      description: "A table in the summary of a job, with times",
    },
    {
      command: "cacheport explain ./cache --build build.json --context . --fail-below 80",
      description: "Fail a job when less than 80 percent is cached",
    },
  ],
  async run(context, args) {
    const threshold = args.integer("fail-below", { min: 0, max: 100 });
    const settings = await storeSettings(context, args);
    const stores: Store[] = [];
    try {
      const { caches, readers } = await openCaches(args, settings, stores);
      const builds = await buildsOf(args, settings, readers, caches);
      const was = await openAllBuilds(args.values("was"), settings);
      const { explain } = await import("./explain.ts");
      const { fileFinder } = await import("./explain-files.ts");
      const contexts = contextFolders(args.values("context"));
      const later = writtenInto(contexts, args.values("build"));
      for (const path of later)
        context.note(
          `${path} lies in the context and is left out: the build wrote it after it had read the context`,
        );
      const explanation = await explain(caches, builds, {
        contexts,
        later: later.map((path) => resolve(path)),
        was,
        redact: args.flag("redact"),
        findFiles: fileFinder(
          caches.map((cache, at) => ({ ...cache, reader: readers[at] as ContentReader })),
          { signal: context.signal },
        ),
      });
      await print(context, args, explanation, was.length > 0);
      const { hitPercent } = explanation.summary;
      if (threshold === undefined || hitPercent >= threshold) return 0;
      context.note(`${hitPercent} % of the steps are certain hits, fewer than ${threshold} %`);
      return 1;
    } finally {
      await Promise.all(stores.map((store) => store.close()));
    }
  },
});

type ExplainArguments = Arguments<
  "all" | "redact",
  "build" | "was" | "context" | "format" | "output"
>;

/** Opens all caches; one location may hold several, one for each platform. */
async function openCaches(
  args: ExplainArguments,
  settings: StoreSettings,
  stores: Store[],
): Promise<{ caches: ExplainCache[]; readers: Store[] }> {
  const caches: ExplainCache[] = [];
  const readers: Store[] = [];
  for (const [at, location] of args.locations.entries()) {
    const { store, descriptor } = await resolveSource(location, settings, undefined);
    stores.push(store);
    const set = await readCache(store, descriptor, settings);
    for (const cache of set.caches) {
      caches.push({ ...cache, location: args.operand(at) });
      readers.push(store);
    }
  }
  return { caches, readers };
}

/** The builds that were given; else those of the image that holds the cache. */
async function buildsOf(
  args: ExplainArguments,
  settings: StoreSettings,
  readers: readonly Store[],
  caches: readonly ExplainCache[],
): Promise<Build[]> {
  if (args.values("build").length > 0) return openAllBuilds(args.values("build"), settings);
  const { readStoredBuilds } = await import("./explain-attestation.ts");
  try {
    const store = readers[0] as Store;
    const { descriptor } = await resolveRoot(args, settings);
    return await readStoredBuilds(store, descriptor, caches[0]?.location ?? "", settings);
  } catch (error) {
    if (!isCacheportError(error, "NOT_SUPPORTED")) throw error;
    throw new CacheportError("USAGE", 'Cannot run command "explain": --build is missing', {
      hint: "Give the build that is to be explained: a --metadata-file made with BUILDX_METADATA_PROVENANCE=max, a .dockerbuild file, or an image with provenance",
    });
  }
}

async function resolveRoot(
  args: ExplainArguments,
  settings: StoreSettings,
): Promise<{ descriptor: ExplainCache["manifest"] }> {
  const { store, descriptor } = await resolveSource(args.location(0), settings, undefined);
  await store.close();
  return { descriptor };
}

/** `DIR` is the build's own context, `NAME=DIR` a named one. */
function contextFolders(values: readonly string[]): Map<string, string> {
  const folders = new Map<string, string>();
  for (const value of values) {
    const at = value.indexOf("=");
    const isFolder = statSync(value, { throwIfNoEntry: false })?.isDirectory() === true;
    if (at <= 0 || isFolder) folders.set("context", value);
    else folders.set(value.slice(0, at), value.slice(at + 1));
  }
  return folders;
}

/** The files that say what a build did and lie in its context: it wrote them at its end. */
function writtenInto(contexts: ReadonlyMap<string, string>, builds: readonly string[]): string[] {
  const folders = [...contexts.values()].map((folder) => resolve(folder));
  return builds.filter(
    (path) =>
      statSync(path, { throwIfNoEntry: false })?.isFile() === true &&
      folders.some((folder) => resolve(path).startsWith(join(folder, "/"))),
  );
}

async function print(
  context: CommandContext,
  args: ExplainArguments,
  explanation: Explanation,
  hasWas: boolean,
): Promise<void> {
  const { colors, columns, json } = context;
  const format = args.value("format") ?? (json ? "json" : "text");
  if (json && format !== "json" && args.value("output") === undefined)
    throw new CacheportError(
      "USAGE",
      `Cannot run command "explain": with --json standard output is JSON, and --format ${format} is not`,
      { hint: "Write it to a file with --output" },
    );
  const options = { all: args.flag("all"), hasWas };
  const output = args.value("output");
  if (output === undefined && (format === "text" || json)) {
    const { explainText } = await import("./explain-text.ts");
    await context.result(explanation, () =>
      explainText(explanation, { ...options, colors, columns }),
    );
    return;
  }
  const text = await render(format, explanation, options, columns);
  const bytes = new TextEncoder().encode(text);
  if (output === undefined || output === "-") {
    await context.write(bytes);
    return;
  }
  const { writeOutputFile } = await import("./cli-file.ts");
  await writeOutputFile(output, bytes);
  if (json) await context.result({ format, path: output, size: bytes.length }, () => "");
  else context.note(`Wrote ${output}`);
}

async function render(
  format: string,
  explanation: Explanation,
  options: { all: boolean; hasWas: boolean },
  columns: number,
): Promise<string> {
  switch (format) {
    case "markdown":
      return (await import("./explain-markdown.ts")).explainMarkdown(explanation, options);
    case "html":
      return (await import("./explain-html.ts")).explainHtml(explanation, options);
    case "text":
      return (await import("./explain-text.ts")).explainText(explanation, {
        ...options,
        colors: false,
        columns: 0,
      });
    default:
      return `${JSON.stringify(explanation, undefined, columns > 0 ? 2 : 0)}\n`;
  }
}
