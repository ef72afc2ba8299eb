/**
 * Finds builds in a store: the attestations of an image, or the records of builds
 * that `docker buildx history export` writes.
 *
 * Sources: BuildKit docs/attestations/attestation-storage.md; util/contentutil and
 * control/history export for bundles; in-toto attestation media types.
 */
import * as v from "valibot";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkSchema, jsonObject } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import type { Build, StepOutcome } from "./explain-build.ts";
import { readProvenance } from "./explain-provenance.ts";
import { readStatusLog } from "./explain-status.ts";
import { isJsonObject, parseJson } from "./go-json.ts";
import { parseImageConfig } from "./image-config.ts";
import { parseImageIndex } from "./image-index.ts";
import { parseImageManifest } from "./image-manifest.ts";
import { isIndexType, isManifestType } from "./media-types.ts";
import { normalizePlatform } from "./platform.ts";
import { nameType } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

const IN_TOTO = "application/vnd.in-toto+json";
const HISTORY_RECORD = "application/vnd.buildkit.historyrecord.v0";
const STATUS_LOG = "application/vnd.buildkit.status.v0";
const PREDICATE_TYPE = "in-toto.io/predicate-type";
const REFERENCE_TYPE = "vnd.docker.reference.type";
const REFERENCE_DIGEST = "vnd.docker.reference.digest";
/** Manifests of one index that are looked into. */
const MAX_MANIFESTS = 200;

type Reader = Pick<ContentReader, "read" | "location">;

/**
 * Reads the builds that a descriptor leads to.
 *
 * @param source What the user called it.
 * @throws {CacheportError} NOT_SUPPORTED for an image without an attestation that can
 *   serve, DOCUMENT_INVALID, ...
 */
export async function readStoredBuilds(
  reader: ContentReader,
  root: Descriptor,
  source: string,
  options: WalkOptions,
): Promise<Build[]> {
  const descriptor = await nameType(reader, root, options);
  const builds = await readBuildsBelow(reader, descriptor, source, options);
  if (builds.length > 0) return builds;
  throw new CacheportError(
    "NOT_SUPPORTED",
    `Cannot use build "${source}": ${descriptor.digest} has no provenance`,
    {
      hint: "Push the image with --provenance=mode=max, or give a --metadata-file made with BUILDX_METADATA_PROVENANCE=max",
    },
  );
}

/** The builds of an image or a bundle; none for anything else. */
export async function readBuildsBelow(
  reader: Reader,
  descriptor: Descriptor,
  source: string,
  options: WalkOptions,
  depth = 0,
): Promise<Build[]> {
  const { mediaType } = descriptor;
  if (!isIndexType(mediaType) && !isManifestType(mediaType)) return [];
  if (depth > options.limits.depth)
    throw new CacheportError(
      "INDEX_TOO_DEEP",
      `Cannot read index "${descriptor.digest}": indexes are nested more than ${options.limits.depth} levels deep`,
    );
  const bytes = await reader.read(descriptor, options.limits.manifest);
  const what = `manifest "${descriptor.digest}"`;
  if (!isIndexType(mediaType)) {
    const { config, layers } = parseImageManifest(bytes, what);
    return config?.mediaType === HISTORY_RECORD
      ? readRecord(reader, config, layers, source, options)
      : [];
  }
  const { manifests } = parseImageIndex(bytes, what);
  const builds: Build[] = [];
  for (const child of manifests.slice(0, MAX_MANIFESTS)) {
    const subject = child.annotations?.[REFERENCE_DIGEST];
    if (child.annotations?.[REFERENCE_TYPE] === "attestation-manifest") {
      const image = manifests.find(({ digest }) => digest === subject);
      builds.push(...(await readAttestation(reader, child, image, source, options)));
    } else if (isIndexType(child.mediaType) || isHistory(child))
      builds.push(...(await readBuildsBelow(reader, child, source, options, depth + 1)));
  }
  return builds;
}

function isHistory({ annotations, artifactType }: Descriptor): boolean {
  return (
    annotations?.["vnd.buildkit.history.reference"] !== undefined || artifactType === HISTORY_RECORD
  );
}

/** The builds of one attestation manifest, for the image that it speaks of. */
async function readAttestation(
  reader: Reader,
  manifest: Descriptor,
  image: Descriptor | undefined,
  source: string,
  options: WalkOptions,
): Promise<Build[]> {
  const bytes = await reader.read(manifest, options.limits.manifest);
  const { layers } = parseImageManifest(bytes, `attestation "${manifest.digest}"`);
  const builds = await readStatements(reader, layers, source, options);
  if (builds.length === 0 || !image) return builds;
  const { config } = parseImageManifest(
    await reader.read(image, options.limits.manifest),
    `manifest "${image.digest}"`,
  );
  const diffIds = config && (await readDiffIds(reader, config, options));
  const platform = image.platform && normalizePlatform(image.platform);
  return builds.map((build) => ({ ...build, diffIds, ...(platform && { platform }) }));
}

async function readDiffIds(
  reader: Reader,
  config: Descriptor,
  options: WalkOptions,
): Promise<readonly Digest[] | undefined> {
  const bytes = await reader.read(config, options.limits.config);
  return parseImageConfig(bytes, `image config "${config.digest}"`).diffIds.filter(isDigest);
}

/** The builds among the statements that a manifest lists. */
async function readStatements(
  reader: Reader,
  layers: readonly Descriptor[],
  source: string,
  options: WalkOptions,
): Promise<Build[]> {
  const builds: Build[] = [];
  for (const layer of layers) {
    const type = layer.annotations?.[PREDICATE_TYPE] ?? "";
    if (layer.mediaType !== IN_TOTO || !type.includes("slsa.dev/provenance")) continue;
    const bytes = await reader.read(layer, options.limits.config);
    builds.push(...readProvenance(bytes, source, `build "${source}"`));
  }
  return builds;
}

const RecordSchema = v.object({ FrontendAttrs: v.nullish(jsonObject, {}) });

/** One record of a bundle: its provenance with what its log says of the steps. */
async function readRecord(
  reader: Reader,
  config: Descriptor,
  layers: readonly Descriptor[],
  source: string,
  options: WalkOptions,
): Promise<Build[]> {
  const what = `build "${source}"`;
  const bytes = await reader.read(config, options.limits.config);
  const record = checkSchema(RecordSchema, parseJson(bytes, what), what);
  const log = layers.find(({ mediaType }) => mediaType === STATUS_LOG);
  const outcomes: Map<string, StepOutcome> | undefined =
    log && readStatusLog(await reader.read(log, options.limits.config), what);
  const builds = await readStatements(reader, layers, source, options);
  if (builds.length === 0)
    throw new CacheportError("NOT_SUPPORTED", `Cannot use ${what}: the record has no provenance`, {
      hint: "Write the export with --finalize; a build that failed before its first step has none",
    });
  const attributes = isJsonObject(record.FrontendAttrs) ? record.FrontendAttrs : {};
  const args = Object.fromEntries(
    Object.entries(attributes).filter(
      (pair): pair is [string, string] => typeof pair[1] === "string",
    ),
  );
  return builds.map((build) => ({ ...build, outcomes, args: { ...args, ...build.args } }));
}
