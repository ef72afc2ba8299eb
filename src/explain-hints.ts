/**
 * Hints: what is behind a miss as a rule, and what to do about it.
 */
import type { ImportLosses } from "./cache-import.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Build, BuildStep } from "./explain-build.ts";
import { objectsIn, textIn } from "./explain-digest.ts";
import { contextName, excludePatterns } from "./explain-input.ts";
import type { InputContents } from "./explain-input.ts";
import type { BuildKeys } from "./explain-match.ts";
import type { Reason, Reasons } from "./explain-reason.ts";
import { isJsonObject } from "./go-json.ts";
import { IMPORT_LIMIT } from "./cache-manifest.ts";
import { importLossText } from "./explain-losses.ts";
import type { StepLoss } from "./explain-losses.ts";
import { PatternList } from "./explain-patterns.ts";

/** A hint. */
export interface Hint {
  /** Stable, for scripts. */
  code: string;
  /** Ids of the steps that it is about. */
  steps: string[];
  text: string;
}

/** What hints are found in. */
export interface HintSource {
  build: Build;
  keys: BuildKeys;
  was: BuildKeys | undefined;
  contents: InputContents;
  steps: readonly {
    id: string;
    line: number | null;
    status: string;
    internal: boolean;
    lost: StepLoss | null;
    why: readonly Reason[];
  }[];
  reasons: Reasons;
  losses: readonly (ImportLosses | undefined)[];
  caches: readonly { location: string; manifest: Descriptor; blob: { descriptor: Descriptor } }[];
}

/** Finds the hints for one build. */
export function findHints(source: HintSource): Hint[] {
  return [
    ...nothingKnown(source),
    ...tooLarge(source),
    ...noCache(source),
    ...missingContext(source),
    ...modeOnly(source),
    ...sentForNothing(source),
    ...unusedVariables(source),
    ...movedBase(source),
    ...missingLayers(source),
    ...olderBuildKit(source),
    ...lostByImport(source),
  ];
}

function nothingKnown({ reasons, caches }: HintSource): Hint[] {
  if (!reasons.knowsNothing) return [];
  const where = caches.map(({ location }) => location).join(", ");
  const text = `${where} knows no step of this build: it is the cache of another Dockerfile, branch or platform, or another reference was meant`;
  return [{ code: "nothing-known", steps: [], text }];
}

function tooLarge({ caches }: HintSource): Hint[] {
  return caches.flatMap(({ location, manifest, blob }) =>
    [manifest, blob.descriptor]
      .filter(({ size }) => size > IMPORT_LIMIT)
      .map(({ digest, size }) => ({
        code: "over-import-limit",
        steps: [],
        text: `${location}: ${digest.slice(0, 19)} has ${size} bytes and BuildKit imports no document over 1 MiB, so it takes nothing from this cache; cacheport prune makes it smaller`,
      })),
  );
}

function noCache({ build, steps }: HintSource): Hint[] {
  const value = build.args["no-cache"];
  if (value === undefined) return [];
  const ids = steps
    .filter(({ why }) => why.some(({ kind }) => kind === "option"))
    .map(({ id }) => id);
  return [
    {
      code: "no-cache",
      steps: ids,
      text:
        value === ""
          ? "the build was started with --no-cache: no step is taken from any cache"
          : `the build was started with --no-cache-filter ${value}: the steps of these stages are taken from no cache`,
    },
  ];
}

function missingContext({ steps }: HintSource): Hint[] {
  const missing = new Map<string, string[]>();
  for (const { id, why } of steps)
    for (const reason of why)
      if (reason.kind === "content" && reason.is === null) {
        const name = reason.context ?? "context";
        missing.set(name, [...(missing.get(name) ?? []), id]);
      }
  return [...missing].map(([name, ids]) => ({
    code: "context-missing",
    steps: ids,
    text:
      name === "context"
        ? "give the folder that was built with --context DIR to know whether its files are the same"
        : `give the folder of the context "${name}" with --context ${name}=DIR to know whether its files are the same`,
  }));
}

