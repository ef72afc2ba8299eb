/**
 * Explains what a cache does for a build: what each step is in the cache, whether it
 * will be served from it, and if not, why.
 */
import type { ImportLosses } from "./cache-import.ts";
import type { Descriptor } from "./descriptor.ts";
import { formatPlatform } from "./platform.ts";
import type { Build, BuildStep } from "./explain-build.ts";
import { recordDigest } from "./explain-digest.ts";
import { addRoots, rootCosts, round } from "./explain-costs.ts";
import type { RootCost } from "./explain-costs.ts";
import { findHints, originOf } from "./explain-hints.ts";
import type { Hint } from "./explain-hints.ts";
import { InputContents } from "./explain-input.ts";
import type { ContextFolders } from "./explain-input.ts";
import { buildKeys, imageChain } from "./explain-match.ts";
import type { BuildKeys } from "./explain-match.ts";
import { isInlineDocument, stepText } from "./explain-names.ts";
import { cacheKeys, predict, SOURCE_KINDS } from "./explain-predict.ts";
import type { CacheKeys, Prediction, StepStatus } from "./explain-predict.ts";
import { importLosses, stepLoss } from "./explain-losses.ts";
import type { StepLoss } from "./explain-losses.ts";
import { Reasons } from "./explain-reason.ts";
import type { FileChange, Reason } from "./explain-reason.ts";
import { RecordView } from "./explain-records.ts";
import type { RecordSource } from "./explain-records.ts";
import { Redactor } from "./explain-redact.ts";

export type { RootCost } from "./explain-costs.ts";
export type { FileChange, Reason } from "./explain-reason.ts";
export type { StepStatus } from "./explain-predict.ts";
export type { Hint } from "./explain-hints.ts";

/** A cache to explain with. */
export interface ExplainCache extends RecordSource {
  /** As the user wrote it. */
  location: string;
  shape: string;
  manifest: Descriptor;
  blob: { descriptor: Descriptor };
}

/** Finds out which files differ; see explain-files.ts. */
export type FileFinder = (request: {
  /** Position of the cache, and of the record whose step took the old files. */
  cache: number;
  record: number;
  keys: BuildKeys;
  step: number;
  input: number;
  contents: InputContents;
  /** Digest of the record of the old content. */
  was: string;
}) => Promise<{ proven: boolean; files: FileChange[]; total: number } | undefined>;

/** How to explain. */
export interface ExplainOptions {
  contexts: ContextFolders;
  /** Whole paths of files that came into the contexts after the build had read them. */
  later?: readonly string[];
  /** Builds that filled the caches. */
  was: readonly Build[];
  /** Show no values at all. */
  redact: boolean;
  /** Looks into layers; without it no file is named. */
  findFiles?: FileFinder | undefined;
}

/** One step of a build, with what the cache does for it. */
export interface ExplainedStep {
  platform: string;
  id: string;
  stage: string | null;
  name: string;
  file: string | null;
  line: number | null;
  endLine: number | null;
  kind: string;
  opDigest: string | null;
  recordDigest: string | null;
  /** Positions of its records in the first cache that has some. */
  records: number[];
  /** That cache's position. */
  cache: number | null;
  /** The layer that the cache has for it. */
  layer: string | null;
  status: StepStatus;
  /** What happened in the build, where its log is at hand. */
  was: "cached" | "run" | null;
  /** How long it takes when it runs, where a log tells. */
  seconds: number | null;
  /** A helper step of BuildKit that stands in no line. */
  internal: boolean;
  /** Ids of the steps whose results it takes. */
  inputs: string[];
  why: Reason[];
  /** BuildKit's import loses the step in some orders, so that a hit is not certain. */
  lost: StepLoss | null;
}

