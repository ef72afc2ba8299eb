/**
 * A build as its provenance describes it: the steps, what they take, and where they
 * stand in the Dockerfile.
 *
 * Source: BuildKit solver/llbsolver/provenance (buildConfig, digestMapping, source,
 * layers; SLSA provenance v0.2 and v1), solver/pb/ops.proto.
 */
import * as v from "valibot";
import type { Descriptor, Platform } from "./descriptor.ts";
import { DescriptorSchema } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { checkSchema, jsonObject } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { readDockerfile } from "./explain-dockerfile.ts";
import type { Instruction } from "./explain-dockerfile.ts";
import type { JsonObject } from "./go-json.ts";
import { isJsonObject } from "./go-json.ts";
import { normalizePlatform, parsePlatform } from "./platform.ts";

/** What a step is. `source` is any source that is none of the known ones. */
export type StepKind =
  | "exec"
  | "file"
  | "merge"
  | "diff"
  | "build"
  | "passthrough"
  | "image"
  | "local"
  | "git"
  | "http"
  | "source"
  | "unknown";

/** One input of a step: an output of an earlier step. */
export interface StepInput {
  /** Position in the build's steps. */
  step: number;
  output: number;
}

/** Where a step stands in a Dockerfile. */
export interface StepPlace {
  file: string;
  /** From 1. */
  line: number;
  endLine: number;
}

/** One step of a build. */
export interface BuildStep {
  /** As the provenance calls it: `step7`. */
  id: string;
  kind: StepKind;
  /** What stands under the kind: the `exec`, `file` or `source` object as it was found. */
  op: JsonObject;
  platform: Platform;
  inputs: StepInput[];
  /** Digest of the step's definition, by which logs know it. */
  vertex: string | undefined;
  place: StepPlace | undefined;
  /** The instruction that the step was made from, with its stage. */
  instruction: Instruction | undefined;
  /** Stage of a multi-stage Dockerfile, where known. */
  stage: string | undefined;
}

/** What a log says of one step. */
export interface StepOutcome {
  /** The step's name as BuildKit showed it: `[build 2/4] RUN make`. */
  name: string;
  cached: boolean;
  /** The longest run, in seconds; undefined where no times are known. */
  seconds: number | undefined;
  error: string | undefined;
}

/** One build for one platform. */
export interface Build {
  /** What the user called it. */
  source: string;
  slsa: "0.2" | "1";
  /** Of the build's result, as far as it is known; else of the builder. */
  platform: Platform;
  /** Inputs first. */
  steps: BuildStep[];
  /** Where the result comes from. */
  result: StepInput;
  /** Arguments: `build-arg:X`, `no-cache`, `target`. */
  args: Readonly<Record<string, string>>;
  materials: readonly { uri: string; digest: Readonly<Record<string, string>> }[];
  /** Layers of the outputs that were blobs when the provenance was made, by `stepN:OUT`. */
  layers: ReadonlyMap<string, readonly Descriptor[]>;
  /** Layers of the build's own image, uncompressed, where it is at hand. */
  diffIds?: readonly Digest[] | undefined;
  /** What happened, by vertex, where a log is at hand. */
  outcomes?: ReadonlyMap<string, StepOutcome> | undefined;
  /** Instructions of each Dockerfile, by its name. */
  instructions: ReadonlyMap<string, readonly Instruction[]>;
}

/** More than any build has. */
const MAX_STEPS = 100_000;
/** Inputs that all steps together may have. */
const MAX_INPUTS = 1_000_000;

const text = v.nullish(v.string(), "");
const object = v.nullish(jsonObject, {});

const StepSchema = v.object({
  id: v.string(),
  op: object,
  inputs: v.nullish(v.array(v.string()), []),
});

const LineSchema = v.object({ line: v.nullish(v.pipe(v.number(), v.safeInteger()), 0) });
const LocationSchema = v.object({
  sourceIndex: v.nullish(v.pipe(v.number(), v.safeInteger()), 0),
  ranges: v.nullish(
    v.array(v.object({ start: LineSchema, end: v.nullish(LineSchema, { line: 0 }) })),
    [],
  ),
});

const SourceSchema = v.object({
  locations: v.nullish(
    v.record(v.string(), v.object({ locations: v.nullish(v.array(LocationSchema), []) })),
    {},
  ),
  infos: v.nullish(v.array(v.object({ filename: text, data: text })), []),
});

const BuildConfigSchema = v.object({
  llbDefinition: v.array(StepSchema),
  digestMapping: v.nullish(v.record(v.string(), v.string()), {}),
});

const MaterialsSchema = v.nullish(
  v.array(v.object({ uri: text, digest: v.nullish(v.record(v.string(), v.string()), {}) })),
  [],
);

const LayersSchema = v.record(v.string(), v.nullish(v.array(v.array(DescriptorSchema)), []));