function modeOnly({ steps }: HintSource): Hint[] {
  const ids: string[] = [];
  const changes = new Map<string, string>();
  for (const { id, why } of steps)
    for (const reason of why) {
      if (reason.kind !== "content" || !reason.files) continue;
      const others = new Set(
        reason.files.filter(({ change }) => change !== "mode").map(({ path }) => path),
      );
      const only = reason.files.filter(
        ({ change, path }) => change === "mode" && !others.has(path),
      );
      if (only.length > 0) ids.push(id);
      for (const { path, from, to } of only) changes.set(path, `${from} -> ${to}`);
    }
  const [first] = changes;
  if (!first) return [];
  const [path, change] = first;
  const what =
    changes.size === 1
      ? `only the mode of ${path} differs (${change})`
      : `only the modes of ${changes.size} files differ, as of ${path} (${change})`;
  return [
    {
      code: "mode-only",
      steps: ids,
      text: `${what}: set umask 022 before git checkout, or chmod in CI, so that a checkout has the same modes everywhere`,
    },
  ];
}

/** What is sent with `COPY . .` and changes with every commit. */
function sentForNothing({ build, keys, steps, contents }: HintSource): Hint[] {
  const hints: Hint[] = [];
  const positions = new Map(build.steps.map(({ id }, at) => [id, at]));
  const dockerfile = build.steps.find(({ place }) => place)?.place?.file ?? "Dockerfile";
  for (const { id, status, why } of steps) {
    if (status === "hit") continue;
    const at = positions.get(id) ?? -1;
    build.steps[at]?.inputs.forEach(({ step: from }, input) => {
      const source = build.steps[from] as BuildStep;
      const selectors = keys.needs[at]?.[input]?.content;
      if (source.kind !== "local" || contextName(source) !== "context" || !selectors) return;
      const isWhole = selectors.length === 0 || selectors.some(({ path }) => path === "/");
      if (!isWhole) return;
      const excluded = new PatternList(excludePatterns(source));
      const tree = contents.tree(at, input);
      const changed = new Set(
        why.flatMap((reason) =>
          reason.kind === "content" ? (reason.files ?? []).map(({ path }) => path) : [],
        ),
      );
      const sent: [string, string][] = [
        ["git-sent", ".git"],
        ["dockerfile-sent", dockerfile],
      ];
      for (const [code, path] of sent) {
        const isSent = tree ? tree.entry(`/${path}`) !== undefined : false;
        const isChanged = [...changed].some((one) => one === path || one.startsWith(`${path}/`));
        if (!isSent || excluded.match(path).isMatch || (code !== "git-sent" && !isChanged))
          continue;
        hints.push({
          code,
          steps: [id],
          text: `${path} is sent to the builder and taken by this step: add it to .dockerignore`,
        });
      }
    });
  }
  return hints;
}

/** Variables that changed and stand in no command of the steps that miss for them. */
function unusedVariables({ build, steps }: HintSource): Hint[] {
  const byId = new Map(build.steps.map((step) => [step.id, step]));
  const users = new Map<string, { ids: string[]; lines: number[]; isUsed: boolean }>();
  for (const { id, line, why } of steps)
    for (const reason of why) {
      if (reason.kind !== "definition") continue;
      const variables = reason.fields.filter(({ field }) => field.startsWith("env "));
      if (variables.length === 0 || variables.length < reason.fields.length) continue;
      const command = commandOf(byId.get(id));
      for (const { field } of variables) {
        const name = field.slice(4);
        const known = users.get(name) ?? { ids: [], lines: [], isUsed: false };
        const isUsed = new RegExp(`\\b${name.replaceAll(/\W/g, "\\$&")}\\b`).test(command);
        if (isUsed) known.isUsed = true;
        else if (!known.isUsed) {
          known.ids.push(id);
          if (line !== null) known.lines.push(line);
        }
        users.set(name, known);
      }
    }
  return [...users].flatMap(([name, { ids, lines }]): Hint[] => {
    if (ids.length === 0) return [];
    const where = linesText(lines);
    const last = Math.max(0, ...lines);
    const origin = originOf(build, name, Math.min(...lines));
    const word = origin?.keyword ?? "ARG or ENV";
    return [
      {
        code: "variable-unused",
        steps: ids,
        text: `declare ${word} ${name}${origin ? ` (line ${origin.line})` : ""} after line ${last}: ${where} ${lines.length === 1 ? "does not use it in its" : "do not use it in their"} command${lines.length === 1 ? "" : "s"}, and a new value makes ${lines.length === 1 ? "it" : "them"} run again`,
      },
    ];
  });
}

