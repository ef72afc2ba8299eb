/**
 * Why a step is not served from a cache: the most specific reason that the records
 * of the cache prove.
 */
import type { Build, BuildStep } from "./explain-build.ts";
import { changeText, compareSteps, FormerSteps } from "./explain-compare.ts";
import type { FieldChange } from "./explain-compare.ts";
import { gitCommit, imageDigest, imageName, recordDigest, textIn } from "./explain-digest.ts";
import type { InputContents } from "./explain-input.ts";
import { contextName } from "./explain-input.ts";
import type { BuildKeys } from "./explain-match.ts";
import { nameRecords, recordNameText, stepText } from "./explain-names.ts";
import type { RecordName } from "./explain-names.ts";
import { SOURCE_KINDS } from "./explain-predict.ts";
import type { CacheKeys, Prediction } from "./explain-predict.ts";
import { olderForm } from "./explain-older.ts";
import type { Redactor } from "./explain-redact.ts";
import type { RecordView } from "./explain-records.ts";

/** A file of a context that is not as it was. */
export interface FileChange {
  path: string;
  change: "content" | "mode" | "added" | "removed" | "type" | "link";
  /** Octal modes, sizes in bytes, types, or targets of links. */
  from?: string;
  to?: string;
}

/** Why a step is no hit. */
export type Reason =
  /** The build was told to. */
  | { kind: "option"; option: string; value: string }
  /** No record has this definition. */
  | {
      kind: "definition";
      /** The step's former self in the build that filled the cache. */
      nearest: string | null;
      changes: string[];
      fields: FieldChange[];
    }
  /** The key is known and has no result whose layers are there. */
  | { kind: "no-layer"; records: number[]; missing: string[] }
  /** The content of an input is another one, or is not known. */
  | {
      kind: "content";
      input: number;
      /** The name of the context; null for anything else. */
      context: string | null;
      was: string | null;
      /** Null where it is not known: the context was not given. */
      is: string | null;
      /** The old files were found, and their key is that of the record. */
      proven: boolean;
      /** The paths of the input that the step takes, as it writes them. */
      paths: string[];
      files?: FileChange[];
      /** How many files the step takes. */
      total?: number;
    }
  /** The step is known, on top of something else. */
  | { kind: "parent"; input: number; step: string; was: string[]; is: string; source?: string }
  /** An image, a repository or a download is another one. */
  | {
      kind: "source";
      input: number;
      step: string;
      source: string;
      name: string;
      was: string | null;
      is: string | null;
    }
  /** What the step takes has to be made again. */
  | { kind: "upstream"; input: number; step: string; root: string[]; contentBased: boolean }
  /** The record was written by a BuildKit that computes other digests. */
  | { kind: "version"; text: string }
  /** The cache knows nothing of this build. */
  | { kind: "nothing" };

/** What reasons are found with. */
export interface ReasonSource {
  keys: BuildKeys;
  caches: readonly CacheKeys[];
  prediction: Prediction;
  contents: InputContents;
  /** The build that filled the cache, with its own keys. */
  was: BuildKeys | undefined;
  redactor: Redactor;
}

/** A record that is nearly a step's, and the inputs in which it is not. */
interface Candidate {
  cache: CacheKeys;
  record: number;
  failing: number[];
}

/** Finds the reasons of the steps of one build. */
export class Reasons {
  readonly #source: ReasonSource;
  readonly #former: FormerSteps | undefined;
  readonly #knowsNothing: boolean;
  readonly #names = new Map<RecordView, Map<number, RecordName[]>>();