/** The parts of a predicate, wherever its version keeps them. */
export interface PredicateParts {
  slsa: "0.2" | "1";
  buildConfig: unknown;
  platform: string;
  args: unknown;
  materials: unknown;
  source: unknown;
  layers: unknown;
}

/**
 * Reads a build from the parts of a predicate.
 *
 * @param source What the user called it.
 * @param what What it is read from, for messages: `provenance "build.json"`.
 * @throws {CacheportError} DOCUMENT_INVALID, also for steps that depend on each other in a circle
 */
export function readBuild(parts: PredicateParts, source: string, what: string): Build {
  const config = checkSchema(BuildConfigSchema, parts.buildConfig, what);
  if (config.llbDefinition.length > MAX_STEPS)
    throw invalid(what, `it has ${config.llbDefinition.length} steps`);
  const sourceMap = checkSchema(v.nullish(SourceSchema, {}), parts.source ?? {}, what);
  const platform = readPlatform(parts.platform);
  const files = sourceMap.infos.map(({ filename, data }) => ({
    name: filename || "Dockerfile",
    instructions: readDockerfile(Buffer.from(data, "base64").toString("utf8")),
  }));
  const vertices = new Map(
    Object.entries(config.digestMapping).map(([digest, id]) => [id, digest]),
  );
  const order = inputsFirst(config.llbDefinition, what);
  const position = new Map(order.map((at, index) => [config.llbDefinition[at]?.id ?? "", index]));
  const steps = order.map((at): BuildStep => {
    const { id, op, inputs } = config.llbDefinition[at] as v.InferOutput<typeof StepSchema>;
    const place = stepPlace(sourceMap.locations[id]?.locations ?? [], files);
    const instruction = place && instructionOf(place, files);
    return {
      id,
      ...readOp(op),
      platform: opPlatform(op, platform),
      inputs: inputs.map((input) => readInput(input, position, what)),
      vertex: vertices.get(id),
      place,
      instruction,
      stage: instruction?.stage || undefined,
    };
  });
  if (steps.length === 0) throw invalid(what, "it has no steps");
  const result = resultOf(steps);
  const layers = checkSchema(v.nullish(LayersSchema, {}), parts.layers ?? {}, what);
  return {
    source,
    slsa: parts.slsa,
    platform:
      targetPlatform(steps) ?? resultPlatform(steps, result, config.llbDefinition) ?? platform,
    steps,
    result,
    args: readArgs(parts.args),
    materials: checkSchema(MaterialsSchema, parts.materials, what),
    layers: new Map(Object.entries(layers).map(([key, chains]) => [key, chains[0] ?? []])),
    instructions: new Map(files.map(({ name, instructions }) => [name, instructions])),
  };
}

/** The result: the input of the last step, which has no operation itself. */
function resultOf(steps: readonly BuildStep[]): StepInput {
  const used = new Set(steps.flatMap(({ inputs }) => inputs.map(({ step }) => step)));
  const end = steps.findIndex(
    ({ kind, inputs }, at) => kind === "unknown" && inputs.length === 1 && !used.has(at),
  );
  return steps[end]?.inputs[0] ?? { step: steps.length - 1, output: 0 };
}

/** The platform that the build is for, where a step was given it as a variable. */
function targetPlatform(steps: readonly BuildStep[]): Platform | undefined {
  for (const { kind, op } of steps) {
    const meta = op["meta"];
    if (kind !== "exec" || !isJsonObject(meta) || !Array.isArray(meta["env"])) continue;
    for (const entry of meta["env"]) {
      const value = typeof entry === "string" && /^TARGETPLATFORM=(.+)$/.exec(entry)?.[1];
      if (value && /^[\w.-]+\/[\w.-]+(?:\/[\w.-]+)?$/.test(value)) return readPlatform(value);
    }
  }
  return undefined;
}

/** The platform of the nearest step below the result that has one of its own. */
function resultPlatform(
  steps: readonly BuildStep[],
  result: StepInput,
  definition: readonly { id: string; op: JsonObject }[],
): Platform | undefined {
  const own = new Set(
    definition.filter(({ op }) => isJsonObject(op["platform"])).map(({ id }) => id),
  );
  let at: StepInput | undefined = result;
  for (let count = 0; at && count <= steps.length; count++) {
    const step: BuildStep | undefined = steps[at.step];
    if (!step) return undefined;
    if (own.has(step.id)) return step.platform;
    at = step.inputs[0];
  }
  return undefined;
}

