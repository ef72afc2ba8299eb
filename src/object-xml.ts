/**
 * The little XML that object stores speak: flat elements with text. Nothing of it is
 * trusted, and of what has another form nothing is found.
 */

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };
const decoder = new TextDecoder();

/** The contents of all elements of a name, in their order; an element of that name in another one is not found. */
export function xmlElements(xml: Uint8Array | string, name: string): string[] {
  const text = typeof xml === "string" ? xml : decoder.decode(xml);
  const found: string[] = [];
  const start = new RegExp(`<${name}(?:\\s[^>]*)?(/?)>`, "g");
  for (let match = start.exec(text); match; match = start.exec(text)) {
    if (match[1]) {
      found.push("");
      continue;
    }
    const end = text.indexOf(`</${name}>`, start.lastIndex);
    if (end === -1) break;
    found.push(text.slice(start.lastIndex, end));
    start.lastIndex = end;
  }
  return found;
}

/** The text of the first element of a name; undefined when there is none. */
export function xmlText(xml: Uint8Array | string, name: string): string | undefined {
  const [first] = xmlElements(xml, name);
  return first === undefined ? undefined : unescapeXml(first);
}

/** A text as it stands in an element. */
export function escapeXml(text: string): string {
  return text.replace(/[<>&"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function unescapeXml(text: string): string {
  return text
    .replace(/<!\[CDATA\[([\s\S]*?)\]\]>/g, "$1")
    .replace(/&(?:#(\d{1,7})|#x([0-9a-fA-F]{1,6})|(\w+));/g, (whole, decimal, hex, name) => {
      if (name !== undefined) return ENTITIES[name] ?? whole;
      const code = decimal === undefined ? Number.parseInt(hex, 16) : Number(decimal);
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    });
}
