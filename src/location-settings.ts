/** With what stores are opened. */
import type { CommandContext } from "./cli-command.ts";
import type { DocumentLimits } from "./documents.ts";
import type { Access } from "./location-login.ts";

/** What every store is opened with. */
export interface StoreSettings {
  limits: DocumentLimits;
  /** Blobs, or requests to a host, at once. */
  jobs: number;
  /** Milliseconds to wait for a layout's lock. */
  lockTimeout: number;
  signal: AbortSignal;
  env: CommandContext["env"];
  stdin(): ReadableStream<Uint8Array>;
  write(bytes: Uint8Array): Promise<void>;
  /** Tells the user what is no failure. */
  note(text: string): void;
  stdinIsTerminal: boolean;
  stdoutIsTerminal: boolean;
  /** Logins and certificates; other logins are looked up where docker login keeps them. */
  access: Access;
  /** Takes the log of requests. */
  trace: ((line: string) => void) | undefined;
  caFile: string | undefined;
  insecure: boolean;
  plainHttp: boolean;
  allowPrivateUpload: boolean;
  /** Blobs that a registry says it has are skipped only when they can be read. */
  checkTarget: boolean;
}

/** How an archive is to be written. */
export interface ArchiveOptions {
  /** Write it anew and leave out what nothing names. */
  rewrite?: boolean;
  /** Compress the archive as a whole. */
  compress?: "gzip" | "zstd" | undefined;
}
