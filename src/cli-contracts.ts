/**
 * The contract of `--json`: a schema for the value of each command. `cacheport schema` prints
 * them as JSON Schema, and tests hold what commands print against them. Fields are only added.
 */
import * as v from "valibot";
import { CACHE_SHAPES } from "./cache-manifest.ts";

const text = v.string();
const count = v.number();
const flag = v.boolean();
const orNull = <Schema extends v.GenericSchema>(schema: Schema) => v.nullable(schema);

const platform = v.looseObject({
  os: v.optional(text),
  architecture: v.optional(text),
  variant: v.optional(text),
});

const descriptor = v.looseObject({
  mediaType: text,
  digest: text,
  size: count,
  annotations: v.optional(v.record(text, text)),
  platform: v.optional(platform),
});

/** What every write says of its place. */
const written = {
  to: v.object({ kind: text, location: text, new: flag }),
  moved: v.array(v.object({ name: text, from: text, to: text })),
};

const transfer = {
  mediaType: orNull(text),
  digest: orNull(text),
  size: count,
  shape: orNull(text),
  names: v.array(text),
  blobs: v.looseObject({ copied: count, skipped: count, bytes: count }),
};

const dropped = v.looseObject({
  records: count,
  results: count,
  layers: v.array(descriptor),
  bytes: count,
});

/** What a change of a cache says where there is something to say. */
const changed = {
  joinedLeaves: v.optional(count),
  deleted: v.optional(v.array(text)),
};

const conflict = v.looseObject({
  digest: text,
  name: v.optional(text),
  chain: count,
  results: v.array(
    v.looseObject({ location: orNull(text), layer: text, createdAt: text, kept: flag }),
  ),
});

const shape = v.union([v.picklist(CACHE_SHAPES), text]);
const kind = v.union([v.picklist(["cache", "image", "index", "artifact"]), text]);

const problem = v.looseObject({
  code: text,
  severity: v.picklist(["error", "warning", "note"]),
  digest: v.nullish(text),
  message: text,
});

const cacheLayer = v.looseObject({
  digest: text,
  size: count,
  mediaType: text,
  diffId: orNull(text),
  createdAt: orNull(text),
  parent: orNull(count),
  depth: count,
  records: count,
});

const imageLayer = v.looseObject({
  digest: text,
  size: count,
  mediaType: text,
  diffId: orNull(text),
  createdBy: orNull(text),
});

const inspectedCache = v.looseObject({
  kind: v.literal("cache"),
  shape,
  manifest: descriptor,
  config: orNull(descriptor),
  platform: orNull(platform),
  layers: v.array(cacheLayer),
  records: count,
  results: count,
  ages: orNull(v.looseObject({ oldest: orNull(text), newest: orNull(text) })),
  totalSize: count,
  problems: v.array(problem),
});

const inspectedImage = v.looseObject({
  kind: v.literal("image"),
  manifest: descriptor,
  config: descriptor,
  platform: orNull(platform),
  created: orNull(text),
  layers: v.array(imageLayer),
  history: v.array(v.looseObject({ createdBy: orNull(text), emptyLayer: flag })),
  totalSize: count,
  inlineCache: flag,
});

const inspectedOther = v.looseObject({
  kind: v.picklist(["index", "artifact"]),
  manifest: descriptor,
  artifactType: orNull(text),
  config: orNull(descriptor),
  children: v.array(descriptor),
  totalSize: count,
});

const compared = v.looseObject({ location: text, digest: text, shape, records: count });
const onlyIn = v.array(v.looseObject({ digest: text, reason: text }));

/** A piece of content and what it lists, as `ls --tree` has it. */
interface Tree {
  digest: string;
  children: Tree[];
}
const tree: v.GenericSchema<Tree> = v.looseObject({
  refName: orNull(text),
  imageName: orNull(text),
  digest: text,
  mediaType: text,
  size: count,
  platform: orNull(platform),
  problem: orNull(text),
  repeated: flag,
  children: v.array(v.lazy(() => tree)),
});