/** What kind of operation a step is. Go's JSON has it under `Op`, with one key. */
function readOp(op: JsonObject): Pick<BuildStep, "kind" | "op"> {
  const inner = isJsonObject(op["Op"]) ? op["Op"] : op;
  for (const [key, value] of Object.entries(inner)) {
    if (!isJsonObject(value)) continue;
    const name = key.toLowerCase();
    if (name === "source") return { kind: sourceKind(value), op: value };
    if (/^(?:exec|file|merge|diff|build|passthrough)$/.test(name))
      return { kind: name as StepKind, op: value };
  }
  return { kind: "unknown", op: inner };
}

function sourceKind({ identifier }: JsonObject): StepKind {
  const scheme = typeof identifier === "string" ? identifier.split("://", 1)[0] : "";
  switch (scheme) {
    case "docker-image":
    case "oci-layout":
      return "image";
    case "local":
    case "git":
      return scheme;
    case "http":
    case "https":
      return "http";
    default:
      return "source";
  }
}

function opPlatform(op: JsonObject, fallback: Platform): Platform {
  const platform = op["platform"];
  if (!isJsonObject(platform)) return fallback;
  const part = (key: string): string => (typeof platform[key] === "string" ? platform[key] : "");
  const features = platform["OSFeatures"];
  return normalizePlatform({
    os: part("OS"),
    architecture: part("Architecture"),
    variant: part("Variant"),
    "os.version": part("OSVersion") || undefined,
    "os.features":
      Array.isArray(features) && features.length > 0
        ? features.filter((feature) => typeof feature === "string")
        : undefined,
  });
}

function readPlatform(platform: string): Platform {
  try {
    return parsePlatform(platform);
  } catch {
    return { os: "linux", architecture: "amd64" };
  }
}

function readArgs(args: unknown): Record<string, string> {
  if (!isJsonObject(args)) return {};
  return Object.fromEntries(
    Object.entries(args).filter((pair): pair is [string, string] => typeof pair[1] === "string"),
  );
}

function readInput(input: string, position: ReadonlyMap<string, number>, what: string): StepInput {
  const [, id = input, output = "0"] = /^(.*):(\d{1,6})$/s.exec(input) ?? [];
  const step = position.get(id);
  if (step === undefined) throw invalid(what, `no step has the id of input ${show(input)}`);
  return { step, output: Number(output) };
}

/** The order in which every step comes after its inputs. */
function inputsFirst(
  definition: readonly { id: string; inputs: readonly string[] }[],
  what: string,
): number[] {
  const byId = new Map(definition.map(({ id }, at) => [id, at]));
  if (byId.size < definition.length) throw invalid(what, "two steps have the same id");
  if (definition.reduce((sum, { inputs }) => sum + inputs.length, 0) > MAX_INPUTS)
    throw invalid(what, "its steps have too many inputs");
  const waiting = definition.map(() => 0);
  const users = definition.map((): number[] => []);
  definition.forEach(({ inputs }, at) => {
    for (const input of inputs) {
      const from = byId.get(input.replace(/:\d+$/, ""));
      if (from === undefined) continue;
      (users[from] as number[]).push(at);
      waiting[at] = (waiting[at] as number) + 1;
    }
  });
  const order = [...definition.keys()].filter((at) => waiting[at] === 0);
  for (let next = 0; next < order.length; next++)
    for (const user of users[order[next] as number] as number[]) {
      waiting[user] = (waiting[user] as number) - 1;
      if (waiting[user] === 0) order.push(user);
    }
  if (order.length < definition.length)
    throw invalid(what, "its steps depend on each other in a circle");
  // The builder's own order is this one as a rule, and keeps what belongs together.
  const isOrdered = definition.every(({ inputs }, at) =>
    inputs.every((input) => (byId.get(input.replace(/:\d+$/, "")) ?? -1) < at),
  );
  return isOrdered ? [...definition.keys()] : order;
}

type SourceFile = { name: string; instructions: readonly Instruction[] };

function stepPlace(
  locations: readonly v.InferOutput<typeof LocationSchema>[],
  files: readonly SourceFile[],
): StepPlace | undefined {
  for (const { sourceIndex, ranges } of locations) {
    const starts = ranges.map(({ start }) => start.line).filter((line) => line > 0);
    if (starts.length === 0) continue;
    const ends = ranges.map(({ start, end }) => Math.max(start.line, end.line));
    return {
      file: files[sourceIndex]?.name ?? "Dockerfile",
      line: starts.reduce((a, b) => Math.min(a, b)),
      endLine: ends.reduce((a, b) => Math.max(a, b)),
    };
  }
  return undefined;
}

function instructionOf(
  { file, line }: StepPlace,
  files: readonly SourceFile[],
): Instruction | undefined {
  const instructions = files.find(({ name }) => name === file)?.instructions ?? [];
  return instructions.find((one) => one.line <= line && line <= one.endLine);
}

function show(value: string): string {
  return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value);
}

function invalid(what: string, reason: string): CacheportError {
  return new CacheportError("DOCUMENT_INVALID", `Cannot read ${what}: ${reason}`);
}