/** An explanation. */
export interface Explanation {
  schema: 1;
  cache: { location: string; digest: string; shape: string; records: number };
  caches: { location: string; digest: string; shape: string; records: number }[];
  builds: { source: string; slsa: string; platform: string }[];
  summary: {
    steps: number;
    hit: number;
    miss: number;
    maybe: number;
    /** Percent of steps that are hits for certain. */
    hitPercent: number;
    costSeconds: number | null;
    savedSeconds: number | null;
  };
  steps: ExplainedStep[];
  costs: RootCost[];
  /** Records of the first cache that no step of the builds is. */
  unnamed: { record: number }[];
  hints: Hint[];
}

/**
 * Explains builds with caches, as BuildKit would take several `--cache-from`.
 *
 * @param caches At least one.
 * @throws {CacheportError} LOCATION_NOT_FOUND for a context that is not there, IO_FAILED
 */
export async function explain(
  caches: readonly ExplainCache[],
  builds: readonly Build[],
  options: ExplainOptions,
): Promise<Explanation> {
  const views = caches.map((cache) => new RecordView(cache));
  const losses = caches.map(({ config }) => importLosses(config));
  const diffIds = knownDiffIds(views, [...builds, ...options.was]);
  const redactor = new Redactor([...builds, ...options.was], options.redact);
  const named = new Set<number>();
  const steps: ExplainedStep[] = [];
  const hints: Hint[] = [];
  for (const build of builds) {
    const keys = buildKeys(build, diffIds);
    const former = formerBuild(build, options.was);
    const was = former && buildKeys(former, diffIds);
    if (was) excludeOtherBases(keys, was);
    const contents = new InputContents(keys, options.contexts, options.later);
    const found = cacheKeys(keys, views, (step, input) => contents.keys(step, input));
    const prediction = predict(keys, found);
    const reasons = new Reasons({ keys, caches: found, prediction, contents, was, redactor });
    const explained = describeSteps({ keys, found, prediction, reasons, was, redactor });
    markLost(explained, losses);
    if (options.findFiles) await addFiles(options.findFiles, keys, contents, found, explained);
    addRoots(explained);
    addNamed(named, keys, found[0]);
    hints.push(
      ...findHints({ build, keys, was, contents, steps: explained, reasons, caches, losses }),
    );
    steps.push(...explained);
  }
  const visible = steps.filter(({ internal }) => !internal);
  const costs = rootCosts(steps);
  const count = (status: StepStatus): number =>
    visible.filter((step) => step.status === status).length;
  const describe = ({ location, manifest, shape, config }: ExplainCache): Explanation["cache"] => ({
    location,
    digest: manifest.digest,
    shape,
    records: config.records.length,
  });
  const total = (wanted: readonly ExplainedStep[]): number | null =>
    wanted.some(({ seconds }) => seconds !== null)
      ? round(wanted.reduce((sum, { seconds }) => sum + (seconds ?? 0), 0))
      : null;
  return {
    schema: 1,
    cache: describe(caches[0] as ExplainCache),
    caches: caches.map(describe),
    builds: builds.map(({ source, slsa, platform }) => ({
      source,
      slsa,
      platform: formatPlatform(platform),
    })),
    summary: {
      steps: visible.length,
      hit: count("hit"),
      miss: count("miss"),
      maybe: count("maybe"),
      hitPercent: visible.length === 0 ? 100 : round((100 * count("hit")) / visible.length),
      costSeconds: total(steps.filter(({ status }) => status === "miss")),
      savedSeconds: total(steps.filter(({ status }) => status === "hit")),
    },
    steps,
    costs,
    unnamed: (caches[0] as ExplainCache).config.records.flatMap((_, record) =>
      named.has(record) ? [] : [{ record }],
    ),
    hints: uniqueHints(hints),
  };
}

function uniqueHints(hints: readonly Hint[]): Hint[] {
  const seen = new Map<string, Hint>();
  for (const hint of hints)
    if (!seen.has(hint.code + hint.text)) seen.set(hint.code + hint.text, hint);
  return [...seen.values()];
}