/** The value of each command that has one of its own form, by the command's name. */
export const CONTRACTS: Readonly<Record<string, v.GenericSchema>> = {
  convert: v.looseObject({
    ...transfer,
    ...written,
    ...changed,
    source: v.looseObject({ digest: text, shape }),
    healed: v.optional(flag),
    dropped: v.optional(dropped),
    dryRun: flag,
  }),
  copy: v.looseObject({
    ...transfer,
    ...written,
    entries: v.array(
      v.looseObject({ digest: text, mediaType: text, size: count, names: v.array(text) }),
    ),
    referrers: v.array(
      v.looseObject({ digest: text, mediaType: text, size: count, subject: text }),
    ),
    dryRun: flag,
  }),
  heal: v.looseObject({ ...transfer, ...written, ...changed, healed: flag, dryRun: flag }),
  merge: v.looseObject({
    ...transfer,
    ...written,
    ...changed,
    conflicts: v.optional(v.array(conflict)),
    dropped: v.optional(dropped),
    sources: v.array(v.looseObject({ location: text, digest: text, shape })),
    dryRun: flag,
  }),
  prune: v.union([
    v.looseObject({
      ...transfer,
      ...written,
      ...changed,
      records: count,
      totalSize: count,
      dropped,
      missing: v.optional(count),
      outcome: text,
      dryRun: flag,
    }),
    // With --all.
    v.looseObject({
      ...written,
      entries: v.array(
        v.looseObject({
          names: v.array(orNull(text)),
          from: orNull(text),
          digest: orNull(text),
          outcome: text,
          records: count,
          totalSize: count,
        }),
      ),
      totalSize: count,
      dropped,
      missing: v.optional(count),
      removed: v.array(text),
      deleted: v.optional(v.array(text)),
      dryRun: flag,
    }),
  ]),
  ls: v.array(
    v.looseObject({
      digest: text,
      mediaType: text,
      size: orNull(count),
      kind: orNull(kind),
      refName: orNull(text),
      imageName: orNull(text),
      platform: orNull(platform),
      problem: orNull(text),
    }),
  ),
  "ls --tree": v.array(tree),
  inspect: v.union([inspectedCache, inspectedImage, inspectedOther]),
  resolve: descriptor,
  cat: v.looseObject({ mediaType: text, digest: text, size: count, data: text }),
  verify: v.looseObject({ ok: flag, blobs: count, bytes: count, problems: v.array(problem) }),
  gc: v.looseObject({
    removed: v.array(v.looseObject({ digest: text, size: count })),
    removedBytes: count,
    kept: count,
    dryRun: flag,
  }),
  du: v.looseObject({
    total: v.looseObject({ blobs: count, bytes: count }),
    names: v.array(
      v.looseObject({
        names: v.array(text),
        digest: text,
        blobs: count,
        bytes: count,
        alone: v.looseObject({ blobs: count, bytes: count }),
        problem: orNull(text),
      }),
    ),
    shared: v.looseObject({ blobs: count, bytes: count }),
    unreachable: orNull(v.looseObject({ blobs: count, bytes: count })),
    leftovers: v.looseObject({ files: count, bytes: count }),
    ages: v.array(v.looseObject({ within: orNull(count), blobs: count, bytes: count })),
  }),
  expire: v.looseObject({
    removed: v.array(v.looseObject({ name: orNull(text), digest: text })),
    kept: v.array(v.looseObject({ name: orNull(text), digest: text, reason: orNull(text) })),
    dryRun: flag,
  }),
  serve: v.looseObject({
    address: text,
    port: count,
    repositories: v.array(
      v.looseObject({
        name: text,
        location: text,
        reference: text,
        tags: v.array(text),
        writable: flag,
      }),
    ),
  }),
  diff: v.looseObject({
    a: compared,
    b: compared,
    equal: flag,
    records: v.looseObject({ both: count, onlyA: onlyIn, onlyB: onlyIn }),
    layers: v.looseObject({
      both: v.looseObject({ count, bytes: count }),
      onlyA: v.array(descriptor),
      onlyB: v.array(descriptor),
      onlyABytes: count,
      onlyBBytes: count,
    }),
    size: v.object({ a: count, b: count }),
    steps: v.array(
      v.looseObject({
        digest: text,
        aLayer: text,
        bLayer: text,
        files: v.array(
          v.looseObject({
            path: text,
            change: text,
            aSize: orNull(count),
            bSize: orNull(count),
            from: v.optional(text),
            to: v.optional(text),
          }),
        ),
        total: count,
      }),
    ),
    skippedSteps: count,
  }),
  explain: v.looseObject({
    schema: count,
    cache: compared,
    caches: v.array(compared),
    builds: v.array(v.looseObject({ source: text, slsa: orNull(text), platform: orNull(text) })),
    summary: v.looseObject({
      steps: count,
      hit: count,
      miss: count,
      maybe: count,
      hitPercent: orNull(count),
    }),
    steps: v.array(
      v.looseObject({
        id: text,
        name: text,
        status: text,
        file: orNull(text),
        line: orNull(count),
        why: v.array(v.looseObject({})),
      }),
    ),
    hints: v.array(v.looseObject({ code: text, steps: v.array(text), text })),
  }),
  tag: v.looseObject({
    mediaType: text,
    digest: text,
    size: count,
    names: v.array(text),
    ...written,
  }),
  untag: v.looseObject({
    removed: v.array(text),
    digest: orNull(text),
    entries: v.array(v.looseObject({ name: text, digest: text })),
  }),
  ref: v.object({
    domain: text,
    path: text,
    tag: orNull(text),
    digest: orNull(text),
    familiar: text,
    canonical: text,
  }),
  version: v.looseObject({ name: text, version: text, commit: text, bun: text, target: text }),
  "self-check": v.looseObject({
    ok: flag,
    checks: v.array(
      v.looseObject({ name: text, status: v.picklist(["ok", "limited", "failed"]), detail: text }),
    ),
  }),
  completion: v.looseObject({ shell: text, script: text }),
  /** Every command that fails prints this. */
  error: v.object({
    error: v.looseObject({ code: text, message: text, hint: orNull(text) }),
  }),
};
