/**
 * What a registry wants its users to know: the text of `Warning: 299` headers.
 *
 * Source: OCI distribution-spec, "Warnings" (code 299, agent `-`).
 */
import { cleanText } from "./registry-errors.ts";

/** Texts that one registry may have shown in one run. */
const MAX_WARNINGS = 10;
/** What has been told to whom: several connections of one command share their reader. */
const told = new WeakMap<(text: string) => void, Set<string>>();

/** Shows each warning of a registry once. */
export class Warnings {
  readonly #domain: string;
  readonly #note: ((text: string) => void) | undefined;
  readonly #redact: (text: string) => string;
  #count = 0;

  constructor(
    domain: string,
    note: ((text: string) => void) | undefined,
    redact: (text: string) => string,
  ) {
    this.#domain = domain;
    this.#note = note;
    this.#redact = redact;
  }

  /** Takes a Warning header, which may hold several. */
  tell(header: string | null): void {
    if (header === null || this.#note === undefined) return;
    for (const [, quoted = ""] of header.slice(0, 4096).matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g)) {
      const text = cleanText(this.#redact(quoted.replace(/\\(.)/g, "$1")));
      if (text !== "") this.say(`Registry ${this.#domain} warns: ${text}`);
    }
  }

  /** Says something unless it has been said. */
  say(text: string): void {
    const note = this.#note;
    if (note === undefined || this.#count >= MAX_WARNINGS) return;
    const said = told.get(note) ?? new Set();
    told.set(note, said);
    if (said.has(text)) return;
    said.add(text);
    this.#count += 1;
    note(text);
  }
}
