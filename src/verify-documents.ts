/**
 * The rules for documents: what BuildKit refuses or silently drops of a cache, and
 * what makes an image inconsistent.
 *
 * Source: BuildKit cache/remotecache/import.go, v1/parse.go, cache/manager.go
 * (diffIDFromDescriptor).
 */
import { checkCacheConfig } from "./cache-check.ts";
import { parseCacheConfig } from "./cache-config.ts";
import { lossText, reportLosses } from "./cache-losses.ts";
import type { CacheConfig, CacheRecord } from "./cache-types.ts";
import { IMPORT_LIMIT } from "./cache-manifest.ts";
import type { CacheManifest } from "./cache-manifest.ts";
import type { ContentReader } from "./content-store.ts";
import type { Document } from "./document.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import type { DocumentLimits } from "./documents.ts";
import { parseImageConfig } from "./image-config.ts";
import { readInlineCache } from "./cache-inline.ts";
import {
  ANNOTATION_UNCOMPRESSED,
  CACHE_CONFIG,
  DOCKER_CONFIG,
  isIndexType,
  isLayerFamily,
  isLayerType,
  layerCompression,
  OCI_CONFIG,
  OCI_MANIFEST,
  toDockerLayerType,
  toOciLayerType,
} from "./media-types.ts";
import type { ProblemList } from "./verify-problem.ts";
import type { ContentNode } from "./walk.ts";

const IN_TOTO = "application/vnd.in-toto+json";

/** What the rules need beside the documents. */
export interface DocumentRules {
  reader: ContentReader;
  limits: DocumentLimits;
  problems: ProblemList;
  /** All that the walk met. */
  nodes: ReadonlyMap<Digest, ContentNode>;
  /** Is told what the unpacked bytes of a layer must have as digest. */
  onDiffId(layer: Descriptor, diffId: Digest): void;
}

/**
 * Checks one document that a walk read.
 *
 * @throws {CacheportError} what says nothing of the content, such as REGISTRY_DENIED
 */
export async function verifyDocument(node: ContentNode, rules: DocumentRules): Promise<void> {
  const { descriptor, document, children } = node;
  if (!document) return;
  verifyType(descriptor.digest, node.announced, document, rules);
  verifyChildren(node, rules);
  const { cache, config, isIndex, layers, type } = document;
  if (cache) return verifyCache(descriptor, cache, children, rules);
  if (isIndex) return;
  if (layers.some(({ mediaType }) => mediaType === CACHE_CONFIG)) {
    rules.problems.add(
      "CONFIG_IN_LAYERS",
      descriptor.digest,
      `Manifest ${descriptor.digest} has a cache config among its layers: BuildKit looks for it in "config" alone`,
    );
  }
  if (config && [OCI_CONFIG, DOCKER_CONFIG].includes(config.mediaType))
    await verifyImage(descriptor, type, config, layers, rules);
}

/** The type that a descriptor gives must be that of the document. */
function verifyType(
  digest: Digest,
  announced: string,
  { type }: Document,
  { problems }: DocumentRules,
): void {
  // A document that does not say what it is, is taken for what it is announced as.
  if (announced === type) return;
  problems.add(
    "MEDIA_TYPE_MISMATCH",
    digest,
    `Document ${digest} is announced as ${JSON.stringify(announced)} and is ${type}`,
  );
}

/** What can be wrong with descriptors whatever the document is. */
function verifyChildren({ descriptor, children }: ContentNode, rules: DocumentRules): void {
  const { nodes, problems } = rules;
  const seen = new Map<Digest, Descriptor>();
  for (const child of children) {
    // One document may be announced rightly in one place and wrongly in another.
    const document = child.isBlob ? undefined : nodes.get(child.digest)?.document;
    if (document) verifyType(child.digest, child.mediaType, document, rules);
    const twin = seen.get(child.digest);
    seen.set(child.digest, child);
    if (!twin || twin.size !== child.size) continue;
    const isSame = twin.mediaType === child.mediaType && diffIdOf(twin) === diffIdOf(child);
    if (isSame) continue;
    problems.add(
      "DUPLICATE_DIFFERS",
      child.digest,
      `Document ${descriptor.digest} lists blob ${child.digest} twice, with different types or diffIDs`,
    );
  }
}

function diffIdOf({ annotations }: Descriptor): string | undefined {
  return annotations?.[ANNOTATION_UNCOMPRESSED];
}

