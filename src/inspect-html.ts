/**
 * Writes a cache as one HTML page that needs nothing else: no network, no fonts, no
 * other files. It is inspect-page.html with the style sheet, the parts of the script
 * and the cache as JSON in their places.
 */
import type { CacheGraph } from "./cache-graph.ts";
import { pruneOrder } from "./cache-prune.ts";
import type { Cache } from "./cache-layers.ts";
import { isKnownTime, parseCacheTime } from "./cache-time.ts";
import { cacheLabel } from "./inspect-labels.ts";
import type { LargestFiles } from "./inspect-largest.ts";
import type { ImageSetting } from "./inspect-image.ts";
import type { InspectedCache, InspectedImage } from "./inspect.ts";
import { formatPlatform } from "./platform.ts";
import { fillPage } from "./cli-page.ts";
import { NAME, VERSION } from "./version.ts";
import page from "./inspect-page.html" with { type: "text" };
import detailScript from "./inspect-page-detail.js" with { type: "text" };
import graphScript from "./inspect-page-graph.js" with { type: "text" };
import listScript from "./inspect-page-list.js" with { type: "text" };
import imageScript from "./inspect-page-image.js" with { type: "text" };
import mapScript from "./inspect-page-map.js" with { type: "text" };
import partsScript from "./inspect-page-parts.js" with { type: "text" };
import pruneScript from "./inspect-page-prune.js" with { type: "text" };
import style from "./inspect-page.css" with { type: "text" };

/** Problems that the page shows; a broken cache can have one for each record. */
const SHOWN_PROBLEMS = 200;

/** A moment in milliseconds since 1970; null where none is known. */
type Moment = number | null;

/** What the page's script reads. Lists stand for objects that come in thousands. */
export interface PageData {
  kind: "cache" | "image";
  /** The cache or image as the user called it. */
  name: string;
  made: string;
  shape: string;
  digest: string;
  totalSize: number;
  results: number;
  /** What each cache is called. */
  caches: string[];
  oldest: Moment;
  newest: Moment;
  ages: [from: number, length: number, results: number][];
  problemCount: number;
  problems: string[];
  mediaTypes: string[];
  blobs: [
    digest: string,
    size: number | null,
    mediaType: number | null,
    diffId: string | null,
    created: Moment,
  ][];
  /** What layers and records are: steps of builds, base images. */
  names: string[];
  /** `parent` is a position in the same list, -1 for none. */
  places: [blob: number, parent: number, cache: number, ...names: number[]][];
  records: [
    digest: string,
    cache: number,
    results: [place: number, created: Moment, chain?: number[]][],
    name?: string,
  ][];
  selectors: string[];
  /** Four numbers a link: from, to, input, selector. */
  links: number[];
  /**
   * Results, as positions among all of the records, from the one that prune keeps first to
   * the one that goes first; null for what is not pruned.
   */
  order: number[] | null;
  /** What is in blobs, by their positions. */
  files: Record<number, PageFiles>;
  image: PageImage | null;
}

/** What is in a layer: all files counted, the folder that stands for them, the largest. */
export type PageFiles = [
  files: number,
  place: string,
  bytes: number,
  isWhole: boolean,
  largest: [path: string, size: number, mark: string][],
];

/** What an image has beside its layers. */
export interface PageImage {
  created: string | null;
  settings: ImageSetting[];
  /** `place` is the layer that the step made, -1 for none. */
  history: [text: string, created: Moment, place: number, comment: string][];
}

/** What a page shows beyond what the graph and the inspection have. */
export interface PageExtras {
  /** The one cache of the graph, for what would go of it; without it the page tells nothing of that. */
  cache?: Cache | undefined;
  /** What is in layers, by their digests. */
  contents?: ReadonlyMap<string, LargestFiles> | undefined;
}

/**
 * Writes the page of a cache. The same cache under the same name always gives the
 * same bytes.
 *
 * @param name The cache as the user called it, for the heading.
 */
export function inspectHtml(
  graph: CacheGraph,
  cache: InspectedCache,
  name: string,
  extras: PageExtras = {},
): string {
  return htmlOf(pageData(graph, cache, name, extras));
}

/** Writes the page of an image: its layers, its config and its history. */
export function inspectImageHtml(
  image: InspectedImage,
  settings: readonly ImageSetting[],
  name: string,
  extras: Pick<PageExtras, "contents"> = {},
): string {
  return htmlOf(imagePageData(image, settings, name, extras));
}

function htmlOf(data: PageData): string {
  return fillPage(page as unknown as string, {
    style,
    scripts: [
      graphScript,
      partsScript,
      mapScript,
      listScript,
      pruneScript,
      imageScript,
      detailScript,
    ],
    data,
  });
}

