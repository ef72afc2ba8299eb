/**
 * The token of a workflow's step, which says for which refs caches may be read and
 * written. It is the service that checks its signature.
 *
 * Source: tonistiigi/go-actions-cache (token.go, api.md); BuildKit gha.go (which scope
 * is written).
 */
import * as v from "valibot";
import { CacheportError } from "./errors.ts";
import { sha256 } from "./object-sigv4.ts";

/** A ref whose caches the token opens, and what it permits there. */
export interface TokenScope {
  /** `refs/heads/main` */
  readonly ref: string;
  readonly read: boolean;
  readonly write: boolean;
}

/** What a token says. */
export interface GithubToken {
  /** In the token's order: the own ref first. */
  readonly scopes: readonly TokenScope[];
  /** The ref that is written: the last one that may be; undefined for none. */
  readonly writable: string | undefined;
}

const TokenSchema = v.looseObject({
  ac: v.string(),
  exp: v.optional(v.number()),
  nbf: v.optional(v.number()),
});
const ScopesSchema = v.array(v.looseObject({ Scope: v.string(), Permission: v.number() }));

/**
 * Reads a token.
 *
 * @param now Milliseconds since 1970.
 * @throws {CacheportError} USAGE for what is no such token, STORE_DENIED for one that ran out
 */
export function readToken(text: string, location: string, now: number): GithubToken {
  const wrong = (reason: string): CacheportError =>
    new CacheportError("USAGE", `Cannot use location "${location}": ${reason}`, {
      hint: "The token is ACTIONS_RUNTIME_TOKEN of a workflow's step, not a personal access token",
    });
  const payload = v.safeParse(TokenSchema, parse(base64(text.split(".")[1] ?? "")));
  if (!payload.success) throw wrong("the token has no access controls");
  const { ac, exp } = payload.output;
  const controls = v.safeParse(ScopesSchema, parse(ac));
  if (!controls.success) throw wrong("the token's access controls cannot be read");
  if (exp !== undefined && exp * 1000 < now) {
    throw new CacheportError(
      "STORE_DENIED",
      `Cannot use location "${location}": the token ran out at ${new Date(exp * 1000).toISOString()}`,
      { hint: "It is valid for the time of one job; take that of the present one" },
    );
  }
  const scopes = controls.output.map(({ Scope, Permission }) => ({
    ref: Scope,
    read: (Permission & 1) !== 0,
    write: (Permission & 2) !== 0,
  }));
  return { scopes, writable: scopes.findLast(({ write }) => write)?.ref };
}

/** The part of a key that stands for a ref. */
export function refHash(ref: string): string {
  return sha256(ref).slice(0, 8);
}

function base64(text: string): string {
  return Buffer.from(text, "base64url").toString("utf8");
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
