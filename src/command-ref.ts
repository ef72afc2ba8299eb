/** `cacheport ref`: explains a reference by the rules of reference.ts. */
import { defineCommand } from "./cli-command.ts";
import { familiarReference, formatReference, normalizeReference } from "./reference.ts";
import type { NormalizedReference } from "./reference.ts";
import { formatTable } from "./cli-table.ts";

/** `cacheport ref NAME`: the parts of a reference, by Docker's rules. */
export const refCommand = defineCommand({
  name: "ref",
  summary: "Parse, normalise and explain an image reference",
  description:
    "Parses an image reference as Docker and BuildKit do and shows its parts, those included that the text leaves out. Nothing is looked up: no registry is asked. A text that is no reference ends with exit code 2 and the rule that it breaks.",
  operands: [
    {
      name: "NAME",
      description: "A reference: [HOST/]REPOSITORY[:TAG][@DIGEST]",
      kind: "text",
    },
  ],
  options: [],
  examples: [
    {
      command: "cacheport ref alpine",
      description: "What a short name stands for",
    },
    {
      command: "cacheport ref localhost:5000/team/app:1.0",
      description: "Where the host ends and the tag begins",
    },
    {
      command: "cacheport ref --json alpine | jq -r .canonical",
      description: "The full text, for scripts",
    },
  ],
  async run(context, args) {
    const text = args.operand(0);
    const reference = normalizeReference(text);
    const { domain, path, tag, digest } = reference;
    const familiar = familiarReference(reference);
    const canonical = formatReference(reference);
    await context.result({ domain, path, tag, digest, familiar, canonical }, () =>
      formatTable(
        [{ title: "PART" }, { title: "VALUE" }, { title: "MEANING" }],
        [
          ["domain", domain, explainDomain(text, domain)],
          ["path", path, explainPath(text, reference)],
          ["tag", tag ?? "-", explainTag(text, reference)],
          ["digest", digest ?? "-", explainDigest(reference)],
          ["familiar", familiar, "the short form that Docker shows"],
          ["canonical", canonical, "the full form, with nothing left out"],
        ],
        { colors: context.colors },
      ),
    );
  },
});

function explainDomain(text: string, domain: string): string {
  if (text.startsWith(`${domain}/`)) return "the registry";
  return text.startsWith("index.docker.io/")
    ? "the registry; index.docker.io is its old name"
    : "the registry; a name without a host is on docker.io";
}

function explainPath(text: string, { domain, path }: NormalizedReference): string {
  return domain === "docker.io" && !text.includes(path)
    ? "the repository; library/ holds Docker's official images"
    : "the repository";
}

function explainTag(text: string, { tag, digest }: NormalizedReference): string {
  if (tag === null) return "none: the digest says what is meant";
  if (digest !== null) return "the tag; the digest takes precedence over it";
  return text.endsWith(`:${tag}`)
    ? "the tag"
    : "the tag; latest where neither tag nor digest is given";
}

function explainDigest({ digest }: NormalizedReference): string {
  return digest === null
    ? "none: the tag may move to other content"
    : "the content itself, whatever the tag says";
}
