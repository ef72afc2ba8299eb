/**
 * Compares the definition of a step with that of its former self: which fields that
 * count for the cache key differ.
 */
import type { Build, BuildStep } from "./explain-build.ts";
import { execDefinition, fileActions, objectsIn, textIn } from "./explain-digest.ts";
import type { Redactor } from "./explain-redact.ts";
import { isJsonObject } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import { formatPlatform } from "./platform.ts";

/** A field of a definition that differs. Values are safe to show. */
export interface FieldChange {
  /** `env GIT_SHA`, `command`, `workdir`, `mount /root/.npm sharing`. */
  field: string;
  /** Null for what was added. */
  was: string | null;
  /** Null for what was removed. */
  is: string | null;
  /** Where a variable is declared: `ENV, line 10`. */
  origin?: string;
}

/** A change as words: `env GIT_SHA: dev -> abc123`. */
export function changeText({ field, was, is, origin }: FieldChange): string {
  const where = origin === undefined ? "" : ` (${origin})`;
  if (was === null) return `${field} added${where}`;
  if (is === null) return `${field} removed`;
  return was === is ? `${field} changed${where}` : `${field}: ${was} -> ${is}${where}`;
}

const NETWORKS: Record<string, string> = { "0": "default", "1": "host", "2": "none" };
const SECURITY: Record<string, string> = { "0": "sandbox", "1": "insecure" };

/** The fields that differ between two steps of one kind. */
export function compareSteps(was: BuildStep, is: BuildStep, redactor: Redactor): FieldChange[] {
  const changes = was.kind === "exec" ? compareExec(was, is, redactor) : [];
  if (was.kind === "file") changes.push(...compareFile(was, is, redactor));
  if (was.kind !== "exec" && was.kind !== "file")
    changes.push(...compareValues(was.kind, was.op, is.op, redactor));
  const platforms = [was, is].map(({ platform }) => formatPlatform(platform));
  if (was.kind === "exec" && platforms[0] !== platforms[1])
    changes.push({ field: "platform", was: platforms[0] ?? "", is: platforms[1] ?? "" });
  return changes;
}

function compareExec(a: BuildStep, b: BuildStep, redactor: Redactor): FieldChange[] {
  const was = execDefinition(a.op);
  const is = execDefinition(b.op);
  const [oldMeta, newMeta] = [was, is].map(({ meta }) => (isJsonObject(meta) ? meta : {})) as [
    JsonObject,
    JsonObject,
  ];
  const changes = compareCommands(oldMeta["args"], newMeta["args"], redactor);
  changes.push(...compareEnv(oldMeta["env"], newMeta["env"], redactor));
  const named = {
    workdir: "cwd",
    user: "user",
    hostname: "hostname",
    "cgroup parent": "cgroupParent",
  };
  for (const [field, key] of Object.entries(named)) {
    const [old, now] = [textIn(oldMeta[key]), textIn(newMeta[key])];
    if (old !== now)
      changes.push(
        change(
          field,
          old || (field === "user" ? "root" : ""),
          now || (field === "user" ? "root" : ""),
        ),
      );
  }
  const enums: [string, Record<string, string>][] = [
    ["network", NETWORKS],
    ["security", SECURITY],
  ];
  for (const [field, names] of enums) {
    const [old, now] = [was[field], is[field]].map((value) => `${(value as number) ?? 0}`);
    if (old !== now)
      changes.push(change(field, names[old ?? ""] ?? old ?? "", names[now ?? ""] ?? now ?? ""));
  }
  changes.push(...compareMounts(mountsOf(was), mountsOf(is), redactor));
  changes.push(...compareLists("secret env", was["secretenv"], is["secretenv"], "name", redactor));
  changes.push(
    ...compareLists("host", oldMeta["extraHosts"], newMeta["extraHosts"], "Host", redactor),
  );
  changes.push(...compareLists("ulimit", oldMeta["ulimit"], newMeta["ulimit"], "Name", redactor));
  const known = new Set([
    "args",
    "env",
    "cwd",
    "user",
    "hostname",
    "cgroupParent",
    "extraHosts",
    "ulimit",
  ]);
  for (const key of new Set([...Object.keys(oldMeta), ...Object.keys(newMeta)]))
    if (!known.has(key)) changes.push(...compareValues(key, oldMeta[key], newMeta[key], redactor));
  return changes;
}

/** The mounts that count; a plain root mount that stands alone is left out there, and here as well. */
function mountsOf(definition: JsonObject): JsonObject[] {
  const mounts = objectsIn(definition["mounts"]);
  return mounts.filter((mount) => mount["dest"] !== "/" || Object.keys(mount).length > 2);
}

