/** placeholder */
import type { Explanation } from "./explain.ts";

export function explainHtml(
  explanation: Explanation,
  _options: { all: boolean; hasWas: boolean },
): string {
  return JSON.stringify(explanation);
}
