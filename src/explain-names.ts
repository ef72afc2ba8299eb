/**
 * Names the records of a cache by the steps of builds. A name is proven by the
 * hash: nothing is guessed, and what no build explains stays without a name.
 */
import type { Build, BuildStep } from "./explain-build.ts";
import { fileActions, gitCommit, imageName, textIn } from "./explain-digest.ts";
import { buildKeys, StepKeys } from "./explain-match.ts";
import type { BuildKeys } from "./explain-match.ts";
import type { RecordView } from "./explain-records.ts";

/** What a record is. */
export interface RecordName {
  kind: "step" | "image" | "chain" | "git" | "http" | "content";
  /** `RUN npm ci`, without its place. */
  text: string;
  /** `Dockerfile:12`; null for what stands in none. */
  place: string | null;
  platform: string | null;
  /** The step, or for content the step that takes it. */
  step: string | null;
  /** For the chain of a base image: positions of its layers, bottom first. */
  layers?: number[];
}

/** The name of a record in one text: `RUN npm ci (Dockerfile:12)`. */
export function recordNameText({ text, place }: Pick<RecordName, "text" | "place">): string {
  return place === null ? text : `${text} (${place})`;
}

/** `Dockerfile:12`. */
export function stepPlaceText({ place }: BuildStep): string | null {
  return place ? `${place.file}:${place.line}` : null;
}

/** A step as people know it: the instruction, or what the step does where it has none. */
export function stepText(build: Build, step: BuildStep): string {
  switch (step.kind) {
    case "image":
      return `FROM ${imageName(step)}`;
    case "git":
    case "http":
    case "source":
      return textIn(step.op["identifier"]);
    case "local":
      return `files of ${textIn(step.op["identifier"]).replace("local://", "")}`;
  }
  if (step.instruction) return step.instruction.text;
  const outcome = step.vertex === undefined ? undefined : build.outcomes?.get(step.vertex);
  if (outcome) return outcome.name;
  const [action] = fileActions(step);
  if (step.inputs.length === 0 && action?.kind === "mkfile")
    return `inline document ${textIn(action.action["path"])}`;
  return action
    ? `${action.kind} ${textIn(action.action["path"] ?? action.action["dest"])}`
    : step.kind;
}

/** Tells whether a step makes a file out of the Dockerfile's own text. */
export function isInlineDocument(step: BuildStep): boolean {
  if (step.kind !== "file" || step.inputs.length > 0 || step.place) return false;
  const actions = fileActions(step);
  const isMade = actions.every(({ kind }) => kind === "mkfile" || kind === "mkdir");
  return isMade && actions.some(({ kind }) => kind === "mkfile");
}

/**
 * Names the records of one cache.
 *
 * @returns Names by the record's position; the first build that explains a record names it.
 */
export function nameRecords(view: RecordView, builds: readonly Build[]): Map<number, RecordName[]> {
  const names = new Map<number, RecordName[]>();
  for (const build of builds) {
    const keys = buildKeys(build, (blob) => view.diffIds.get(blob));
    nameByBuild(view, keys, names);
  }
  for (const [record, { layer, length }] of view.chains()) {
    if (names.has(record)) continue;
    const blob = view.config.layers[layer]?.blob ?? "";
    const layers = view.chain(layer) ?? [];
    names.set(record, [
      {
        layers,
        kind: "chain",
        text: `base image of ${length} ${length === 1 ? "layer" : "layers"} up to ${blob.slice(7, 19)}`,
        place: null,
        platform: null,
        step: null,
      },
    ]);
  }
  return names;
}

function nameByBuild(view: RecordView, keys: BuildKeys, names: Map<number, RecordName[]>): void {
  const { build } = keys;
  const found = new StepKeys(keys, view, () => undefined, "match");
  const several = new Set(build.steps.map(({ platform }) => platformText(platform))).size > 1;
  const add = (record: number, name: RecordName): void => {
    const known = names.get(record);
    if (!known) names.set(record, [name]);
    else if (
      !known.some(
        (other) => other.step === name.step || recordNameText(other) === recordNameText(name),
      )
    )
      known.push(name);
  };
  build.steps.forEach((step, at) => {
    const platform = several ? platformText(step.platform) : null;
    const place = stepPlaceText(step);
    for (const output of keys.outputs[at] as readonly number[])
      for (const { record } of found.of(at, output)) {
        const text = nameText(build, step);
        add(record, { ...kindOf(view, step, record), text, place, platform, step: step.id });
        const files = `files of ${stepText(build, step)}`;
        nameContent(view, keys, at, record, (root) =>
          add(root, { kind: "content", text: files, place, platform, step: step.id }),
        );
        nameSources(view, keys, at, record, add);
      }
  });
}

/** The content roots that a record links to. */
function nameContent(
  view: RecordView,
  keys: BuildKeys,
  at: number,
  record: number,
  add: (root: number) => void,
): void {
  view.config.records[record]?.inputs.forEach((alternatives, input) => {
    if (!keys.needs[at]?.[input]?.content) return;
    for (const { selector, link } of alternatives)
      if (selector === "" && view.isRoot(link)) add(link);
  });
}

/**
 * The sources that a record links to with the selector of the step: those that the
 * provenance says too little of to compute their digests, as the time of a download.
 */
function nameSources(
  view: RecordView,
  { build, needs }: BuildKeys,
  at: number,
  record: number,
  add: (root: number, name: RecordName) => void,
): void {
  build.steps[at]?.inputs.forEach(({ step: from }, input) => {
    const source = build.steps[from] as BuildStep;
    if (!SOURCES.has(source.kind)) return;
    const wanted = needs[at]?.[input]?.selector;
    for (const { selector, link } of view.config.records[record]?.inputs[input] ?? [])
      if (
        selector === wanted &&
        (selector !== "" || !needs[at]?.[input]?.content) &&
        view.isRoot(link)
      )
        add(link, {
          ...kindOf(view, source, link),
          text: stepText(build, source),
          place: stepPlaceText(source),
          platform: null,
          step: source.id,
        });
  });
}

const SOURCES = new Set(["image", "git", "http"]);

/** What a record of a step is; the chain of a base image with its layers. */
function kindOf(
  view: RecordView,
  step: BuildStep,
  record: number,
): Pick<RecordName, "kind" | "layers"> {
  const chain = view.chains().get(record);
  return chain
    ? { kind: "chain", layers: view.chain(chain.layer) ?? [] }
    : { kind: nameKind(step) };
}

function nameKind({ kind }: BuildStep): RecordName["kind"] {
  return kind === "image" || kind === "git" || kind === "http" ? kind : "step";
}

function nameText(build: Build, step: BuildStep): string {
  if (step.kind !== "git") return stepText(build, step);
  const commit = gitCommit(build, step)?.slice(0, 12);
  return commit ? `${stepText(build, step)} at ${commit}` : stepText(build, step);
}

function platformText({ os, architecture, variant }: BuildStep["platform"]): string {
  return [os, architecture, variant].filter(Boolean).join("/");
}
