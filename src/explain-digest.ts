/**
 * The digests by which a cache knows the steps of a build, computed from their
 * definitions.
 *
 * Sources: BuildKit solver/llbsolver/ops (exec.go, file.go, merge.go, diff.go,
 * source.go), source/containerimage, source/git, source/http; solver/pb/ops.proto for
 * the order of fields; solver/cachekey.go (`digest@output`).
 */
import type { Platform } from "./descriptor.ts";
import { digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import type { Build, BuildStep } from "./explain-build.ts";
import { encodeGoJson, isJsonObject } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import { posix } from "./paths.ts";

/** The fields of a Go struct in their order; a field that is a struct itself has its own below. */
interface Struct {
  readonly [field: string]: Struct | null;
}

/** Reads `a b{c d} e` as a struct. The texts are constants of this file. */
function struct(text: string): Struct {
  const tokens = text.match(/[{}]|[^\s{}]+/g) ?? [];
  let at = 0;
  const read = (): Struct => {
    const fields: Record<string, Struct | null> = {};
    while (at < tokens.length && tokens[at] !== "}") {
      const name = tokens[at++] as string;
      if (tokens[at] !== "{") {
        fields[name] = null;
        continue;
      }
      at++;
      fields[name] = read();
      at++;
    }
    return fields;
  };
  return read();
}

const USER = "User{byName{name input} ByName{name input} byId byID}";
const OWNER = `owner{user{${USER}} group{${USER}}}`;
const SECRET = "{ID uid gid mode optional}";

const EXEC: Struct = struct(`
  meta{args env cwd user proxy_env extraHosts{Host IP} hostname ulimit{Name Soft Hard} cgroupParent
    removeMountStubsRecursive validExitCodes}
  mounts{input selector dest output readonly mountType TmpfsOpt{size} cacheOpt{ID sharing}
    secretOpt${SECRET} SSHOpt${SECRET} resultID contentCache}
  network security secretenv{ID name optional} cdiDevices{name optional}`);

const ACTIONS: Struct = struct(`
  copy{src dest ${OWNER} mode followSymlink dirCopyContents attemptUnpackDockerCompatibility
    createDestPath allowWildcard allowEmptyWildcard timestamp include_patterns exclude_patterns
    alwaysReplaceExistingDestPaths modeStr required_paths}
  mkfile{path mode data ${OWNER} timestamp}
  mkdir{path mode makeParents ${OWNER} timestamp}
  rm{path allowNotFound allowWildcard}
  symlink{oldpath newpath ${OWNER} timestamp}`);

const MERGE: Struct = struct("inputs{input}");
const DIFF: Struct = struct("lower{input} upper{input}");

/** Puts the fields of a parsed object in the order of the struct; unknown ones stay behind. */
function arrange(value: unknown, order: Struct | null): unknown {
  if (order === null) return value;
  if (Array.isArray(value)) return value.map((item) => arrange(item, order));
  if (!isJsonObject(value)) return value;
  const arranged: JsonObject = {};
  for (const [field, below] of Object.entries(order))
    if (Object.hasOwn(value, field)) arranged[field] = arrange(value[field], below);
  for (const field of Object.keys(value))
    if (!Object.hasOwn(arranged, field)) arranged[field] = value[field];
  return arranged;
}

/** A copy without some fields. */
function without(value: JsonObject, ...fields: string[]): JsonObject {
  return Object.fromEntries(Object.entries(value).filter(([field]) => !fields.includes(field)));
}

/** The objects of a list; anything else is passed over. */
export function objectsIn(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isJsonObject) : [];
}