function compareCommands(was: unknown, is: unknown, redactor: Redactor): FieldChange[] {
  const [old, now] = [was, is].map((args) =>
    Array.isArray(args) ? args.filter((one) => typeof one === "string") : [],
  ) as [string[], string[]];
  if (old.join("\0") === now.join("\0")) return [];
  const [oldShell, newShell] = [old.slice(0, -1).join(" "), now.slice(0, -1).join(" ")];
  if (oldShell !== newShell && old.at(-1) === now.at(-1))
    return [change("shell", redactor.text(oldShell), redactor.text(newShell))];
  const isShell = oldShell === newShell && old.length > 1;
  const shown = (args: string[]): string => (isShell ? (args.at(-1) ?? "") : args.join(" "));
  const [a, b] = fromDifference(shown(old), shown(now));
  return [change("command", redactor.text(a), redactor.text(b))];
}

/** Two long texts from a little before the place where they part. */
function fromDifference(was: string, is: string): [string, string] {
  let at = 0;
  while (at < was.length && was[at] === is[at]) at++;
  if (Math.max(was.length, is.length) <= 60 || at < 30) return [was, is];
  const start = Math.max(0, was.lastIndexOf(" ", at - 12) + 1);
  return start === 0 ? [was, is] : [`…${was.slice(start)}`, `…${is.slice(start)}`];
}

function compareEnv(was: unknown, is: unknown, redactor: Redactor): FieldChange[] {
  const [old, now] = [readEnv(was), readEnv(is)];
  const changes: FieldChange[] = [];
  for (const name of new Set([...old.keys(), ...now.keys()])) {
    const [a, b] = [old.get(name), now.get(name)];
    if (a === b) continue;
    changes.push({
      field: `env ${name}`,
      was: a === undefined ? null : redactor.value(name, a),
      is: b === undefined ? null : redactor.value(name, b),
    });
  }
  if (changes.length === 0 && [...old.keys()].join("\0") !== [...now.keys()].join("\0"))
    changes.push(change("order of env", [...old.keys()].join(" "), [...now.keys()].join(" ")));
  return changes;
}

/** `NAME=value` entries by their names. */
export function readEnv(env: unknown): Map<string, string> {
  const found = new Map<string, string>();
  for (const entry of Array.isArray(env) ? env : []) {
    if (typeof entry !== "string") continue;
    const at = entry.indexOf("=");
    found.set(at < 0 ? entry : entry.slice(0, at), at < 0 ? "" : entry.slice(at + 1));
  }
  return found;
}

function compareMounts(
  was: readonly JsonObject[],
  is: readonly JsonObject[],
  redactor: Redactor,
): FieldChange[] {
  const byTarget = (mounts: readonly JsonObject[]): Map<string, JsonObject> =>
    new Map(mounts.map((mount) => [textIn(mount["dest"]), mount]));
  const [old, now] = [byTarget(was), byTarget(is)];
  const changes = [...new Set([...old.keys(), ...now.keys()])].flatMap((target) =>
    compareValues(`mount ${target}`, old.get(target), now.get(target), redactor),
  );
  if (changes.length === 0 && [...old.keys()].join("\0") !== [...now.keys()].join("\0"))
    changes.push(change("order of mounts", [...old.keys()].join(" "), [...now.keys()].join(" ")));
  return changes;
}

/** Lists of objects by one of their fields. */
function compareLists(
  field: string,
  was: unknown,
  is: unknown,
  key: string,
  redactor: Redactor,
): FieldChange[] {
  const byKey = (list: unknown): Map<string, JsonObject> =>
    new Map(objectsIn(list).map((one) => [textIn(one[key]), one]));
  const [old, now] = [byKey(was), byKey(is)];
  return [...new Set([...old.keys(), ...now.keys()])].flatMap((name) =>
    compareValues(`${field} ${name}`, old.get(name), now.get(name), redactor),
  );
}

function compareFile(a: BuildStep, b: BuildStep, redactor: Redactor): FieldChange[] {
  const [old, now] = [fileActions(a), fileActions(b)];
  const changes: FieldChange[] = [];
  for (let at = 0; at < Math.max(old.length, now.length); at++) {
    const [was, is] = [old[at], now[at]];
    if (was && is && was.kind === is.kind) {
      changes.push(...compareAction(was.kind, was.action, is.action, redactor));
      continue;
    }
    const describe = (one: typeof was): string =>
      one ? `${one.kind} ${textIn(one.action["src"] ?? one.action["path"])}` : "";
    if (was) changes.push({ field: describe(was), was: "", is: null });
    if (is) changes.push({ field: describe(is), was: null, is: "" });
  }
  const places = (actions: typeof old): string =>
    actions
      .map(({ input, secondaryInput, output }) => `${input} ${secondaryInput} ${output}`)
      .join(", ");
  if (changes.length === 0 && places(old) !== places(now))
    changes.push(change("order of inputs", places(old), places(now)));
  return changes;
}

/** Fields of file actions as people write them. */
const ACTION_FIELDS: Record<string, string> = {
  src: "source",
  dest: "destination",
  modeStr: "chmod",
  exclude_patterns: "exclude",
  include_patterns: "parents",
  timestamp: "SOURCE_DATE_EPOCH",
};

