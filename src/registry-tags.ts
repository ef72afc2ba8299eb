/**
 * The tags of a repository, page by page.
 *
 * Source: OCI distribution-spec, "Listing Tags"; RFC 8288 (Link).
 */
import * as v from "valibot";
import { checkSchema } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { parseJson } from "./go-json.ts";
import { isTag } from "./reference.ts";
import type { RepositoryClient } from "./registry-client.ts";
import type { Reply } from "./registry-transport.ts";

const TagListSchema = v.object({ tags: v.nullish(v.array(v.string()), []) });

/**
 * Tags on one page: some registries answer 400 to more than they give, a few to any
 * number at all.
 */
const PAGE_SIZES = ["?n=1000", "?n=100", ""];
const MAX_PAGES = 1000;
const MAX_TAGS = 100_000;
/** Bytes of one page. */
const MAX_PAGE = 16 * 1024 * 1024;

/**
 * Lists tags in the registry's order. What is no tag by the grammar is left out.
 *
 * @throws {CacheportError} LOCATION_NOT_FOUND, REGISTRY_DENIED, REGISTRY_FAILED, DOCUMENT_INVALID
 */
export async function listTags(client: RepositoryClient): Promise<string[]> {
  const { location } = client;
  const what = `tags of "${location}"`;
  const tags = new Set<string>();
  const seen = new Set<string>();
  let reply = await firstPage(client);
  for (;;) {
    if (reply.status !== 200)
      throw await client.refusal(`Cannot list ${what}`, reply, { missing: "LOCATION_NOT_FOUND" });
    const page = checkSchema(TagListSchema, parseJson(reply.body, what), what);
    for (const tag of page.tags) {
      if (isTag(tag)) tags.add(tag);
      // Counted while they arrive: whatever is done with each of them has a bound.
      if (tags.size > MAX_TAGS) throw tooMany(location, `more than ${MAX_TAGS} tags`);
    }
    const link = nextPage(reply);
    if (link === undefined) return [...tags];
    const next = await samePlace(client, link, reply);
    if (seen.has(next.href) || seen.size >= MAX_PAGES)
      throw tooMany(location, "a list that does not come to an end");
    seen.add(next.href);
    reply = await requestPage(client, next);
  }
}

async function firstPage(client: RepositoryClient): Promise<Reply> {
  for (const [index, query] of PAGE_SIZES.entries()) {
    const reply = await requestPage(client, `/v2/${client.path}/tags/list${query}`);
    const isTooLarge = [400, 416, 422].includes(reply.status);
    if (!isTooLarge || index === PAGE_SIZES.length - 1) return reply;
  }
  throw new Error("unreachable");
}

function requestPage(client: RepositoryClient, url: URL | string): Promise<Reply> {
  return client.transport.request({ method: "GET", url, scopes: client.scopes("pull") }, MAX_PAGE);
}

/** The target of a Link header that says next, or that says nothing of what it is. */
export function nextPage({ headers }: Reply): string | undefined {
  const link = headers.get("link") ?? "";
  let unnamed: string | undefined;
  for (const [, target, parameters = ""] of link.matchAll(
    /<([^<>]*)>((?:\s*;\s*[\w*]+\s*=\s*(?:"[^"]*"|[^\s";,]*))*)/g,
  )) {
    const relation = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]*))/i.exec(parameters);
    if (!relation) unnamed ??= target;
    else if ((relation[1] ?? relation[2] ?? "").toLowerCase().split(/\s+/).includes("next"))
      return target;
  }
  return unnamed;
}

/**
 * Resolves a link. One to another host, as a registry behind a proxy gives its inner
 * one, is asked of the registry's own list: elsewhere the login has no business.
 */
async function samePlace(client: RepositoryClient, link: string, reply: Reply): Promise<URL> {
  const url = URL.parse(link, reply.url.href);
  if (url?.origin === reply.url.origin) return url;
  if (url?.search) return new URL(`/v2/${client.path}/tags/list${url.search}`, reply.url);
  throw new CacheportError(
    "REGISTRY_FAILED",
    `Cannot list tags at registry "${client.transport.domain}": the next page is said to be on another host, ${url?.host}`,
  );
}

function tooMany(location: string, what: string): CacheportError {
  return new CacheportError(
    "REGISTRY_FAILED",
    `Cannot list tags of "${location}": the registry gives ${what}`,
    { hint: "Name the tag that you want" },
  );
}