/** Uncompressed digests of blobs from all caches. */
function knownDiffIds(
  views: readonly RecordView[],
  builds: readonly Build[],
): (blob: string) => string | undefined {
  const known = new Map(views.flatMap((view) => [...view.diffIds]));
  // An image that is at hand knows the layers of its own result.
  for (const build of builds) {
    const { step, output } = build.result;
    const layers = build.layers.get(`${build.steps[step]?.id}:${output}`) ?? [];
    if (layers.length !== build.diffIds?.length) continue;
    layers.forEach(({ digest }, at) => known.set(digest, build.diffIds?.[at] ?? ""));
  }
  return (blob) => known.get(blob);
}

/** The build that filled the cache, for the same platform. */
function formerBuild(build: Build, was: readonly Build[]): Build | undefined {
  const platform = formatPlatform(build.platform);
  return was.find((one) => formatPlatform(one.platform) === platform) ?? was[0];
}

/**
 * Rules chains out: where the old build had the image with other blobs, the new one has
 * other layers.
 */
function excludeOtherBases(keys: BuildKeys, was: BuildKeys): void {
  const chains = keys.unknownChains as Map<number, ReturnType<typeof imageChain>>;
  for (const [at, chain] of chains) {
    if (!chain.blobs) continue;
    const blobs = chain.blobs.join(" ");
    const old = was.build.steps.flatMap(({ kind }, step) =>
      kind === "image" ? [imageChain(was.build, step, () => undefined).blobs?.join(" ")] : [],
    );
    if (old.length > 0 && old.every((one) => one !== undefined && one !== blobs))
      chains.set(at, { ...chain, length: -1 });
  }
}

interface Found {
  keys: BuildKeys;
  found: readonly CacheKeys[];
  prediction: Prediction;
  reasons: Reasons;
  was: BuildKeys | undefined;
  redactor: Redactor;
}

function describeSteps(source: Found): ExplainedStep[] {
  const { keys, found, prediction, reasons, redactor } = source;
  const { build } = keys;
  return build.steps.flatMap((step, at): ExplainedStep[] => {
    if (SOURCE_KINDS.has(step.kind) || step.kind === "unknown") return [];
    const [opDigest = null] = keys.digests[at] ?? [];
    const [output = 0] = keys.outputs[at] ?? [];
    const status = prediction.statuses[at] as StepStatus;
    const { cache, records } = recordsOf(source, at, output, status);
    const view = found[cache]?.view;
    const [top] = records.flatMap((record) => view?.results(record) ?? []);
    return [
      {
        platform: formatPlatform(build.platform),
        id: step.id,
        stage: step.stage ?? null,
        name: redactor.instruction(stepText(build, step)),
        file: step.place?.file ?? null,
        line: step.place?.line ?? null,
        endLine: step.place?.endLine ?? null,
        kind: step.kind,
        opDigest,
        recordDigest: opDigest === null ? null : recordDigest(opDigest, output),
        records,
        cache: cache < 0 ? null : cache,
        layer: top === undefined ? null : (view?.config.layers[top]?.blob ?? null),
        status,
        ...happened(source, at, step),
        internal: step.place === undefined || isInlineDocument(step),
        inputs: step.inputs.map(({ step: from }) => (build.steps[from] as BuildStep).id),
        lost: null,
        why: reasons.of(at).map((reason) => withOrigin(build, step, reason)),
      },
    ];
  });
}

/** The records of a step in the first cache that knows it; of a miss those of the same definition. */
function recordsOf(
  { keys, found }: Found,
  at: number,
  output: number,
  status: StepStatus,
): { cache: number; records: number[] } {
  const kind = status === "hit" ? "certain" : "possible";
  const known = found.findIndex((one) => one[kind].of(at, output).length > 0);
  if (known >= 0) {
    const records = found[known]?.[kind].of(at, output).map(({ record }) => record);
    return { cache: known, records: [...new Set(records)] };
  }
  const digests = keys.digests[at] ?? [];
  const cache = found.findIndex(({ view }) => view.findOutput(digests, output).length > 0);
  return { cache, records: found[cache]?.view.findOutput(digests, output) ?? [] };
}

