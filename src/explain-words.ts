/** The reasons of an explanation as words: the same in the terminal, in Markdown and on the page. */
import type { Explanation, ExplainedStep, FileChange, Reason } from "./explain.ts";
import { changeText } from "./explain-compare.ts";

/** What is said of a step: a short note beside it, and lines below it. */
export interface StepWords {
  /** `hit`, `MISS`, `miss`, `maybe` or `?`; what the log of the build says comes first. */
  status: "hit" | "MISS" | "miss" | "maybe" | "?";
  note: string;
  details: string[];
}

/** Files of one step that are shown unless all are asked for. */
const SHOWN_FILES = 12;

/** Says what becomes of each step, with the steps at hand that it refers to. */
export class Words {
  readonly #steps: ReadonlyMap<string, ExplainedStep>;
  readonly #all: boolean;
  readonly #hasWas: boolean;

  /**
   * @param hasWas The build that filled the cache is at hand.
   * @param all Show every file.
   */
  constructor({ steps }: Explanation, options: { all: boolean; hasWas: boolean }) {
    this.#steps = new Map(steps.map((step) => [stepKey(step), step]));
    this.#all = options.all;
    this.#hasWas = options.hasWas;
  }

  /** What is said of a step. */
  of(step: ExplainedStep): StepWords {
    const own = step.why.filter(isOwnReason);
    const [first] = own;
    const isUnknown = first?.kind === "content" && first.is === null && step.status === "maybe";
    const status =
      step.status === "hit"
        ? "hit"
        : isUnknown
          ? "?"
          : step.status === "maybe"
            ? "maybe"
            : own.some(({ kind }) => kind !== "nothing")
              ? "MISS"
              : "miss";
    const said = first ? this.#reason(first, step) : this.#follows(step);
    const more = own.slice(1).map((reason) => {
      const { note, details } = this.#reason(reason, step);
      return [note, ...details.map((line) => `  ${line}`)];
    });
    const note = [said.note, this.#surprise(step)].filter((part) => part !== "").join("; ");
    return { status, note, details: [...said.details, ...more.flat()] };
  }

  /** What a step is called in a sentence: its line, else its name. */
  stepName(platform: string, id: string): string {
    const step = this.#steps.get(`${platform} ${id}`);
    if (!step) return id;
    return step.line === null ? step.name : `line ${step.line}`;
  }

  /** Where the log of the build says otherwise. */
  #surprise({ was, status, internal }: ExplainedStep): string {
    if (internal) return "";
    if (was === "run" && status === "hit")
      return "was run, though the cache has it: the import failed or took another reference";
    if (was === "cached" && status === "miss")
      return "was cached all the same: by another cache or the builder's own";
    return "";
  }

  #follows(step: ExplainedStep): { note: string; details: string[] } {
    if (step.lost) {
      const { orders, of } = step.lost;
      return { note: `lost by BuildKit's import in ${orders} of ${of} orders`, details: [] };
    }
    const upstream = step.why.filter((reason) => reason.kind === "upstream");
    if (upstream.length === 0) return { note: "", details: [] };
    const roots = [...new Set(upstream.flatMap(({ root }) => root))].slice(0, 3);
    const names = roots.map((root) => this.stepName(step.platform, root)).join(" and ");
    if (step.status !== "maybe") return { note: `follows ${names || "its input"}`, details: [] };
    const direct = upstream.find(({ contentBased }) => contentBased);
    const maker = direct && this.stepName(step.platform, direct.step);
    if (maker) return { note: `hit if ${maker} makes the same files`, details: [] };
    const [before] = upstream.map((reason) => this.stepName(step.platform, reason.step));
    return { note: `follows ${before}`, details: [] };
  }

  #reason(reason: Reason, step: ExplainedStep): { note: string; details: string[] } {
    const plain = (note: string): { note: string; details: string[] } => ({ note, details: [] });
    switch (reason.kind) {
      case "option":
        return plain(
          reason.value === ""
            ? "built with --no-cache"
            : `built with --no-cache-filter ${reason.value}`,
        );
      case "definition":
        return this.#definition(reason);
      case "no-layer":
        return plain(
          step.internal
            ? "made anew by each build"
            : reason.missing.length > 0
              ? "known, but its layer is not in the cache any more (evicted)"
              : "known, but the cache has no layer for it (mode=min, or pruned)",
        );
      case "content":
        return this.#content(reason);
      case "parent": {
        if (reason.was.includes(reason.is)) return plain(`another version of ${reason.is}`);
        const was = reason.was.length > 0 ? reason.was.join(" or ") : "something else";
        return plain(`cached after ${was}, now after ${reason.is}`);
      }
      case "source":
        return plain(this.#source(reason));
      case "version":
        return plain(reason.text);
      case "nothing":
        return plain("not in this cache");
      case "upstream":
        return this.#follows(step);
    }
  }

  #definition({ fields, nearest }: Extract<Reason, { kind: "definition" }>): {
    note: string;
    details: string[];
  } {
    if (nearest === null)
      return {
        note: this.#hasWas ? "new: the old build has no step like it" : "not in this cache",
        details: [],
      };
    const texts = fields.map(changeText);
    const [first = "its definition differs"] = texts;
    return texts.length <= 1
      ? { note: first, details: [] }
      : { note: `${texts.length} fields differ`, details: texts };
  }

  #content({ is, files, total, context, paths }: Extract<Reason, { kind: "content" }>): {
    note: string;
    details: string[];
  } {
    const option =
      context === null || context === "context" ? "--context DIR" : `--context ${context}=DIR`;
    if (is === null) return { note: `give ${option} to know`, details: [] };
    if (is === "") return { note: "a file that it takes is not in the context", details: [] };
    if (!files || files.length === 0)
      return { note: `${pathsText(paths)} (the cache does not tell more)`, details: [] };
    const of = total === undefined ? "" : ` of ${total}`;
    const count = `${files.length}${of} ${files.length === 1 && !of ? "file differs" : "files differ"}`;
    const shown = this.#all ? files : files.slice(0, SHOWN_FILES);
    const rest = files.length - shown.length;
    const details = fileLines(shown);
    if (rest > 0) details.push(`... and ${rest} more (--all shows them)`);
    return { note: count.replace(/^1 of (\d+) files differ/, "1 of $1 files differs"), details };
  }

  #source({ source, name, was, is }: Extract<Reason, { kind: "source" }>): string {
    const what = source === "image" ? `base image ${name} moved` : `${name} is another version`;
    if (was === null || is === null || was === is) return what;
    return `${what}: ${shortVersion(was)} -> ${shortVersion(is)}`;
  }
}