function compareAction(
  kind: string,
  was: JsonObject,
  is: JsonObject,
  redactor: Redactor,
): FieldChange[] {
  return [...new Set([...Object.keys(was), ...Object.keys(is)])].flatMap((key) => {
    const [a, b] = [was[key], is[key]];
    if (JSON.stringify(a) === JSON.stringify(b)) return [];
    if (key === "mode") return [change(kind === "copy" ? "chmod" : "mode", octal(a), octal(b))];
    if (key === "owner") return [change("chown", ownerText(a), ownerText(b))];
    if (key === "data") {
      const [old, now] = [a, b].map((data) =>
        Buffer.from(textIn(data), "base64").toString("utf8").trimEnd(),
      ) as [string, string];
      const parts = fromDifference(old, now);
      return [change("text", redactor.text(parts[0]), redactor.text(parts[1]))];
    }
    return compareValues(ACTION_FIELDS[key] ?? key, a, b, redactor);
  });
}

function octal(mode: unknown): string {
  return typeof mode === "number" && mode >= 0 ? mode.toString(8) : "none";
}

function ownerText(owner: unknown): string {
  if (!isJsonObject(owner)) return "root";
  return ["user", "group"]
    .map((part) => {
      const inner = owner[part];
      const user = isJsonObject(inner) && isJsonObject(inner["User"]) ? inner["User"] : {};
      const byName = user["byName"] ?? user["ByName"];
      return isJsonObject(byName) ? textIn(byName["name"]) : `${(user["byId"] as number) ?? 0}`;
    })
    .join(":");
}

/** Any values: the fields of objects one by one, the rest as JSON. */
function compareValues(
  field: string,
  was: unknown,
  is: unknown,
  redactor: Redactor,
): FieldChange[] {
  if (JSON.stringify(was) === JSON.stringify(is)) return [];
  if (isJsonObject(was) && isJsonObject(is))
    return [...new Set([...Object.keys(was), ...Object.keys(is)])].flatMap((key) =>
      compareValues(`${field} ${key}`, was[key] ?? 0, is[key] ?? 0, redactor),
    );
  const shown = (value: unknown): string | null => {
    if (value === undefined) return null;
    return redactor.text(typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
  };
  return [{ field, was: shown(was), is: shown(is) }];
}

function change(field: string, was: string, is: string): FieldChange {
  return { field, was, is };
}

/** Candidates that are compared with one step. */
const MAX_CANDIDATES = 500;

/** Finds a step's former self: the nearest one of its kind. */
export class FormerSteps {
  readonly #build: Build;
  readonly #free: readonly number[];
  readonly #known: ReadonlyMap<string, number>;
  readonly #words = new Map<string, Set<string>>();

  /**
   * @param was The build that filled the cache.
   * @param digests The digest of each of its steps.
   * @param now The digests of the steps of the new build: they are not looked for.
   */
  constructor(was: Build, digests: readonly (string | undefined)[], now: ReadonlySet<string>) {
    this.#build = was;
    this.#free = was.steps.flatMap((_, at) => {
      const digest = digests[at];
      return digest !== undefined && now.has(digest) ? [] : [at];
    });
    this.#known = new Map(
      digests.flatMap((digest, at): [string, number][] =>
        digest === undefined ? [] : [[digest, at]],
      ),
    );
  }

  /** The step of the old build with this digest. */
  same(digest: string | undefined): BuildStep | undefined {
    return digest === undefined ? undefined : this.#build.steps[this.#known.get(digest) ?? -1];
  }

  /** The nearest step of the old build; undefined where none is near. */
  nearest(
    step: BuildStep,
    text: string,
    textOf: (old: BuildStep) => string,
  ): BuildStep | undefined {
    let best: BuildStep | undefined;
    let most = 0.9;
    const candidates = this.#free
      .map((at) => this.#build.steps[at] as BuildStep)
      .filter(({ kind }) => kind === step.kind)
      .slice(0, MAX_CANDIDATES);
    for (const old of candidates) {
      const score =
        2 * this.#similarity(text, textOf(old)) +
        (old.stage !== undefined && old.stage === step.stage ? 0.5 : 0) +
        (old.place && old.place.line === step.place?.line ? 0.3 : 0) +
        (formatPlatform(old.platform) === formatPlatform(step.platform) ? 0.1 : 0);
      if (score > most) [best, most] = [old, score];
    }
    return best;
  }

  /** How many pairs of letters two texts share, from 0 to 1. */
  #similarity(a: string, b: string): number {
    if (a === b) return 1;
    const [one, other] = [this.#pairs(a), this.#pairs(b)];
    let shared = 0;
    for (const pair of one) if (other.has(pair)) shared++;
    return (2 * shared) / Math.max(1, one.size + other.size);
  }

  #pairs(text: string): Set<string> {
    const known = this.#words.get(text);
    if (known) return known;
    const pairs = new Set<string>();
    for (let at = 0; at + 1 < Math.min(text.length, 2000); at++) pairs.add(text.slice(at, at + 2));
    this.#words.set(text, pairs);
    return pairs;
  }
}
