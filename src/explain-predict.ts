/**
 * Predicts which steps of a build a cache serves, as BuildKit's solver would find
 * out: twice, with content that is not known taken for other content and for the
 * same. Where both agree the answer is certain.
 *
 * Source: BuildKit solver/edge.go, solver/scheduler.go; frontend/dockerui (no-cache).
 */
import type { Build, BuildStep } from "./explain-build.ts";
import { fileActions } from "./explain-digest.ts";
import { isInlineDocument } from "./explain-names.ts";
import { StepKeys } from "./explain-match.ts";
import type { BuildKeys, ContentKeys, StepKey } from "./explain-match.ts";
import type { RecordView } from "./explain-records.ts";

/** What becomes of a step. */
export type StepStatus = "hit" | "miss" | "maybe";

/** A cache with the keys of the build in it, unknown content taken both ways. */
export interface CacheKeys {
  view: RecordView;
  /** Unknown content counts as another one. */
  certain: StepKeys;
  /** Unknown content counts as the same. */
  possible: StepKeys;
}

/** What is predicted. */
export interface Prediction {
  /** One for each step; sources have one too. */
  statuses: readonly StepStatus[];
  /** Steps that are looked at even in the best case; the others are not needed. */
  needed: readonly boolean[];
  /** Steps that the build takes from no cache because it was told so. */
  ignored: readonly boolean[];
}

/** Predicts a build against several caches, each of which is searched on its own. */
export function predict(keys: BuildKeys, caches: readonly CacheKeys[]): Prediction {
  const { build } = keys;
  const ignored = build.steps.map((step) => isIgnored(build, step));
  const worst = run(build, caches, ignored, "certain");
  const best = run(build, caches, ignored, "possible");
  return {
    statuses: build.steps.map((step, at) => {
      // BuildKit makes them anew each time, and shows them as run even where nothing needs them.
      if (isInlineDocument(step) && !hasResult(caches, at)) return "miss";
      if (worst.runs.has(at) !== best.runs.has(at)) return "maybe";
      return worst.runs.has(at) ? "miss" : "hit";
    }),
    needed: build.steps.map((_, at) => best.reached.has(at) || worst.reached.has(at)),
    ignored,
  };
}

function hasResult(caches: readonly CacheKeys[], at: number): boolean {
  return caches.some(({ view, certain }) =>
    certain.of(at, 0).some(({ record }) => view.results(record).length > 0),
  );
}

/** Matches the steps of a build with each cache. */
export function cacheKeys(
  keys: BuildKeys,
  views: readonly RecordView[],
  content: ContentKeys,
): CacheKeys[] {
  return views.map((view) => ({
    view,
    certain: new StepKeys(keys, view, content, "miss"),
    possible: new StepKeys(keys, view, content, "match"),
  }));
}

/** Sources are resolved, not run. */
export const SOURCE_KINDS: ReadonlySet<BuildStep["kind"]> = new Set([
  "image",
  "local",
  "git",
  "http",
  "source",
]);

/**
 * Tells whether `--no-cache` or `--no-cache-filter` takes a step out of the cache: RUN,
 * COPY and ADD; WORKDIR is served all the same.
 */
function isIgnored({ args }: Build, step: BuildStep): boolean {
  const value = args["no-cache"];
  const { stage, kind } = step;
  const isCopy = kind === "file" && fileActions(step).some((action) => action.kind === "copy");
  if (value === undefined || !(isCopy || kind === "exec" || kind === "merge")) return false;
  if (value === "") return true;
  const stages = value.split(",").map((one) => one.trim().toLowerCase());
  return stage !== undefined && stages.includes(stage.toLowerCase());
}

function run(
  build: Build,
  caches: readonly CacheKeys[],
  ignored: readonly boolean[],
  mode: "certain" | "possible",
): { runs: Set<number>; reached: Set<number> } {
  const runs = new Set<number>();
  const reached = new Set<number>();
  const seen = new Set<string>();
  const needs = new Map<string, readonly string[]>();
  const open = [nodeOf(build.result)];

  /**
   * What must be at hand before a step's key can be known: inputs that are compared by
   * their content, here or behind the keys of the inputs, and steps that take no cache.
   */
  const behind = (keys: StepKey[], at: number, of: CacheKeys): readonly string[] => {
    let fewest: string[] | undefined;
    for (const key of keys) {
      const wanted = key.inputs.flatMap((ways, input): readonly string[] => {
        const from = build.steps[at]?.inputs[input];
        if (!from) return [];
        return ways.includes("definition") ? keyNeeds(from, of) : [nodeOf(from)];
      });
      if (!fewest || wanted.length < fewest.length) fewest = [...new Set(wanted)];
    }
    return fewest ?? [];
  };
  const keyNeeds = (from: { step: number; output: number }, of: CacheKeys): readonly string[] => {
    const node = nodeOf(from);
    if (ignored[from.step]) return [node];
    const id = `${caches.indexOf(of)} ${node}`;
    const known = needs.get(id);
    if (known) return known;
    needs.set(id, []);
    const found = behind([...of[mode].of(from.step, from.output)], from.step, of);
    needs.set(id, found);
    return found;
  };

  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    const [at, output] = node.split(":").map(Number) as [number, number];
    reached.add(at);
    const step = build.steps[at];
    if (!step || SOURCE_KINDS.has(step.kind)) continue;
    const served = caches
      .map((of) => ({
        of,
        keys: of[mode].of(at, output).filter(({ record }) => of.view.results(record).length > 0),
      }))
      .filter(({ keys }) => keys.length > 0);
    if (!ignored[at] && served.length > 0) {
      const [fewest = []] = served
        .map(({ of, keys }) => behind(keys, at, of))
        .toSorted((a, b) => a.length - b.length);
      open.push(...fewest);
      continue;
    }
    if (step.kind !== "unknown") runs.add(at);
    open.push(...step.inputs.map(nodeOf));
  }
  return { runs, reached };
}

function nodeOf({ step, output }: { step: number; output: number }): string {
  return `${step}:${output}`;
}
