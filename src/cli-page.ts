/**
 * Pages that need nothing else: no network, no fonts, no other files. A page is its HTML
 * with the style sheet, the scripts and the data in their places.
 */
import kit from "./cli-page-kit.js" with { type: "text" };

/**
 * Puts a page together.
 *
 * @param page HTML with a comment for each of `style`, `data` and `script`.
 * @param scripts Modules in an order in which each stands after those that it imports
 *   from; a page without a network cannot import, so they become one script, and no two
 *   use one name.
 */
export function fillPage(
  page: string,
  { style, scripts, data }: { style: string; scripts: readonly string[]; data: unknown },
): string {
  const script = [kit as unknown as string, ...scripts]
    .map((part) => part.replaceAll(/^import [^;]+;\n/gm, "").replaceAll(/^export /gm, ""))
    .join("\n");
  const parts: Record<string, string> = {
    "/* style */": style,
    // In a script element `<` could end it, or start a comment that hides the rest.
    "/* data */": JSON.stringify(data).replaceAll("<", String.raw`\u003c`),
    "/* script */": script,
  };
  return page.replace(/\/\* (?:style|data|script) \*\//g, (place) =>
    (parts[place] as string).trim(),
  );
}
