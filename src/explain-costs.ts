/** Root causes: where each miss began, and what it costs. */
import type { StepStatus } from "./explain-predict.ts";
import type { Reason } from "./explain-reason.ts";

/** What of a step counts here. */
interface CostStep {
  platform: string;
  id: string;
  line: number | null;
  status: StepStatus;
  seconds: number | null;
  internal: boolean;
  why: readonly Reason[];
}

/** What one root cause costs. */
export interface RootCost {
  platform: string;
  step: string;
  line: number | null;
  /** Of the steps that run again because of it, itself among them. */
  seconds: number;
  steps: number;
}

/** A number with two digits behind the point. */
export function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** Says of each step that follows others where it all began. */
export function addRoots(steps: readonly CostStep[]): void {
  const byId = new Map(steps.map((step) => [step.id, step]));
  const roots = new Map<string, string[]>();
  const rootsOf = (id: string): string[] => {
    const known = roots.get(id);
    if (known) return known;
    roots.set(id, []);
    const step = byId.get(id);
    const own = step?.why.some(({ kind }) => kind !== "upstream") === true;
    const found = own
      ? [id]
      : [
          ...new Set(
            step?.why.flatMap((one) => (one.kind === "upstream" ? rootsOf(one.step) : [])),
          ),
        ];
    roots.set(id, found);
    return found;
  };
  // Inputs stand before the steps that take them, so that this never goes deep.
  for (const { id } of steps) rootsOf(id);
  for (const { why } of steps)
    for (const reason of why) if (reason.kind === "upstream") reason.root = rootsOf(reason.step);
}

/** What each root cause costs, the most expensive first. */
export function rootCosts(steps: readonly CostStep[]): RootCost[] {
  const costs = new Map<string, RootCost>();
  const byKey = new Map(steps.map((step) => [`${step.platform} ${step.id}`, step]));
  for (const step of steps) {
    if (step.status === "hit") continue;
    const isRoot = step.why.some(({ kind }) => kind !== "upstream");
    const [root] = isRoot
      ? [step.id]
      : step.why.flatMap((reason) => (reason.kind === "upstream" ? reason.root : []));
    const first = byKey.get(`${step.platform} ${root}`);
    if (!first || first.internal) continue;
    const key = `${step.platform} ${first.id}`;
    const known = costs.get(key) ?? {
      platform: step.platform,
      step: first.id,
      line: first.line,
      seconds: 0,
      steps: 0,
    };
    known.seconds = round(known.seconds + (step.seconds ?? 0));
    known.steps++;
    costs.set(key, known);
  }
  return [...costs.values()].toSorted((a, b) => b.seconds - a.seconds || b.steps - a.steps);
}
