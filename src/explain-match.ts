/**
 * Matches the steps of a build with the records of one cache, as BuildKit looks its
 * cache keys up: a step is known where its digest is, and where every input leads to
 * a record of the input's step or to the content that the input has.
 *
 * Source: BuildKit solver/edge.go, solver/cachemanager.go.
 */
import type { Build, BuildStep } from "./explain-build.ts";
import { opDigests } from "./explain-digest.ts";
import { inputNeeds } from "./explain-keys.ts";
import type { InputNeed } from "./explain-keys.ts";
import { chainIdOf } from "./explain-records.ts";
import type { RecordView } from "./explain-records.ts";

/**
 * The content key of a step's input: the digests that it may have, `undefined` where
 * it is not known, an empty list where it is known to match nothing.
 */
export type ContentKeys = (step: number, input: number) => readonly string[] | undefined;

/** How an input of a record was matched. */
export type InputMatch = "definition" | "content" | "unknown-content";

/** A record that is the cache key of a step's output. */
export interface StepKey {
  record: number;
  /** One for each input: all ways in which it matched. */
  inputs: InputMatch[][];
}

/** What is looked up for a build, the same in every cache. */
export interface BuildKeys {
  build: Build;
  /** One for each step. */
  needs: readonly InputNeed[][];
  /** One for each step: the digests that it may be known by. */
  digests: readonly (readonly string[])[];
  /** Outputs of each step that others take. */
  outputs: readonly (readonly number[])[];
  /** Images whose chain is not known, with what is known of it. */
  unknownChains: ReadonlyMap<number, ImageChain>;
}

/**
 * Computes what is looked up for a build.
 *
 * @param diffIds Uncompressed digests of blobs, from wherever they are known.
 */
export function buildKeys(
  build: Build,
  diffIds: (blob: string) => string | undefined = () => undefined,
): BuildKeys {
  const unknownChains = new Map<number, ImageChain>();
  const digests = build.steps.map((step, at) => {
    if (step.kind !== "image") return opDigests(build, step);
    const chain = imageChain(build, at, diffIds);
    if (chain.id === undefined && chain.length !== 0) unknownChains.set(at, chain);
    return opDigests(build, step, chain.id);
  });
  const outputs = build.steps.map(() => new Set<number>());
  for (const { step, output } of [build.result, ...build.steps.flatMap(({ inputs }) => inputs)])
    outputs[step]?.add(output);
  return {
    build,
    needs: build.steps.map(inputNeeds),
    digests,
    outputs: outputs.map((set) => [...set]),
    unknownChains,
  };
}

/** What is known of the chain of layers of an image source. */
export interface ImageChain {
  /** Undefined where it is not known. */
  id: string | undefined;
  /** How many layers; undefined where that is not known either. */
  length: number | undefined;
  /** The blobs, bottom first, where the provenance has them. */
  blobs: readonly string[] | undefined;
}

/**
 * Finds the chain of an image source: its layers stand in the provenance, or those of
 * a step right on top of it, which adds one.
 *
 * @param diffIds Uncompressed digests of blobs, from wherever they are known.
 */
export function imageChain(
  build: Build,
  at: number,
  diffIds: (blob: string) => string | undefined,
): ImageChain {
  const blobs = imageBlobs(build, at);
  if (!blobs) return { id: undefined, length: undefined, blobs: undefined };
  // The build's own image knows what its layers are uncompressed, the base ones among them.
  const own = isBaseOfResult(build, at) ? build.diffIds : undefined;
  const ids = blobs.map((blob, position) => own?.[position] ?? diffIds(blob));
  const known = ids.filter((id) => id !== undefined);
  return {
    id: known.length === blobs.length ? chainIdOf(known) : undefined,
    length: blobs.length,
    blobs,
  };
}

function imageBlobs(build: Build, at: number): string[] | undefined {
  const own = build.layers.get(`${build.steps[at]?.id}:0`);
  if (own) return own.map(({ digest }) => digest);
  for (const step of build.steps) {
    if (!isOnTopOf(step, at)) continue;
    const layers = build.layers.get(`${step.id}:0`);
    if (layers && layers.length > 0) return layers.slice(0, -1).map(({ digest }) => digest);
  }
  return undefined;
}

/** Tells whether a step adds one layer to what another one gives. */
function isOnTopOf({ kind, inputs }: BuildStep, at: number): boolean {
  return (kind === "exec" || kind === "file") && inputs[0]?.step === at;
}

function isBaseOfResult(build: Build, base: number): boolean {
  let { step } = build.result;
  for (let steps = 0; steps <= build.steps.length; steps++) {
    if (step === base) return true;
    const next = build.steps[step]?.inputs[0];
    if (!next) return false;
    ({ step } = next);
  }
  return false;
}

/** The chains of a cache that an image may have whose own chain is not known. */
function possibleChains(keys: BuildKeys, view: RecordView, at: number): number[] {
  const image = keys.unknownChains.get(at);
  if (!image) return [];
  return [...view.chains()]
    .filter(([, { length }]) => image.length === undefined || image.length === length)
    .map(([record]) => record);
}

/** The keys of all outputs of a build's steps in one cache. */
export class StepKeys {
  readonly #keys: Map<string, StepKey[]> = new Map();

  /**
   * @param unknown What content that is not known counts as.
   */
  constructor(keys: BuildKeys, view: RecordView, content: ContentKeys, unknown: "match" | "miss") {
    keys.build.steps.forEach((step, at) => {
      for (const output of keys.outputs[at] as readonly number[])
        this.#keys.set(
          `${at}:${output}`,
          [
            ...view.findOutput(keys.digests[at] as readonly string[], output),
            ...(unknown === "match" ? possibleChains(keys, view, at) : []),
          ].flatMap((record) => this.#match(keys, view, content, unknown, step, at, record)),
        );
    });
  }

  /** The keys of a step's output. */
  of(step: number, output: number): readonly StepKey[] {
    return this.#keys.get(`${step}:${output}`) ?? [];
  }

  #match(
    keys: BuildKeys,
    view: RecordView,
    content: ContentKeys,
    unknown: "match" | "miss",
    step: BuildStep,
    at: number,
    record: number,
  ): StepKey[] {
    const recorded = view.config.records[record]?.inputs ?? [];
    if (recorded.length !== step.inputs.length) return [];
    const inputs: InputMatch[][] = [];
    for (const [input, { step: from, output }] of step.inputs.entries()) {
      const { selector, content: selectors } = (keys.needs[at] as InputNeed[])[input] as InputNeed;
      const known = new Set(this.of(from, output).map((key) => key.record));
      const alternatives = recorded[input] ?? [];
      const ways = new Set<InputMatch>();
      for (const alternative of alternatives)
        if (alternative.selector === selector && known.has(alternative.link))
          ways.add("definition");
      if (selectors) {
        const digests = content(at, input);
        const wanted = digests && new Set(digests.flatMap((digest) => view.findContent(digest)));
        for (const { selector: own, link } of alternatives) {
          if (own !== "" || !view.isRoot(link)) continue;
          if (wanted?.has(link)) ways.add("content");
          else if (!wanted && unknown === "match") ways.add("unknown-content");
        }
      }
      if (ways.size === 0) return [];
      inputs.push([...ways]);
    }
    return [{ record, inputs }];
  }
}
