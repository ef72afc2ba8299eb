/**
 * The content of a build's inputs, as far as it is at hand: context folders, and
 * documents that stand in the Dockerfile itself.
 */
import type { Build, BuildStep } from "./explain-build.ts";
import { contentForms, contentKey } from "./explain-content.ts";
import { ContextTree } from "./explain-context.ts";
import { attributes, fileActions, numberIn, textIn } from "./explain-digest.ts";
import type { BuildKeys } from "./explain-match.ts";
import { isInlineDocument } from "./explain-names.ts";
import { bytesEntry, directoryEntry, MemoryTree } from "./explain-tree.ts";
import type { FileTree } from "./explain-tree.ts";
import { isJsonObject } from "./go-json.ts";
import { posix } from "./paths.ts";

/** The folders that the user gave, by the name of the context. */
export type ContextFolders = ReadonlyMap<string, string>;

/** The name by which a build knows its own context. */
export const MAIN_CONTEXT = "context";

/** What a step's inputs hold. */
export class InputContents {
  readonly #keys: BuildKeys;
  readonly #folders: ContextFolders;
  readonly #later: readonly string[];
  readonly #trees = new Map<number, FileTree | undefined>();
  readonly #digests = new Map<string, readonly string[] | undefined>();

  /** @param later Whole paths of files that came after the build had read its contexts. */
  constructor(keys: BuildKeys, folders: ContextFolders, later: readonly string[] = []) {
    this.#keys = keys;
    this.#later = later;
    this.#folders = folders;
  }

  /**
   * The content keys that an input may have: none where a file is not there, undefined
   * where the content is not at hand.
   */
  keys(step: number, input: number): readonly string[] | undefined {
    const id = `${step}:${input}`;
    if (this.#digests.has(id)) return this.#digests.get(id);
    const tree = this.tree(step, input);
    const selectors = this.#keys.needs[step]?.[input]?.content;
    const key = tree && selectors && contentKey(tree, selectors);
    const digests = tree && selectors ? (key ? contentForms(key) : []) : undefined;
    this.#digests.set(id, digests);
    return digests;
  }

  /** The files of an input; undefined where they are not at hand. */
  tree(step: number, input: number): FileTree | undefined {
    const from = this.#keys.build.steps[step]?.inputs[input]?.step;
    if (from === undefined) return undefined;
    if (!this.#trees.has(from)) this.#trees.set(from, this.#open(from));
    return this.#trees.get(from);
  }

  #open(at: number): FileTree | undefined {
    const step = this.#keys.build.steps[at] as BuildStep;
    if (step.kind === "local") return openContext(step, this.#folders, this.#later);
    return isInlineDocument(step) ? inlineTree(step) : undefined;
  }
}

/** What a local source is called: `context`, or the name of a named context. */
export function contextName(step: BuildStep): string {
  return textIn(step.op["identifier"]).replace(/^local:\/\//, "");
}

function openContext(
  step: BuildStep,
  folders: ContextFolders,
  later: readonly string[],
): FileTree | undefined {
  const name = contextName(step);
  const folder = folders.get(name) ?? folders.get(name.replace(/^[^:]*:/, ""));
  if (folder === undefined) return undefined;
  const attrs = attributes(step);
  return new ContextTree(
    folder,
    patternsOf(attrs["local.excludepatterns"]),
    patternsOf(attrs["local.includepatterns"]),
    later,
  );
}

/** The patterns by which files of a local source are left out. */
export function excludePatterns(step: BuildStep): string[] {
  return patternsOf(attributes(step)["local.excludepatterns"]);
}

function patternsOf(text: string | undefined): string[] {
  if (text === undefined) return [];
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
  } catch {
    return [];
  }
}

/** The files that a document of the Dockerfile becomes; undefined where an owner is not known. */
function inlineTree(step: BuildStep): FileTree | undefined {
  const tree = new MemoryTree();
  for (const { kind, action } of fileActions(step)) {
    if (isJsonObject(action["owner"])) return undefined;
    const path = posix.join("/", textIn(action["path"])).replace(/\/$/, "");
    const mode = numberIn(action["mode"]) & 0o7777;
    if (kind === "mkdir") tree.set(path, directoryEntry(mode));
    else tree.set(path, bytesEntry(Buffer.from(textIn(action["data"]), "base64"), mode));
  }
  return tree;
}

/** The steps of a build that read a context, by its name. */
export function contextsOf({ steps }: Build): string[] {
  return [...new Set(steps.filter(({ kind }) => kind === "local").map(contextName))];
}
