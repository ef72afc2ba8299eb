/**
 * Writes a cache as one HTML page that needs nothing else: no network, no fonts, no
 * other files. It is inspect-page.html with the style sheet, the parts of the script
 * and the cache as JSON in their places.
 */
import type { CacheGraph } from "./cache-graph.ts";
import { isKnownTime, parseCacheTime } from "./cache-time.ts";
import { cacheLabel } from "./inspect-labels.ts";
import type { InspectedCache } from "./inspect.ts";
import { fillPage } from "./cli-page.ts";
import { NAME, VERSION } from "./version.ts";
import page from "./inspect-page.html" with { type: "text" };
import detailScript from "./inspect-page-detail.js" with { type: "text" };
import graphScript from "./inspect-page-graph.js" with { type: "text" };
import listScript from "./inspect-page-list.js" with { type: "text" };
import mapScript from "./inspect-page-map.js" with { type: "text" };
import style from "./inspect-page.css" with { type: "text" };

/** Problems that the page shows; a broken cache can have one for each record. */
const SHOWN_PROBLEMS = 200;

/** A moment in milliseconds since 1970; null where none is known. */
type Moment = number | null;

/** What the page's script reads. Lists stand for objects that come in thousands. */
export interface PageData {
  /** The cache as the user called it. */
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
  /** `parent` is a position in the same list, -1 for none. */
  places: [blob: number, parent: number, cache: number][];
  records: [
    digest: string,
    cache: number,
    results: [place: number, created: Moment, chain?: number[]][],
    name?: string,
  ][];
  selectors: string[];
  /** Four numbers a link: from, to, input, selector. */
  links: number[];
}

/**
 * Writes the page of a cache. The same cache under the same name always gives the
 * same bytes.
 *
 * @param name The cache as the user called it, for the heading.
 */
export function inspectHtml(graph: CacheGraph, cache: InspectedCache, name: string): string {
  return fillPage(page as unknown as string, {
    style,
    scripts: [graphScript, mapScript, listScript, detailScript],
    data: pageData(graph, cache, name),
  });
}

/** The cache in the form that the page's script reads. */
export function pageData(graph: CacheGraph, cache: InspectedCache, name: string): PageData {
  const mediaTypes = new Numbering();
  const selectors = new Numbering();
  const digests = new Numbering();
  const blobs: PageData["blobs"] = [];
  const places = graph.layers.map((layer): PageData["places"][number] => {
    const at = digests.of(layer.digest);
    if (at === blobs.length) {
      const { digest, size, mediaType, diffId, createdAt } = layer;
      const type = mediaType === null ? null : mediaTypes.of(mediaType);
      blobs.push([digest, size, type, diffId, moment(createdAt)]);
    }
    return [at, layer.parent ?? -1, layer.cache];
  });
  const links = graph.links.flatMap(({ from, to, input, selector }) => [
    from,
    to,
    input,
    selectors.of(selector),
  ]);
  return {
    name,
    made: `Made by ${NAME} ${VERSION}.`,
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
  };
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
