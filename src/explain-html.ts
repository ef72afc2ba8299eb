/** An explanation as one HTML page: the steps by stage, and for each the reason. */
import { fillPage } from "./cli-page.ts";
import type { Explanation, StepStatus } from "./explain.ts";
import page from "./explain-page.html" with { type: "text" };
import script from "./explain-page.js" with { type: "text" };
import style from "./explain-page.css" with { type: "text" };
import { costText, secondsText, SHORTEST, summaryText, Words } from "./explain-words.ts";
import { NAME, VERSION } from "./version.ts";

/** One step, as the page's script reads it. */
interface PageStep {
  platform: string;
  id: string;
  stage: string;
  name: string;
  place: string;
  line: number | null;
  status: StepStatus;
  /** `hit`, `miss`, `maybe` or `?`. */
  word: string;
  isRoot: boolean;
  note: string;
  /** What is said where there is no note. */
  sentence: string;
  details: string[];
  time: string | null;
  was: string | null;
  layer: string | null;
  record: string | null;
  inputs: string[];
  roots: string[];
}

/** What the page's script reads. */
export interface PageData {
  title: string;
  identity: string;
  made: string;
  sentence: string;
  count: number;
  hit: number;
  miss: number;
  maybe: number;
  platforms: number;
  steps: PageStep[];
  costs: [text: string, seconds: number, step: string][];
  hints: string[];
}

const SENTENCES: Record<StepStatus, string> = {
  hit: "The cache has this step, on top of the same inputs.",
  miss: "The cache does not serve this step.",
  maybe: "It depends on files that are not made yet.",
};

/** Writes the page. The same explanation always gives the same bytes. */
export function explainHtml(
  explanation: Explanation,
  options: { all: boolean; hasWas: boolean },
): string {
  return fillPage(page as unknown as string, {
    style,
    scripts: [script],
    data: explainPageData(explanation, options),
  });
}

/** The explanation in the form that the page's script reads. */
export function explainPageData(
  explanation: Explanation,
  options: { all: boolean; hasWas: boolean },
): PageData {
  const words = new Words(explanation, { ...options, all: true });
  const { summary, caches, builds } = explanation;
  const steps = explanation.steps.filter(({ internal }) => !internal || options.all);
  const shown = new Set(steps.map(({ platform, id }) => `${platform} ${id}`));
  const byKey = new Map(explanation.steps.map((step) => [`${step.platform} ${step.id}`, step]));
  /** Helper steps are passed over: what they take is what the step takes. */
  const inputsOf = (platform: string, ids: readonly string[], depth = 0): string[] =>
    ids.flatMap((id) => {
      if (shown.has(`${platform} ${id}`)) return [id];
      const hidden = byKey.get(`${platform} ${id}`);
      return hidden && depth < 8 ? inputsOf(platform, hidden.inputs, depth + 1) : [];
    });
  return {
    title: caches.map(({ location }) => location).join(", "),
    identity: `for the build ${[...new Set(builds.map(({ source }) => source))].join(", ")}`,
    made: `Made by ${NAME} ${VERSION}.`,
    sentence: summaryText(explanation),
    count: summary.steps,
    hit: summary.hit,
    miss: summary.miss,
    maybe: summary.maybe,
    platforms: new Set(steps.map(({ platform }) => platform)).size,
    steps: steps.map((step): PageStep => {
      const said = words.of(step);
      return {
        platform: step.platform,
        id: step.id,
        stage: step.stage ?? "",
        name: step.name,
        place: step.line === null ? "" : `${step.file}:${step.line}`,
        line: step.line,
        status: step.status,
        word: said.status.toLowerCase(),
        isRoot: said.status === "MISS",
        note: said.note,
        sentence: SENTENCES[step.status],
        details: said.details,
        time: step.seconds === null || step.seconds < SHORTEST ? null : secondsText(step.seconds),
        was: step.was,
        layer: step.layer,
        record: step.recordDigest,
        inputs: [...new Set(inputsOf(step.platform, step.inputs))],
        roots: [
          ...new Set(step.why.flatMap((reason) => (reason.kind === "upstream" ? reason.root : []))),
        ],
      };
    }),
    costs: explanation.costs
      .filter(({ seconds }) => seconds > 0)
      .slice(0, 8)
      .map((cost) => [costText(cost, words), cost.seconds, `${cost.platform} ${cost.step}`]),
    hints: explanation.hints.map(({ text }) => text),
  };
}
