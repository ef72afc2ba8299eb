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
import type { RepositoryClient } from "./registry-repository.ts";
import type { RegistryTransport, Reply } from "./registry-transport.ts";

const TagListSchema = v.object({ tags: v.nullish(v.array(v.string()), []) });

const PAGE_SIZE = 1000;
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
  const { transport, path, location } = client;
  const tags = new Set<string>();
  const seen = new Set<string>();
  let next: URL | string = `/v2/${path}/tags/list?n=${PAGE_SIZE}`;
  for (;;) {
    const reply: Reply = await transport.request(
      { method: "GET", url: next, scopes: client.scopes("pull") },
      MAX_PAGE,
    );
    if (reply.status !== 200)
      throw await client.refusal(`Cannot list tags of "${location}"`, reply, {
        missing: "LOCATION_NOT_FOUND",
      });
    const what = `tags of "${location}"`;
    const page = checkSchema(TagListSchema, parseJson(reply.body, what), what);
    for (const tag of page.tags) if (isTag(tag)) tags.add(tag);
    const link = nextPage(reply);
    if (link === undefined) break;
    next = await samePlace(transport, link, reply);
    if (seen.has(next.href) || seen.size >= MAX_PAGES || tags.size > MAX_TAGS)
      throw endless(location);
    seen.add(next.href);
  }
  return [...tags];
}

/** The target of a Link header with rel="next". */
function nextPage({ headers }: Reply): string | undefined {
  const link = headers.get("link") ?? "";
  for (const [, target, parameters] of link.matchAll(
    /<([^<>]*)>((?:\s*;\s*[\w*]+\s*=\s*(?:"[^"]*"|[^\s";,]*))*)/g,
  )) {
    if (/;\s*rel\s*=\s*(?:"next"|next(?![\w-]))/i.test(parameters ?? "")) return target;
  }
  return undefined;
}

/** Resolves a link; one to another host is refused, as it would lead the login there. */
async function samePlace(transport: RegistryTransport, link: string, reply: Reply): Promise<URL> {
  const url = await transport.location(
    { ...reply, headers: new Headers({ location: link }) },
    false,
  );
  if (url.origin === reply.url.origin) return url;
  throw new CacheportError(
    "REGISTRY_FAILED",
    `Cannot list tags at registry "${transport.domain}": the next page is said to be on another host, ${url.host}`,
  );
}

function endless(location: string): CacheportError {
  return new CacheportError(
    "REGISTRY_FAILED",
    `Cannot list tags of "${location}": the registry's list does not come to an end`,
    { hint: "Name the tag that you want" },
  );
}
