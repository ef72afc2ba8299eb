/**
 * Where a registry is: the host behind a reference's domain, and whether it is
 * asked by HTTPS, by HTTPS without verification or by plain HTTP.
 *
 * Source: containerd core/remotes/docker/registry.go (MatchLocalhost, docker.io);
 * BuildKit util/resolver (registry.insecure: HTTPS without verification, then
 * HTTP; refused or timed out connections count only without an explicit port).
 */

import { lookup } from "node:dns/promises";
import { CacheportError } from "./errors.ts";

/** One way to reach a registry. */
export interface Endpoint {
  /** Scheme, host and port: `https://registry.example:5000`. */
  readonly origin: string;
  /** False when the server's certificate is not checked. */
  readonly verify: boolean;
}

/** What decides between HTTPS and HTTP. */
export interface EndpointOptions {
  /** Takes any certificate, and plain HTTP where there is no HTTPS. */
  insecure?: boolean | undefined;
  /** Never uses HTTPS. */
  plainHttp?: boolean | undefined;
  /** A file of certificates was given, so HTTPS is expected even on this machine. */
  caFile?: string | undefined;
}

const DOCKER_HUB = new Set(["docker.io", "index.docker.io", "registry-1.docker.io"]);

/** Tells whether a domain is Docker Hub under one of its names. */
export function isDockerHub(domain: string): boolean {
  return DOCKER_HUB.has(domain);
}

/** The ways to reach a registry, in the order in which they are tried. */
export function registryEndpoints(domain: string, options: EndpointOptions): Endpoint[] {
  const host = isDockerHub(domain) ? "registry-1.docker.io" : domain;
  const https = { origin: originOf("https", host), verify: true };
  const http = { origin: originOf("http", host), verify: true };
  if (options.plainHttp) return [http];
  if (options.insecure) return [{ ...https, verify: false }, http];
  if (!isLoopbackHost(new URL(https.origin).hostname)) return [https];
  return options.caFile === undefined ? [http, https] : [https, http];
}

function originOf(scheme: string, host: string): string {
  const url = URL.parse(`${scheme}://${host}`);
  if (!url)
    throw new CacheportError(
      "USAGE",
      `Cannot reach registry "${host}": it is no host, or no port`,
      {
        hint: "A port is a number up to 65535, an IPv6 address stands in brackets: [::1]:5000",
      },
    );
  if (/^\[fe[89ab][0-9a-f]:/i.test(url.hostname))
    throw new CacheportError(
      "USAGE",
      `Cannot reach registry "${host}": a link-local address means nothing without its network interface, which a reference cannot name`,
      { hint: "Use the registry's host name or another of its addresses" },
    );
  return url.origin;
}

/** Tells whether a domain names a port. */
export function hasPort(domain: string): boolean {
  return /:\d+$/.test(domain);
}

/** Tells whether a URL's host name is this machine: localhost, 127.0.0.0/8 or ::1. */
export function isLoopbackHost(hostname: string): boolean {
  return (
    /^(?:.*\.)?localhost\.?$/i.test(hostname) || hostname === "[::1]" || ipv4(hostname)?.[0] === 127
  );
}

/**
 * Tells whether a URL's host name is an address that only this machine or its
 * own network can reach: loopback, link-local, private or unspecified.
 */
export function isPrivateHost(hostname: string): boolean {
  if (isLoopbackHost(hostname)) return true;
  const address = ipv4(hostname);
  if (address) {
    const [a, b] = address;
    return (
      a === 0 ||
      a === 10 ||
      (a === 100 && b >= 64 && b < 128) ||
      (a === 169 && b === 254) ||
      (a === 172 && b >= 16 && b < 32) ||
      (a === 192 && b === 168)
    );
  }
  return /^\[(?:::|f[cd][0-9a-f]{2}:.*|fe[89ab][0-9a-f]:.*)\]$/i.test(hostname);
}

/**
 * Tells whether a host name is an address that means something else on each machine:
 * loopback, link-local (cloud metadata services among them) or unspecified.
 */
export function isLocalHost(hostname: string): boolean {
  if (isLoopbackHost(hostname)) return true;
  const address = ipv4(hostname);
  if (address) return address[0] === 0 || (address[0] === 169 && address[1] === 254);
  return /^\[(?:::|fe[89ab][0-9a-f]:.*)\]$/i.test(hostname);
}

/** The addresses that a host name stands for, as URLs have them; none when they cannot be known. */
export async function hostAddresses(hostname: string): Promise<string[]> {
  try {
    return (await lookup(hostname, { all: true })).map(({ address, family }) =>
      family === 6 ? new URL(`http://[${address.replace(/%.*$/, "")}]`).hostname : address,
    );
  } catch {
    return [];
  }
}

/** The first two numbers of an IPv4 address, also of one that is written as IPv6. */
function ipv4(hostname: string): [number, number] | undefined {
  const plain = /^(\d+)\.(\d+)\.\d+\.\d+$/.exec(hostname);
  if (plain) return [Number(plain[1]), Number(plain[2])];
  // The URL parser writes ::ffff:127.0.0.1 as [::ffff:7f00:1].
  const mapped = /^\[::(?:ffff:)?([0-9a-f]{1,4}):[0-9a-f]{1,4}\]$/i.exec(hostname);
  if (!mapped) return undefined;
  const high = Number.parseInt(mapped[1] as string, 16);
  return [high >> 8, high & 0xff];
}