  constructor(source: ReasonSource) {
    this.#source = source;
    const { keys, caches, was } = source;
    const digests = new Set(keys.digests.flat());
    this.#former =
      was &&
      new FormerSteps(
        was.build,
        was.digests.map(([first]) => first),
        digests,
      );
    this.#knowsNothing = caches.every(({ view, possible }) =>
      keys.build.steps.every(
        ({ kind }, at) =>
          SOURCE_KINDS.has(kind) ||
          (view.findOutput(keys.digests[at] ?? [], 0).length === 0 &&
            possible.of(at, 0).length === 0),
      ),
    );
  }

  /** The cache knows no step of the build. */
  get knowsNothing(): boolean {
    return this.#knowsNothing;
  }

  /** The step's former self, where the build that filled the cache is at hand. */
  former(at: number): BuildStep | undefined {
    const { build } = this.#source.keys;
    const step = build.steps[at] as BuildStep;
    const same = this.#former?.same(this.#source.keys.digests[at]?.[0]);
    return same ?? this.#nearest(step);
  }

  /** Why a step is no hit; nothing for one that is. */
  of(at: number): Reason[] {
    const { keys, prediction, caches } = this.#source;
    const step = keys.build.steps[at] as BuildStep;
    if (prediction.statuses[at] === "hit") return [];
    if (prediction.ignored[at]) {
      const value = keys.build.args["no-cache"] ?? "";
      return [{ kind: "option", option: value ? "no-cache-filter" : "no-cache", value }];
    }
    const digests = keys.digests[at] as readonly string[];
    const outputs = keys.outputs[at] as readonly number[];
    const candidates = caches.flatMap((cache) =>
      outputs.flatMap((output) =>
        cache.view
          .findOutput(digests, output)
          .map((record) => this.#candidate(cache, at, step, record)),
      ),
    );
    if (candidates.length === 0) return [this.#definition(step)];
    const [best] = candidates.toSorted((a, b) => a.failing.length - b.failing.length);
    if (!best || best.failing.length === 0) {
      const known = candidates.filter(({ failing }) => failing.length === 0);
      const followers = this.#upstream(at);
      return followers.length > 0 && known.some((one) => this.#hasResult(one))
        ? followers
        : [this.#noLayer(known)];
    }
    const reasons = best.failing.flatMap((input) => this.#failing(at, step, input, best));
    return reasons.length > 0 ? reasons : this.#upstream(at);
  }

  #hasResult({ cache, record }: Candidate): boolean {
    return cache.view.results(record).length > 0;
  }

  #candidate(cache: CacheKeys, at: number, step: BuildStep, record: number): Candidate {
    const { keys, contents } = this.#source;
    const recorded = cache.view.config.records[record]?.inputs ?? [];
    const failing = step.inputs.flatMap(({ step: from, output }, input) => {
      const need = keys.needs[at]?.[input];
      const known = new Set(cache.certain.of(from, output).map((key) => key.record));
      const alternatives = recorded[input] ?? [];
      const isFast = alternatives.some(
        ({ selector, link }) => selector === need?.selector && known.has(link),
      );
      if (isFast) return [];
      const digests = need?.content && contents.keys(at, input);
      const wanted = new Set(digests?.flatMap((digest) => cache.view.findContent(digest)));
      return alternatives.some(({ selector, link }) => selector === "" && wanted.has(link))
        ? []
        : [input];
    });
    return { cache, record, failing };
  }

  /** Why one input of a known record does not fit. */
  #failing(at: number, step: BuildStep, input: number, best: Candidate): Reason[] {
    const { keys, prediction, contents, was } = this.#source;
    const { step: from, output } = step.inputs[input] as { step: number; output: number };
    const source = keys.build.steps[from] as BuildStep;
    const need = keys.needs[at]?.[input];
    if (source.kind === "local") {
      const [is = null] = contents.keys(at, input) ?? [];
      const tree = contents.tree(at, input);
      const reason = {
        kind: "content" as const,
        input,
        context: contextName(source),
        was: contentLink(best, input),
        is: is === null ? (tree ? "" : null) : recordDigest(is, -1),
        proven: false,
        paths: need?.content?.map(({ path }) => path) ?? [],
      };
      return [reason];
    }
    const isKnown = best.cache.certain.of(from, output).length > 0;
    if (SOURCE_KINDS.has(source.kind)) {
      if (isKnown) return [this.#parent(step, input, best, { source: source.kind })];
      const old = was?.build.steps.find(
        (one) => one.kind === source.kind && sourceName(one) === sourceName(source),
      );
      return [
        {
          kind: "source",
          input,
          step: source.id,
          source: source.kind,
          name: sourceName(source),
          was: old && was ? sourceVersion(was.build, old) : null,
          is: sourceVersion(keys.build, source),
        },
      ];
    }
    if (prediction.statuses[from] !== "hit" || !isKnown)
      return [this.#follows(input, from, need?.content !== undefined)];
    return [this.#parent(step, input, best, {})];
  }

  #follows(input: number, from: number, contentBased: boolean): Reason {
    const { build } = this.#source.keys;
    const step = (build.steps[from] as BuildStep).id;
    return { kind: "upstream", input, step, root: [], contentBased };
  }

  /** The inputs that have to be made again. */
  #upstream(at: number): Reason[] {
    const { keys, prediction } = this.#source;
    return (keys.build.steps[at]?.inputs ?? []).flatMap(({ step: from }, input) =>
      prediction.statuses[from] === "hit"
        ? []
        : [this.#follows(input, from, keys.needs[at]?.[input]?.content !== undefined)],
    );
  }

  #parent(
    step: BuildStep,
    input: number,
    { cache, record }: Candidate,
    extra: { source?: string },
  ): Reason {
    const { build } = this.#source.keys;
    const source = build.steps[step.inputs[input]?.step ?? -1] as BuildStep;
    const links = cache.view.config.records[record]?.inputs[input] ?? [];
    const names = this.#namesIn(cache.view);
    const was = links.flatMap(({ link }) =>
      (names.get(link) ?? [])
        .filter(({ kind }) => kind !== "content")
        .map((name) => this.#source.redactor.instruction(recordNameText(name))),
    );
    const place = source.place ? ` (${source.place.file}:${source.place.line})` : "";
    return {
      kind: "parent",
      input,
      step: source.id,
      was: [...new Set(was)],
      is: this.#source.redactor.instruction(stepText(build, source)) + place,
      ...extra,
    };
  }

  #namesIn(view: RecordView): Map<number, RecordName[]> {
    const known = this.#names.get(view);
    if (known) return known;
    const { keys, was } = this.#source;
    const names = nameRecords(view, was ? [was.build, keys.build] : [keys.build]);
    this.#names.set(view, names);
    return names;
  }

  #definition(step: BuildStep): Reason {
    const { caches, redactor } = this.#source;
    const older = olderForm(step);
    if (older && caches.some(({ view }) => view.findOutput([older], 0).length > 0))
      return { kind: "version", text: "cache written by BuildKit 0.16 or older" };
    if (this.#knowsNothing && !this.#former) return { kind: "nothing" };
    const old = this.#nearest(step);
    const fields = old ? compareSteps(old, step, redactor) : [];
    return {
      kind: "definition",
      nearest: old?.id ?? null,
      changes: fields.map(changeText),
      fields,
    };
  }

  #nearest(step: BuildStep): BuildStep | undefined {
    const { keys, was } = this.#source;
    if (!was || !this.#former) return undefined;
    return this.#former.nearest(step, stepText(keys.build, step), (old) =>
      stepText(was.build, old),
    );
  }

  #noLayer(known: readonly Candidate[]): Reason {
    const missing = new Set<string>();
    for (const { cache, record } of known) {
      const { results, chains } = cache.view.config.records[record] ?? { results: [], chains: [] };
      const tops = [
        ...results.map(({ layer }) => layer),
        ...chains.flatMap(({ layers }) => layers),
      ];
      for (const top of tops)
        for (const layer of cache.view.chain(top) ?? []) {
          const blob = cache.view.config.layers[layer]?.blob;
          if (blob && !cache.view.lists(blob)) missing.add(blob);
        }
    }
    return {
      kind: "no-layer",
      records: [...new Set(known.map(({ record }) => record))],
      missing: [...missing],
    };
  }
}

/** The digest of the content record that a record links to. */
function contentLink({ cache, record }: Candidate, input: number): string | null {
  const link = (cache.view.config.records[record]?.inputs[input] ?? []).find(
    ({ selector, link: to }) => selector === "" && cache.view.isRoot(to),
  );
  return link ? (cache.view.config.records[link.link]?.digest ?? null) : null;
}

/** A source without what is different in each version of it. */
function sourceName(step: BuildStep): string {
  return step.kind === "image" ? imageName(step) : textIn(step.op["identifier"]);
}

/** The version of a source: a digest or a commit. */
function sourceVersion(build: Build, step: BuildStep): string | null {
  if (step.kind === "image") return imageDigest(build, step) ?? null;
  if (step.kind === "git") return gitCommit(build, step) ?? null;
  const identifier = textIn(step.op["identifier"]);
  const material = build.materials.find(({ uri }) => uri === identifier);
  return material?.digest["sha256"] ? `sha256:${material.digest["sha256"]}` : null;
}