/** A hit is not certain where the import of the cache that has it may lose its records. */
function markLost(
  steps: readonly ExplainedStep[],
  losses: readonly (ImportLosses | undefined)[],
): void {
  for (const step of steps) {
    const report = step.cache === null ? undefined : losses[step.cache];
    const lost = step.status === "hit" && report && stepLoss(report, step.records);
    if (!lost) continue;
    step.status = "maybe";
    step.lost = lost;
  }
}

/** Says of variables where the Dockerfile declares them. */
function withOrigin(build: Build, { place }: BuildStep, reason: Reason): Reason {
  if (reason.kind !== "definition" || !place) return reason;
  const fields = reason.fields.map((field) => {
    const name = /^env (.+)$/.exec(field.field)?.[1];
    const origin = name === undefined ? undefined : originOf(build, name, place.line);
    return origin ? { ...field, origin: `${origin.keyword}, line ${origin.line}` } : field;
  });
  return { ...reason, fields };
}

/** What the logs say of a step: in the new build, else in the one that filled the cache. */
function happened(
  { keys: { build }, reasons, was }: Found,
  at: number,
  step: BuildStep,
): Pick<ExplainedStep, "was" | "seconds"> {
  const outcome = step.vertex === undefined ? undefined : build.outcomes?.get(step.vertex);
  const ran = outcome && !outcome.cached && outcome.seconds !== undefined;
  let seconds = ran ? outcome.seconds : undefined;
  const old = seconds === undefined && was ? reasons.former(at) : undefined;
  const before = old?.vertex === undefined ? undefined : was?.build.outcomes?.get(old.vertex);
  if (seconds === undefined && before && !before.cached) ({ seconds } = before);
  return {
    was: outcome ? (outcome.cached ? "cached" : "run") : null,
    seconds: seconds === undefined ? null : round(seconds),
  };
}

/** Names the files of each context that differ. */
async function addFiles(
  findFiles: FileFinder,
  keys: BuildKeys,
  contents: InputContents,
  found: readonly CacheKeys[],
  steps: readonly ExplainedStep[],
): Promise<void> {
  for (const step of steps)
    for (const reason of step.why) {
      if (reason.kind !== "content" || reason.was === null || reason.is === null) continue;
      const at = keys.build.steps.findIndex(({ id }) => id === step.id);
      for (const [cache, { view }] of found.entries()) {
        const record = view
          .findOutput(keys.digests[at] ?? [], keys.outputs[at]?.[0] ?? 0)
          .find((one) => linksTo(view, one, reason.input, reason.was as string));
        if (record === undefined) continue;
        const { input, was } = reason;
        const files = await findFiles({ cache, record, keys, step: at, input, contents, was });
        if (!files) continue;
        reason.files = files.files;
        reason.total = files.total;
        reason.proven = files.proven;
        break;
      }
    }
}

function linksTo(view: RecordView, record: number, input: number, digest: string): boolean {
  return (view.config.records[record]?.inputs[input] ?? []).some(
    ({ link }) => view.config.records[link]?.digest === digest,
  );
}

/** The records that steps, or the sources and files that they take, are. */
function addNamed(named: Set<number>, keys: BuildKeys, first: CacheKeys | undefined): void {
  if (!first) return;
  const { view, possible } = first;
  keys.build.steps.forEach((_, at) => {
    for (const output of keys.outputs[at] ?? [])
      for (const { record } of possible.of(at, output)) {
        named.add(record);
        view.config.records[record]?.inputs.forEach((alternatives, input) => {
          for (const { selector, link } of alternatives)
            if (
              view.isRoot(link) &&
              (selector === "" || selector === keys.needs[at]?.[input]?.selector)
            )
              named.add(link);
        });
      }
  });
}