async function verifyCache(
  manifest: Descriptor,
  cache: CacheManifest,
  children: readonly Descriptor[],
  rules: DocumentRules,
): Promise<void> {
  const { problems, reader, limits } = rules;
  const { config, layers, shape } = cache;
  verifyImportLimit("manifest", manifest, problems);
  verifyImportLimit("cache config", config, problems);
  const configs = children.filter(({ mediaType }) => mediaType === CACHE_CONFIG);
  if (isIndexType(cache.mediaType) && configs.length > 1) {
    problems.add(
      "SEVERAL_CONFIGS",
      manifest.digest,
      `Cache ${manifest.digest} lists ${configs.length} cache configs: BuildKit takes the last one, ${config.digest}`,
    );
  }
  if (layers.length === 0) {
    problems.add("EMPTY_CACHE", manifest.digest, `Cache ${manifest.digest} has no layers`);
  }
  const isDocker = shape === "docker-list" || shape === "docker-manifest";
  for (const layer of layers) {
    verifyLayerType(layer, isDocker, `Cache ${manifest.digest}`, problems);
    verifyDiffId(layer, diffIdOf(layer), rules);
  }
  let parsed: CacheConfig;
  try {
    const bytes = await reader.read(config, limits.config);
    parsed = parseCacheConfig(bytes, `cache config "${config.digest}"`);
  } catch (error) {
    problems.addError(error, config.digest);
    return;
  }
  verifyConfig(parsed, layers, config.digest, problems);
  const losses = reportLosses(parsed);
  if (losses)
    problems.add(
      "IMPORT_LOSES_LINKS",
      config.digest,
      lossText(losses, `cache config ${config.digest}`),
    );
}

function verifyImportLimit(
  what: string,
  { digest, size }: Descriptor,
  problems: ProblemList,
): void {
  if (size <= IMPORT_LIMIT) return;
  problems.add(
    "OVER_IMPORT_LIMIT",
    digest,
    `The ${what} ${digest} has ${size} bytes: BuildKit imports none over ${IMPORT_LIMIT}`,
  );
}

function verifyLayerType(
  { digest, mediaType }: Descriptor,
  isDocker: boolean,
  where: string,
  problems: ProblemList,
): void {
  if (!isLayerType(mediaType)) {
    problems.add(
      "LAYER_TYPE_UNKNOWN",
      digest,
      `${where} lists layer ${digest} as ${JSON.stringify(mediaType)}, which is no layer type`,
    );
    return;
  }
  const wanted = isDocker ? toDockerLayerType(mediaType) : toOciLayerType(mediaType);
  if (wanted === mediaType) return;
  problems.add(
    "MIXED_LAYER_TYPES",
    digest,
    `${where} lists layer ${digest} as ${mediaType} instead of ${wanted}`,
  );
}

function verifyDiffId(
  layer: Descriptor,
  diffId: string | undefined,
  { problems, onDiffId }: DocumentRules,
): void {
  const { digest, mediaType } = layer;
  if (diffId === undefined) {
    problems.add(
      "DIFF_ID_MISSING",
      digest,
      `Layer ${digest} has no annotation ${ANNOTATION_UNCOMPRESSED}: BuildKit cannot use it`,
    );
  } else if (!isDigest(diffId)) {
    problems.add(
      "DIFF_ID_INVALID",
      digest,
      `Layer ${digest} has the diffID ${JSON.stringify(diffId.slice(0, 200))}, which is no digest`,
    );
  } else if (layerCompression(mediaType) === "uncompressed" && diffId !== digest) {
    problems.add(
      "DIFF_ID_MISMATCH",
      digest,
      `Layer ${digest} is not compressed and its diffID is ${diffId}`,
    );
  } else {
    onDiffId(layer, diffId);
  }
}