/** A number, 0 where Go left it out. */
export function numberIn(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

/** A text, empty where Go left it out. */
export function textIn(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/**
 * What of an exec step counts for its cache key: without ids of cache mounts,
 * addresses of hosts and proxy variables.
 */
export function execDefinition(exec: JsonObject): JsonObject {
  const { meta, mounts } = exec;
  const counted = { ...exec };
  if (isJsonObject(meta)) {
    counted["meta"] = without(meta, "proxy_env");
    if (Array.isArray(meta["extraHosts"]))
      (counted["meta"] as JsonObject)["extraHosts"] = meta["extraHosts"].map((host) =>
        isJsonObject(host) ? without(host, "IP") : host,
      );
  }
  if (Array.isArray(mounts)) {
    const cleaned = mounts.map((mount) => (isJsonObject(mount) ? countedMount(mount) : mount));
    if (isPlainRoot(cleaned)) delete counted["mounts"];
    else counted["mounts"] = cleaned;
  }
  return arrange(counted, EXEC) as JsonObject;
}

function countedMount(mount: JsonObject): JsonObject {
  const counted = without(mount, "selector");
  const cache = mount["cacheOpt"];
  if (isJsonObject(cache)) {
    const id = textIn(cache["ID"]);
    const dest = textIn(mount["dest"]);
    const slash = id.indexOf("/");
    const isDefault = id === dest || (slash >= 0 && id.slice(slash + 1) === dest);
    if (!isDefault || numberIn(cache["sharing"]) !== 0)
      counted["cacheOpt"] = without(cache, "ID", "sharing");
  }
  return counted;
}

/** The one mount that every RUN has does not count. */
function isPlainRoot(mounts: readonly unknown[]): boolean {
  const [root] = mounts;
  if (mounts.length !== 1 || !isJsonObject(root)) return false;
  const options = ["cacheOpt", "SSHOpt", "secretOpt"].some((field) => isJsonObject(root[field]));
  return (
    root["dest"] === "/" &&
    root["readonly"] !== true &&
    numberIn(root["mountType"]) === 0 &&
    !options &&
    textIn(root["resultID"]) === ""
  );
}

/** One action of a file step: what it does, and its arguments as they count for the cache key. */
export interface FileAction {
  kind: string;
  /** In the order of Go's fields, with the whole `src`. */
  action: JsonObject;
  input: number;
  secondaryInput: number;
  output: number;
}

/** The actions of a file step. */
export function fileActions({ op }: BuildStep): FileAction[] {
  return objectsIn(op["actions"]).map((entry) => {
    const inner = isJsonObject(entry["Action"]) ? entry["Action"] : {};
    const [[kind, action] = ["", {}]] = Object.entries(inner);
    return {
      kind: kind.toLowerCase(),
      action: arrange(isJsonObject(action) ? action : {}, ACTIONS[kind] ?? null) as JsonObject,
      input: numberIn(entry["input"]),
      secondaryInput: numberIn(entry["secondaryInput"]),
      output: numberIn(entry["output"]),
    };
  });
}

function fileDigest(step: BuildStep): Digest {
  const actions = fileActions(step);
  const encoded = actions.map(({ kind, action, secondaryInput }) => {
    const isReal = secondaryInput >= 0 && secondaryInput < step.inputs.length;
    const counted =
      kind === "copy" && isReal ? { ...action, src: goBase(textIn(action["src"])) } : action;
    return Buffer.from(encodeGoJson(counted)).toString("base64");
  });
  const indexes = actions.map(({ input, secondaryInput, output }) => [
    input,
    secondaryInput,
    output,
  ]);
  return digestOf(
    encodeGoJson({
      Type: "buildkit.file.v0",
      Actions: encoded,
      indexes: isDefaultIndexes(indexes) || indexes.length === 0 ? undefined : indexes,
    }),
  );
}

/** Each action works on the result of the one before, and the last one is the output. */
function isDefaultIndexes(indexes: readonly number[][]): boolean {
  const count = indexes.length;
  return indexes.every(([input, secondary, output], at) => {
    const isExpected = input === (at === 0 ? 0 : count + at - 1);
    return (
      isExpected && (secondary === -1 || secondary === 1) && output === (at === count - 1 ? 0 : -1)
    );
  });
}

/** Go's path.Base. */
export function goBase(path: string): string {
  if (path === "") return ".";
  return posix.basename(path.replace(/\/+$/, "")) || "/";
}

/** A platform as Go writes it beside a definition. */
export function platformFields(platform: Platform): JsonObject {
  return {
    OS: platform.os,
    Arch: platform.architecture,
    Variant: platform.variant || undefined,
    OSVersion: platform["os.version"] || undefined,
    OSFeatures: platform["os.features"]?.length ? platform["os.features"] : undefined,
  };
}

/** The digest of a source by its key. */
export function sourceDigest(key: string): Digest {
  return digestOf(`buildkit.source.v0:${key}`);
}

/**
 * The digests that a step may be known by: one, for an image also that of its chain
 * of layers. None for local files, and where the provenance does not say enough.
 *
 * @param chain The chain id of an image source, where known.
 */
export function opDigests(build: Build, step: BuildStep, chain?: string): Digest[] {
  switch (step.kind) {
    case "exec":
      return [
        digestOf(
          encodeGoJson({
            Type: "buildkit.exec.v0",
            Exec: execDefinition(step.op),
            ...platformFields(step.platform),
          }),
        ),
      ];
    case "file":
      return [fileDigest(step)];
    case "merge":
      return [
        digestOf(encodeGoJson({ Type: "buildkit.merge.v0", Merge: arrange(step.op, MERGE) })),
      ];
    case "diff":
      return [digestOf(encodeGoJson({ Type: "buildkit.diff.v0", Diff: arrange(step.op, DIFF) }))];
    case "build":
      return [digestOf(encodeGoJson({ Type: "buildkit.build.v0", Exec: step.op }))];
    case "passthrough":
      return [digestOf(encodeGoJson({ Type: "buildkit.passthrough.v0", Passthrough: step.op }))];
    case "image": {
      const manifest = imageDigest(build, step);
      const key =
        manifest && digestOf(encodeGoJson({ Digest: manifest, ...platformFields(step.platform) }));
      return [key, chain].filter((one) => one !== undefined).map(sourceDigest);
    }
    case "git":
      return gitKeys(build, step).map(sourceDigest);
    case "http":
      return httpKeys(build, step).map(sourceDigest);
    default:
      return [];
  }
}

/** The name of an image source, without its digest: `docker.io/library/base:latest`. */
export function imageName({ op }: BuildStep): string {
  return textIn(op["identifier"])
    .replace(/^[a-z-]+:\/\//, "")
    .replace(/@sha256:[0-9a-f]{64}$/, "");
}

/** The digest that an image source stands for: in its name, else among the materials. */
export function imageDigest(build: Build, step: BuildStep): Digest | undefined {
  const identifier = textIn(step.op["identifier"]);
  const written = /@(sha256:[0-9a-f]{64})$/.exec(identifier)?.[1];
  if (isDigest(written)) return written;
  const wanted = familiar(imageName(step));
  for (const { uri, digest } of build.materials) {
    const name = /^pkg:docker\/([^?#]+)/.exec(uri)?.[1];
    const found = `sha256:${digest["sha256"]}`;
    if (name && familiar(decode(name).replace("@", ":")) === wanted && isDigest(found))
      return found;
  }
  return undefined;
}

function familiar(name: string): string {
  return name.replace(/^docker\.io\//, "").replace(/^library\//, "");
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The commit of a git source by the materials. */
export function gitCommit(build: Build, step: BuildStep): string | undefined {
  const { url, ref } = gitParts(step);
  const bare = (uri: string): string =>
    uri.replace(/^(?:git\+)?[a-z]+:\/\//, "").replace(/^git@/, "");
  const match = build.materials.find(({ uri }) => {
    const [name = "", fragment = ""] = uri.split("#");
    return bare(name) === bare(url) && fragment.split(":")[0] === ref;
  });
  const { digest } = match ?? {};
  return digest?.["sha1"] ?? digest?.["sha256"];
}

function gitParts({ op }: BuildStep): { url: string; ref: string; subdir: string } {
  const [url = "", fragment = ""] = textIn(op["identifier"]).split("#");
  const [ref = "", subdir = ""] = fragment.split(":");
  return { url, ref, subdir };
}

function gitKeys(build: Build, step: BuildStep): string[] {
  const commit = gitCommit(build, step);
  if (!commit) return [];
  const { ref, subdir } = gitParts(step);
  const attrs = attributes(step);
  const parts = [commit];
  if (attrs["git.keepgitdir"] === "true") parts.push(".git", ref && `#${ref}`);
  if (subdir) parts.push(`:${subdir}`);
  if (attrs["git.skipsubmodules"] === "true") parts.push("(skip-submodules)");
  if (attrs["git.mtime"]) parts.push(`(mtime=${attrs["git.mtime"]})`);
  return [parts.join("")];
}

/** Attributes of a source. */
export function attributes({ op }: BuildStep): Readonly<Record<string, string>> {
  const { attrs } = op;
  return isJsonObject(attrs) ? (attrs as Record<string, string>) : {};
}

/** What is known of an http source: all of its key but the time that the server gave. */
export function httpKey(build: Build, step: BuildStep, lastModified?: string): string | undefined {
  const attrs = attributes(step);
  const identifier = textIn(step.op["identifier"]);
  const material = build.materials.find(({ uri }) => uri === identifier);
  const checksum =
    attrs["http.checksum"] ??
    (material?.digest["sha256"] ? `sha256:${material.digest["sha256"]}` : undefined);
  if (checksum === undefined) return undefined;
  const number = (name: string, radix: number): number =>
    Number.parseInt(attrs[`http.${name}`] ?? "0", radix) || 0;
  return digestOf(
    encodeGoJson({
      Filename: attrs["http.filename"] ?? goBase(identifier.replace(/[?#].*$/, "")),
      Perm: number("perm", 8),
      UID: number("uid", 10),
      GID: number("gid", 10),
      Checksum: checksum,
      LastModTime: lastModified,
    }),
  );
}

function httpKeys(build: Build, step: BuildStep): string[] {
  const key = httpKey(build, step);
  return key === undefined ? [] : [key];
}

/** The digest of a record for an output of a step. */
export function recordDigest(opDigest: string, output: number): Digest {
  return digestOf(`${opDigest}@${output}`);
}
