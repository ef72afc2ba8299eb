/**
 * Finds the provenance in what a user has at hand: a metadata file, an in-toto
 * statement or a bare predicate, in both versions of SLSA provenance.
 *
 * Source: SLSA provenance v0.2 and v1; in-toto attestation statement; buildx
 * `--metadata-file` (`buildx.build.provenance`, one for each platform with `/<platform>`).
 */
import { CacheportError } from "./errors.ts";
import { readBuild } from "./explain-build.ts";
import type { Build, PredicateParts } from "./explain-build.ts";
import { isJsonObject, parseJson } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";
import { parsePlatform } from "./platform.ts";

/** Where metadata files hold the provenance. */
const METADATA = "buildx.build.provenance";
/** Where v0.2 holds what BuildKit adds. */
const BUILDKIT_METADATA = "https://mobyproject.org/buildkit@v1#metadata";
/** Nesting of JSON that any provenance stays far below. */
const MAX_DEPTH = 64;

const HOW_TO_GET_MAX =
  "Build with BUILDX_METADATA_PROVENANCE=max and --metadata-file build.json, or with --provenance=mode=max";

/**
 * Reads the builds in a JSON document: one for each platform.
 *
 * @param source What the user called it.
 * @param what What the bytes are, for messages: `build "build.json"`.
 * @throws {CacheportError} DOCUMENT_INVALID, NOT_SUPPORTED for a document without
 *   definitions (mode=min), with how to get one that has them
 */
export function readProvenance(bytes: Uint8Array, source: string, what: string): Build[] {
  const value = parseJson(bytes, what);
  checkDepth(value, what);
  if (!isJsonObject(value)) throw noProvenance(what);
  return readDocument(value, source, what);
}

function readDocument(value: JsonObject, source: string, what: string): Build[] {
  const inMetadata = Object.keys(value)
    .filter((key) => key === METADATA || key.startsWith(`${METADATA}/`))
    .toSorted();
  if (inMetadata.length > 0)
    return inMetadata.flatMap((key) => {
      const inner = value[key];
      if (!isJsonObject(inner)) throw noProvenance(what);
      return withPlatform(readDocument(inner, source, what), key.slice(METADATA.length + 1));
    });
  if (isJsonObject(value["predicate"]))
    return withPlatform(
      [readPredicate(value["predicate"], source, what)],
      subjectPlatform(value["subject"]),
    );
  const isPredicate = ["buildConfig", "invocation", "buildDefinition", "buildType"].some((key) =>
    Object.hasOwn(value, key),
  );
  if (isPredicate) return [readPredicate(value, source, what)];
  // buildx bake writes one metadata object for each target.
  const targets = Object.values(value).filter(
    (target): target is JsonObject =>
      isJsonObject(target) && Object.keys(target).some((key) => key.startsWith("buildx.build.")),
  );
  if (targets.some((target) => Object.keys(target).some((key) => key.startsWith(METADATA))))
    return targets
      .filter((target) => Object.keys(target).some((key) => key.startsWith(METADATA)))
      .flatMap((target) => readDocument(target, source, what));
  if (Object.hasOwn(value, "buildx.build.ref")) throw emptyMetadata(what);
  throw noProvenance(what);
}

/** The platform that the name of a subject ends with: `pkg:docker/app@1?platform=linux%2Farm64`. */
function subjectPlatform(subject: unknown): string {
  for (const one of Array.isArray(subject) ? subject : []) {
    const name: unknown = isJsonObject(one) ? one["name"] : undefined;
    const found = typeof name === "string" && /[?&]platform=([^&]+)/.exec(name)?.[1];
    if (found) return found.replaceAll(/%2f/gi, "/");
  }
  return "";
}

/** Gives builds the platform that stands beside them. */
function withPlatform(builds: Build[], platform: string): Build[] {
  try {
    return platform === ""
      ? builds
      : builds.map((build) => ({ ...build, platform: parsePlatform(platform) }));
  } catch {
    return builds;
  }
}

/** Reads one predicate, whichever version it is. */
function readPredicate(predicate: JsonObject, source: string, what: string): Build {
  const parts = predicateParts(predicate);
  if (!isJsonObject(parts.buildConfig))
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot use ${what}: its provenance has no definitions of steps (mode=min)`,
      { hint: HOW_TO_GET_MAX },
    );
  return readBuild(parts, source, what);
}

function predicateParts(predicate: JsonObject): PredicateParts {
  const at = (...path: string[]): unknown => {
    let value: unknown = predicate;
    for (const key of path) value = isJsonObject(value) ? value[key] : undefined;
    return value;
  };
  const textAt = (...path: string[]): string => {
    const value = at(...path);
    return typeof value === "string" ? value : "";
  };
  if (isJsonObject(predicate["buildDefinition"])) {
    const internal = ["buildDefinition", "internalParameters"];
    const metadata = ["runDetails", "metadata", "buildkit_metadata"];
    return {
      slsa: "1",
      buildConfig: at(...internal, "buildConfig"),
      platform: textAt(...internal, "builderPlatform"),
      args: at("buildDefinition", "externalParameters", "request", "args"),
      materials: at("buildDefinition", "resolvedDependencies"),
      source: at(...metadata, "source"),
      layers: at(...metadata, "layers"),
    };
  }
  return {
    slsa: "0.2",
    buildConfig: at("buildConfig"),
    platform: textAt("invocation", "environment", "platform"),
    args: at("invocation", "parameters", "args"),
    materials: at("materials"),
    source: at("metadata", BUILDKIT_METADATA, "source"),
    layers: at("metadata", BUILDKIT_METADATA, "layers"),
  };
}

/** Refuses deep nesting before anything walks into it. */
function checkDepth(value: unknown, what: string): void {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH)
      throw new CacheportError(
        "DOCUMENT_INVALID",
        `Cannot read ${what}: it is nested more than ${MAX_DEPTH} levels deep`,
      );
    const below: unknown[] = [];
    for (const item of level)
      if (typeof item === "object" && item !== null)
        for (const inner of Object.values(item))
          if (typeof inner === "object" && inner !== null) below.push(inner);
    level = below;
  }
}

function emptyMetadata(what: string): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot use ${what}: the metadata file has no provenance`,
    {
      hint: `${HOW_TO_GET_MAX}. buildx before 0.31 writes none for several platforms: give the image or an export of "docker buildx history" there`,
    },
  );
}

function noProvenance(what: string): CacheportError {
  return new CacheportError(
    "NOT_SUPPORTED",
    `Cannot use ${what}: it holds no provenance of a build`,
    {
      hint: "A build is a --metadata-file, a provenance statement, a .dockerbuild file or an image with its attestation",
    },
  );
}