/** The cache in the form that the page's script reads. */
export function pageData(
  graph: CacheGraph,
  cache: InspectedCache,
  name: string,
  { cache: prunable, contents }: PageExtras = {},
): PageData {
  const mediaTypes = new Numbering();
  const names = new Numbering();
  const selectors = new Numbering();
  const digests = new Numbering();
  const blobs: PageData["blobs"] = [];
  const places = graph.layers.map((layer, index): PageData["places"][number] => {
    const at = digests.of(layer.digest);
    if (at === blobs.length) {
      const { digest, size, mediaType, diffId, createdAt } = layer;
      const type = mediaType === null ? null : mediaTypes.of(mediaType);
      blobs.push([digest, size, type, diffId, moment(createdAt)]);
    }
    const called = cache.layers[index]?.names ?? [];
    return [at, layer.parent ?? -1, layer.cache, ...called.map((each) => names.of(each))];
  });
  const links = graph.links.flatMap(({ from, to, input, selector }) => [
    from,
    to,
    input,
    selectors.of(selector),
  ]);
  return {
    kind: "cache",
    name,
    made: MADE,
    shape: cache.shape,
    digest: cache.manifest.digest,
    totalSize: cache.totalSize,
    results: cache.results,
    caches: graph.caches.map(cacheLabel),
    oldest: moment(cache.ages.oldest),
    newest: moment(cache.ages.newest),
    ages: cache.ages.spans.map(({ from, length, results }) => [Date.parse(from), length, results]),
    problemCount: cache.problems.length,
    problems: cache.problems.slice(0, SHOWN_PROBLEMS).map(({ message }) => message),
    mediaTypes: mediaTypes.texts,
    blobs,
    names: names.texts,
    places,
    records: graph.records.map(({ digest, cache: of, results, name }) => {
      const record: PageData["records"][number] = [
        digest,
        of,
        results.map(({ layer, createdAt, chain }) =>
          chain ? [layer, moment(createdAt), chain] : [layer, moment(createdAt)],
        ),
      ];
      return name === undefined ? record : [...record, name];
    }) as PageData["records"],
    selectors: selectors.texts,
    links,
    order: (prunable && pruneOrder(prunable)) ?? null,
    files: pageFiles(digests.texts, contents),
    image: null,
  };
}

/** The image in the same form: a chain of layers, and no records. */
export function imagePageData(
  image: InspectedImage,
  settings: readonly ImageSetting[],
  name: string,
  { contents }: Pick<PageExtras, "contents"> = {},
): PageData {
  const mediaTypes = new Numbering();
  const names = new Numbering();
  const digests = new Numbering();
  const blobs: PageData["blobs"] = [];
  const steps = image.history.filter(({ emptyLayer }) => !emptyLayer);
  const places = image.layers.map((layer, index): PageData["places"][number] => {
    const { digest, size, mediaType, diffId, createdBy } = layer;
    const at = digests.of(digest);
    const created = moment(steps[index]?.created ?? null);
    if (at === blobs.length) blobs.push([digest, size, mediaTypes.of(mediaType), diffId, created]);
    return createdBy === null || createdBy === ""
      ? [at, index - 1, 0]
      : [at, index - 1, 0, names.of(stepOf(createdBy))];
  });
  let made = 0;
  const history = image.history.map(
    ({
      createdBy = "",
      created = null,
      comment = "",
      emptyLayer,
    }): PageImage["history"][number] => [
      stepOf(createdBy),
      moment(created),
      emptyLayer || made >= places.length ? -1 : made++,
      comment,
    ],
  );
  const platform = formatPlatform(image.platform);
  return {
    kind: "image",
    name,
    made: MADE,
    shape: platform,
    digest: image.manifest.digest,
    totalSize: image.totalSize,
    results: 0,
    caches: [platform],
    oldest: null,
    newest: null,
    ages: [],
    problemCount: 0,
    problems: [],
    mediaTypes: mediaTypes.texts,
    blobs,
    names: names.texts,
    places,
    records: [],
    selectors: [],
    links: [],
    order: null,
    files: pageFiles(digests.texts, contents),
    image: { created: image.created, settings: [...settings], history },
  };
}

const MADE = `Made by ${NAME} ${VERSION}.`;

/** A step of a history without the shell and the marks that builders put around it. */
function stepOf(createdBy: string): string {
  return createdBy
    .replace(/^\/bin\/sh -c #\(nop\)\s+/, "")
    .replace(/^(?:RUN )?\/bin\/sh -c /, "RUN ")
    .replace(/ # buildkit$/, "");
}

function pageFiles(
  digests: readonly string[],
  contents: ReadonlyMap<string, LargestFiles> | undefined,
): PageData["files"] {
  const files: PageData["files"] = {};
  digests.forEach((digest, at) => {
    const found = contents?.get(digest);
    if (!found) return;
    const { contents: summary, bytes, isWhole, largest } = found;
    files[at] = [
      summary?.files ?? 0,
      summary?.path.slice(0, 400) ?? "",
      bytes,
      isWhole,
      largest.map(({ path, size, type }) => [path, size, type === "file" ? "" : type]),
    ];
  });
  return files;
}

function moment(time: string | null): Moment {
  const parsed = parseCacheTime(time ?? "");
  return isKnownTime(parsed) ? parsed.milliseconds : null;
}

/** Gives each text a number, the same text the same one. */
class Numbering {
  readonly texts: string[] = [];
  readonly #numbers = new Map<string, number>();

  of(text: string): number {
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.texts.push(text) - 1;
      this.#numbers.set(text, number);
    }
    return number;
  }
}