/**
 * Tells whether a reason is the step's own, not that of what it takes. Another version
 * of a download looks like another parent of the same name where nothing else is known.
 */
function isOwnReason(reason: Reason, _at: number, all: readonly Reason[]): boolean {
  if (reason.kind === "parent" && reason.was.includes(reason.is)) return all.length === 1;
  return reason.kind !== "upstream";
}

function stepKey({ platform, id }: ExplainedStep): string {
  return `${platform} ${id}`;
}

function shortVersion(version: string): string {
  return version.replace(/^sha\d+:/, "").slice(0, 12);
}

/** The paths that a step takes, where no more is known of what differs. */
function pathsText(paths: readonly string[]): string {
  const [first = "/", ...others] = paths;
  if (others.length === 0 && first === "/") return "files of the context differ";
  if (others.length === 0) return `${first.slice(1)} differs`;
  return `some of ${first.slice(1)} and ${others.length} more paths differ`;
}

/** Files and what is different of each, in two columns. */
export function fileLines(files: readonly FileChange[]): string[] {
  const width = Math.min(
    48,
    files.reduce((most, { path }) => Math.max(most, path.length), 0),
  );
  return files.map((file) => `${file.path.padEnd(width)}  ${fileChangeText(file)}`);
}

/** What is different of a file: `mode 755 -> 775`, `3 B -> 11 B`. */
export function fileChangeText({ change, from, to }: FileChange): string {
  const both = from !== undefined && to !== undefined ? ` ${from} -> ${to}` : "";
  return change + both;
}

/** Seconds below which no time is worth a word. */
export const SHORTEST = 0.1;

/** A time for people: `0.07 s`, `41 s`, `2 min 10 s`. */
export function secondsText(seconds: number): string {
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The first line: how many steps there are and what becomes of them. */
export function summaryText({ summary, steps }: Explanation): string {
  const { steps: count, hit, miss, maybe } = summary;
  const parts = [`${hit} cached`];
  if (miss > 0) parts.push(`${miss} run again`);
  if (maybe > 0) {
    const unknown = steps.filter(({ status, internal }) => status === "maybe" && !internal);
    const needs = new Set(
      unknown.flatMap(({ why }) =>
        why.flatMap((reason) => (reason.kind === "content" && reason.is === null ? ["files"] : [])),
      ),
    );
    const [first] = unknown.flatMap(({ why, platform }) =>
      why.flatMap((reason) =>
        reason.kind === "upstream" && reason.contentBased ? [`${platform} ${reason.step}`] : [],
      ),
    );
    const maker = steps.find((step) => stepKey(step) === first);
    parts.push(
      needs.size > 0
        ? `${maybe} depend on files that were not given`
        : maker?.line
          ? `${maybe} ${maybe === 1 ? "depends" : "depend"} on what line ${maker.line} makes`
          : `${maybe} not certain`,
    );
  }
  return `${count} ${count === 1 ? "step" : "steps"}: ${parts.join(", ")}`;
}

/** What a root cause costs, in a sentence. */
export function costText(
  { seconds, step, platform }: Explanation["costs"][number],
  words: Words,
): string {
  return `${words.stepName(platform, step)} costs ${secondsText(seconds)} in this build`;
}