/** The graph: what BuildKit refuses, then what it drops. */
function verifyConfig(
  config: CacheConfig,
  layers: readonly Descriptor[],
  digest: Digest,
  problems: ProblemList,
): void {
  for (const { code, message, place, index } of checkCacheConfig(config)) {
    problems.add(
      code,
      digest,
      `BuildKit refuses cache config ${digest}: ${message} (${place}, entry ${index})`,
    );
  }
  const listed = new Set(layers.map((layer) => layer.digest));
  const lost = lostLayers(config, listed);
  for (const { blob } of config.layers) {
    if (listed.has(blob)) continue;
    problems.add(
      "LAYER_NOT_LISTED",
      blob,
      `Cache config ${digest} uses layer ${blob}, which the manifest does not list: BuildKit drops its results without a word`,
    );
  }
  const dropped = config.records.filter((record) => losesAll(record, lost));
  if (dropped.length > 0) {
    problems.add(
      "RESULT_LOST",
      digest,
      `Cache config ${digest} has ${dropped.length} of ${config.records.length} records whose results are all gone, among them ${dropped[0]?.digest}`,
    );
  }
  const used = new Set(config.layers.map(({ blob }) => blob));
  for (const blob of listed) {
    if (used.has(blob)) continue;
    problems.add(
      "LAYER_UNUSED",
      blob,
      `Layer ${blob} is listed and cache config ${digest} does not use it`,
    );
  }
}

/** For each layer whether it, or a layer below it, is not listed. */
function lostLayers({ layers }: CacheConfig, listed: ReadonlySet<Digest>): boolean[] {
  const lost: (boolean | undefined)[] = layers.map(() => undefined);
  for (let start = 0; start < layers.length; start++) {
    const above: number[] = [];
    let verdict = false;
    for (let at = start; ;) {
      const layer = layers[at];
      verdict = lost[at] ?? (layer !== undefined && !listed.has(layer.blob));
      // The end of the chain, or a layer that was seen before: a loop, too, ends here.
      if (!layer || lost[at] !== undefined) break;
      lost[at] = verdict;
      above.push(at);
      if (verdict) break;
      at = layer.parent;
    }
    if (verdict) for (const at of above) lost[at] = true;
  }
  return lost.map((isLost) => isLost === true);
}

function losesAll({ results, chains }: CacheRecord, lost: readonly boolean[]): boolean {
  if (results.length + chains.length === 0) return false;
  return (
    results.every(({ layer }) => lost[layer]) &&
    chains.every((chain) => chain.layers.some((layer) => lost[layer]))
  );
}

/**
 * An image, or anything that has an image's config: what of it is not known is said, and
 * the rest is checked.
 */
async function verifyImage(
  manifest: Descriptor,
  documentType: string,
  config: Descriptor,
  layers: readonly Descriptor[],
  rules: DocumentRules,
): Promise<void> {
  const { problems, reader, limits } = rules;
  // An attestation has statements for layers, and the rules for images do not fit it.
  if (layers.length > 0 && layers.every(({ mediaType }) => mediaType === IN_TOTO)) return;
  const isDocker = documentType !== OCI_MANIFEST;
  for (const layer of layers) {
    if (isLayerType(layer.mediaType))
      verifyLayerType(layer, isDocker, `Image ${manifest.digest}`, problems);
    else noteUnchecked(layer, manifest, problems);
  }
  try {
    const what = `image config "${config.digest}"`;
    const bytes = await reader.read(config, limits.config);
    const image = parseImageConfig(bytes, what);
    // Artifacts borrow an image's config and leave it empty.
    const isImage = layers.some(({ mediaType }) => isLayerFamily(mediaType));
    if (!isImage && image.diffIds.length === 0) return;
    if (image.diffIds.length !== layers.length) {
      problems.add(
        "DIFF_IDS_COUNT",
        config.digest,
        `Image ${manifest.digest} has ${layers.length} layers and its config ${config.digest} has ${image.diffIds.length} diffIDs`,
      );
      return;
    }
    for (const [position, layer] of layers.entries())
      if (isLayerType(layer.mediaType)) verifyDiffId(layer, image.diffIds[position], rules);
    if (!image.diffIds.every(isDigest)) return;
    const inline = readInlineCache(image, layers, `image "${manifest.digest}"`);
    if (inline) verifyConfig(inline.config, inline.layers, config.digest, problems);
  } catch (error) {
    problems.addError(error, config.digest);
  }
}

function noteUnchecked(
  { digest, mediaType }: Descriptor,
  manifest: Descriptor,
  problems: ProblemList,
): void {
  problems.add(
    "LAYER_UNCHECKED",
    digest,
    `Image ${manifest.digest} lists layer ${digest} as ${JSON.stringify(mediaType.slice(0, 200))}, which is no known layer type: its bytes were hashed, and nothing else of it was checked`,
  );
}
