/** Opening a location from a program: what the command line's options would say, with its defaults. */
import type { ContentWriter, Store } from "./content-store.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import type { Access } from "./location-login.ts";
import { locateTarget, openSource, openWriter as openLocationWriter } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";

/** How to open a location. */
export interface OpenOptions {
  /** 4 MiB for a manifest, 64 MiB for a config unless told otherwise. */
  limits?: DocumentLimits | undefined;
  /** Blobs, or requests to a host, at once; 4 unless told otherwise. */
  jobs?: number | undefined;
  /** Milliseconds to wait for the lock of a layout; 30,000 unless told otherwise. */
  lockTimeout?: number | undefined;
  signal?: AbortSignal | undefined;
  /**
   * Where logins, proxies and the addresses of object stores are looked up, as `process.env`
   * has them; nothing is looked up without it.
   */
  env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Path of a file with certificate authorities, PEM. */
  caFile?: string | undefined;
  /** Accept certificates that cannot be checked. */
  insecure?: boolean | undefined;
  /** Talk to registries without TLS, and send logins so. */
  plainHttp?: boolean | undefined;
}

/**
 * Opens what a location names for reading. Close it.
 *
 * @param location As on the command line: `./cache`, `image.tar`, `registry.example/app/cache`.
 *   A name at its end is not looked up: `resolve` does that.
 * @throws {CacheportError} REFERENCE_INVALID, LOCATION_NOT_FOUND, LAYOUT_INVALID, ARCHIVE_INVALID, ...
 * @example
 * const store = await openStore("./cache");
 * const names = await store.list();
 */
export async function openStore(location: string, options: OpenOptions = {}): Promise<Store> {
  const { store } = await openSource(location, settingsOf(options));
  return store;
}

/**
 * Opens a location for writing. Close it.
 *
 * @param location As on the command line; what is not there is made.
 * @throws {CacheportError} USAGE for a text that can be meant in two ways, and those of opening
 * @example
 * const writer = await openWriter("./copy");
 * await writer.close();
 */
export async function openWriter(
  location: string,
  options: OpenOptions = {},
): Promise<ContentWriter> {
  return openLocationWriter(locateTarget(location), settingsOf(options));
}

const NO_ACCESS: Access = {
  login: undefined,
  source: undefined,
  target: undefined,
  verifySource: true,
  verifyTarget: true,
  targets: [],
  usedInput: false,
};

function settingsOf(options: OpenOptions): StoreSettings {
  const noStream = (): never => {
    throw new CacheportError("NOT_SUPPORTED", 'Cannot open "-": a program has its own streams');
  };
  return {
    limits: options.limits ?? DEFAULT_LIMITS,
    jobs: options.jobs ?? 4,
    lockTimeout: options.lockTimeout ?? 30_000,
    signal: options.signal ?? new AbortController().signal,
    env: options.env ?? {},
    stdin: noStream,
    write: noStream,
    note: () => {},
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    access: NO_ACCESS,
    trace: undefined,
    caFile: options.caFile,
    insecure: options.insecure ?? false,
    plainHttp: options.plainHttp ?? false,
    allowPrivateUpload: false,
    checkTarget: false,
  };
}
