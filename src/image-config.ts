/**
 * The parts of an image's config that cacheport reads: what it runs on, its
 * layers' diffIDs, its history and an inline cache.
 *
 * Source: OCI image-spec, config.md; BuildKit
 * exporter/containerimage/exptypes for `moby.buildkit.cache.v0`.
 */
import * as v from "valibot";
import { PLATFORM_ENTRIES } from "./descriptor.ts";
import { checkSchema, goStruct, optional } from "./documents.ts";
import { parseJson } from "./go-json.ts";

/** One step of an image's history. */
export interface HistoryEntry {
  created?: string | undefined;
  createdBy?: string | undefined;
  comment?: string | undefined;
  /** The step made no layer. */
  emptyLayer: boolean;
}

/** What an image's config says. */
export interface ImageConfig {
  architecture: string;
  os: string;
  variant?: string | undefined;
  osVersion?: string | undefined;
  created?: string | undefined;
  /** Digests of the uncompressed layers, bottom first. */
  diffIds: string[];
  history: HistoryEntry[];
  /** The inline cache: base64 of a JSON array of records. */
  inlineCache?: string | undefined;
}

const ImageConfigSchema = v.pipe(
  goStruct({
    ...PLATFORM_ENTRIES,
    created: optional(v.string()),
    rootfs: optional(goStruct({ diff_ids: v.nullish(v.array(v.string()), []) })),
    history: v.nullish(
      v.array(
        goStruct({
          created: optional(v.string()),
          created_by: optional(v.string()),
          comment: optional(v.string()),
          empty_layer: v.nullish(v.boolean(), false),
        }),
      ),
      [],
    ),
    "moby.buildkit.cache.v0": optional(v.string()),
  }),
  v.transform((config): ImageConfig => ({
    architecture: config.architecture,
    os: config.os,
    variant: config.variant,
    osVersion: config["os.version"],
    created: config.created,
    diffIds: config.rootfs?.diff_ids ?? [],
    history: config.history.map((entry) => ({
      created: entry.created,
      createdBy: entry.created_by,
      comment: entry.comment,
      emptyLayer: entry.empty_layer,
    })),
    inlineCache: config["moby.buildkit.cache.v0"],
  })),
);

/** @throws {CacheportError} DOCUMENT_INVALID */
export function parseImageConfig(bytes: Uint8Array, what: string): ImageConfig {
  return checkSchema(ImageConfigSchema, parseJson(bytes, what), what);
}
