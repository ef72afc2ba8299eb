/** Makes generated caches into what graphs are made from. */
import type { GraphSource } from "../../src/cache-graph.ts";
import type { Cache } from "../../src/cache-layers.ts";
import type { Platform } from "../../src/descriptor.ts";
import { inspectCache } from "../../src/inspect.ts";
import type { InspectedCache } from "../../src/inspect.ts";
import { CACHE_CONFIG, OCI_MANIFEST } from "../../src/media-types.ts";
import { fakeDigest } from "./generated-cache.ts";

/** A cache as if it had been read, with made-up documents around it. */
export function graphSource(cache: Cache, platform?: Platform): GraphSource {
  const mediaType = OCI_MANIFEST;
  return {
    shape: "image-manifest",
    manifest: { mediaType, digest: fakeDigest("manifest"), size: 1 },
    platform,
    ...cache,
    blob: {
      descriptor: { mediaType: CACHE_CONFIG, digest: fakeDigest("config"), size: 1 },
    },
  };
}

/** What is found in sources: one cache, or an index of several. */
export function inspectSources(...sources: [GraphSource, ...GraphSource[]]): InspectedCache {
  return inspectCache({
    shape: sources.length === 1 ? "image-manifest" : "index-of-caches",
    descriptor: sources[0].manifest,
    caches: sources.map((source) => ({
      ...source,
      shape: "image-manifest",
      blob: { ...source.blob, bytes: new Uint8Array() },
      layers: [...source.layers],
    })),
  });
}

/** Texts that drawings and pages must not take for their own syntax. */
export const HOSTILE_TEXTS: readonly string[] = [
  'a"b',
  "end",
  "</script><script>alert(1)</script>",
  "<!--<script>",
  "`code`",
  "# ; style: x#;",
  "\u0000\x1b[31m\u202e",
  "a\\n|b|\\",
  "[[x]]",
  "&lt;&quot;",
  "%% comment",
  "click r0 href",
  "日本\u{1F600}",
  "\ud800",
  "$& $` $'",
  "",
];