/** `line 11`, `lines 11 and 12`, `lines 3, 5 and 7`. */
function linesText(lines: readonly number[]): string {
  if (lines.length === 0) return "steps";
  const distinct = [...new Set(lines)];
  const last = distinct.pop();
  return distinct.length === 0 ? `line ${last}` : `lines ${distinct.join(", ")} and ${last}`;
}

/** Where a variable is declared: the last ARG or ENV with its name above a line. */
export function originOf(
  build: Build,
  name: string,
  above: number,
): { keyword: string; line: number } | undefined {
  const word = new RegExp(`(?:^|\\s)${name.replaceAll(/\W/g, "\\$&")}(?:=|\\s|$)`);
  for (const instructions of build.instructions.values()) {
    const found = instructions
      .filter(({ keyword }) => keyword === "ARG" || keyword === "ENV")
      .findLast(({ line, text, keyword }) => line < above && word.test(text.slice(keyword.length)));
    if (found) return { keyword: found.keyword, line: found.line };
  }
  return undefined;
}

function commandOf(step: BuildStep | undefined): string {
  const meta = step?.op["meta"];
  if (!step || !isJsonObject(meta) || !Array.isArray(meta["args"])) return "";
  const mounts = objectsIn(step.op["mounts"]).map((mount) => textIn(mount["dest"]));
  return [...meta["args"].filter((one) => typeof one === "string"), ...mounts].join(" ");
}

function movedBase({ steps }: HintSource): Hint[] {
  const moved = new Map<string, Hint>();
  for (const { id, why } of steps)
    for (const reason of why) {
      if (reason.kind !== "source" || reason.source !== "image") continue;
      const { name, was, is } = reason;
      const hint = moved.get(name) ?? {
        code: "base-moved",
        steps: [],
        text: `${name} is another image than when the cache was filled${was && is && was !== is ? ` (${was.slice(0, 19)} then, ${is.slice(0, 19)} now)` : ""}: pin it with a digest to decide when it moves`,
      };
      hint.steps.push(id);
      moved.set(name, hint);
    }
  return [...moved.values()];
}

function missingLayers({ steps, caches }: HintSource): Hint[] {
  const visible = steps.filter(
    ({ internal, why }) => !internal && why.some(({ kind }) => kind === "no-layer"),
  );
  if (visible.length === 0) return [];
  const ids = visible.map(({ id }) => id);
  const isGone = visible.some(({ why }) =>
    why.some((reason) => reason.kind === "no-layer" && reason.missing.length > 0),
  );
  const where = caches[0]?.location ?? "CACHE";
  return [
    isGone
      ? {
          code: "blob-gone",
          steps: ids,
          text: `the cache knows these steps, but blobs of their layers are not in its manifest: cacheport verify ${where} says which`,
        }
      : {
          code: "no-results",
          steps: ids,
          text: "the cache knows these steps and holds no layers for them: export it with mode=max to have those of all stages",
        },
  ];
}

function lostByImport({ losses, caches, steps }: HintSource): Hint[] {
  return losses.flatMap((loss, at): Hint[] => {
    if (!loss) return [];
    const { location } = caches[at] as HintSource["caches"][number];
    const hit = steps.filter(({ lost }) => lost !== null);
    const names = hit.map(({ line, id }) => (line === null ? id : `line ${line}`));
    const text = `${importLossText(loss, location, names)}; cacheport convert ${location} --heal writes it so that nothing is lost`;
    return [{ code: "import-loses", steps: hit.map(({ id }) => id), text }];
  });
}

function olderBuildKit({ steps }: HintSource): Hint[] {
  const ids = steps
    .filter(({ why }) => why.some(({ kind }) => kind === "version"))
    .map(({ id }) => id);
  return ids.length === 0
    ? []
    : [
        {
          code: "older-buildkit",
          steps: ids,
          text: "the cache was written by BuildKit 0.16 or older, which gave these steps other digests: they miss once after the upgrade",
        },
      ];
}
