/**
 * Credentials for registries, from where Docker's and Podman's tools keep them.
 *
 * Sources: docker/cli, cli/config/configfile/file.go and cli/config/credentials;
 * docker/docker-credential-helpers, client/client.go (the helpers' protocol);
 * containers-auth.json(5) (paths, keys of one repository).
 */
import * as v from "valibot";
import { CacheportError, isCacheportError, systemCode } from "./errors.ts";
import { isJsonObject } from "./go-json.ts";
import { join } from "./paths.ts";
import { isDockerHub } from "./registry-endpoint.ts";

/** What a registry takes as a proof of who asks. */
export interface Credential {
  username?: string | undefined;
  password?: string | undefined;
  /** A token that is exchanged for bearer tokens (OAuth refresh token). */
  identityToken?: string | undefined;
  /** A bearer token that is used as it is. */
  registryToken?: string | undefined;
}

/** What was found. */
export interface CredentialLookup {
  credential: Credential | undefined;
  /** Why a place that should have had one gave none, for a hint. */
  problem?: string | undefined;
}

/** Where to look. */
export interface CredentialOptions {
  env: Readonly<Record<string, string | undefined>>;
  /** The user's home folder; `HOME` or `USERPROFILE` when it is left out. */
  home?: string | undefined;
  /** Milliseconds that a credential helper may take. */
  helperTimeout?: number | undefined;
  /** Is told of what was passed over. */
  note?: ((text: string) => void) | undefined;
}

const optionalText = v.nullish(v.string());
const CredentialFileSchema = v.object({
  auths: v.nullish(
    v.record(
      v.string(),
      v.nullish(
        v.object({
          auth: optionalText,
          username: optionalText,
          password: optionalText,
          identitytoken: optionalText,
          registrytoken: optionalText,
        }),
      ),
    ),
  ),
  credsStore: optionalText,
  credHelpers: v.nullish(v.record(v.string(), v.string())),
});
type CredentialFile = v.InferOutput<typeof CredentialFileSchema>;

const HelperSchema = v.object({
  Username: v.nullish(v.string(), ""),
  Secret: v.nullish(v.string(), ""),
});

/** Bytes; a file of credentials is a few KiB. */
const MAX_FILE = 4 * 1024 * 1024;
const HELPER_TIMEOUT = 30_000;
/** Milliseconds in which what a helper wrote before its end arrives. */
const AFTER_EXIT = 500;
/** The key that Docker Hub has had since its first days. */
const DOCKER_HUB_KEY = "https://index.docker.io/v1/";

/**
 * Finds the credential for a repository: in `DOCKER_AUTH_CONFIG`, the file that
 * `REGISTRY_AUTH_FILE` names, Docker's config.json and the two places of
 * containers' auth.json, in this order. Only a key that is exactly the host, the
 * repository or a path above it counts.
 *
 * @param domain As the reference has it: `docker.io`, `registry.example:5000`.
 * @param path The repository: `team/app`.
 * @throws {CacheportError} DOCUMENT_INVALID for a file that is no such file; its content is not shown
 */
export async function findCredential(
  domain: string,
  path: string,
  options: CredentialOptions,
): Promise<CredentialLookup> {
  let problem: string | undefined;
  for await (const file of credentialFiles(options)) {
    const found = await lookUp(file, domain, path, options);
    if (found.credential) return found;
    problem ??= found.problem;
  }
  return { credential: undefined, problem };
}

async function* credentialFiles({
  env,
  home = env["HOME"] || env["USERPROFILE"],
  note,
}: CredentialOptions): AsyncGenerator<CredentialFile> {
  if (env["DOCKER_AUTH_CONFIG"]) {
    try {
      yield parseFile(env["DOCKER_AUTH_CONFIG"], "DOCKER_AUTH_CONFIG");
    } catch (error) {
      // As docker does: what the variable spoils, the files may still have.
      if (!isCacheportError(error, "DOCUMENT_INVALID")) throw error;
      note?.(`${error.message}; it is passed over`);
    }
  }
  const docker = env["DOCKER_CONFIG"] || (home && join(home, ".docker"));
  const runtime = env["XDG_RUNTIME_DIR"];
  const config = env["XDG_CONFIG_HOME"] || (home && join(home, ".config"));
  const paths = [
    env["REGISTRY_AUTH_FILE"],
    docker && join(docker, "config.json"),
    runtime && join(runtime, "containers", "auth.json"),
    config && join(config, "containers", "auth.json"),
  ];
  for (const path of paths) {
    const text = path ? await readText(path) : undefined;
    if (path && text !== undefined) yield parseFile(text, path);
  }
}

/** A file's text, or undefined where there is none that this user can read. */
async function readText(path: string): Promise<string | undefined> {
  try {
    const file = Bun.file(path);
    if (file.size > MAX_FILE) throw invalidFile(path);
    return await file.text();
  } catch (error) {
    if (systemCode(error) !== undefined && !(error instanceof CacheportError)) return undefined;
    throw error;
  }
}

function parseFile(text: string, what: string): CredentialFile {
  let value: unknown;
  try {
    value = text.trim() === "" ? {} : JSON.parse(text);
  } catch {
    // The parser's message may quote a secret.
    throw invalidFile(what);
  }
  const result = v.safeParse(CredentialFileSchema, value);
  if (!isJsonObject(value) || !result.success) throw invalidFile(what);
  return result.output;
}

function invalidFile(what: string): CacheportError {
  return new CacheportError(
    "DOCUMENT_INVALID",
    `Cannot read credentials "${what}": it is not JSON in the form of Docker's config.json`,
    { hint: "Log in again with the tool that wrote it, or remove it" },
  );
}

async function lookUp(
  file: CredentialFile,
  domain: string,
  path: string,
  options: CredentialOptions,
): Promise<CredentialLookup> {
  const keys = lookupKeys(domain, path);
  const helpers = byKey(file.credHelpers ?? {});
  const specific = keys.find((key) => helpers.has(key));
  const helper = specific ? helpers.get(specific) : file.credsStore;
  let problem: string | undefined;
  if (helper) {
    const server = isDockerHub(domain) ? DOCKER_HUB_KEY : domain;
    const found = await askHelper(helper, server, options);
    if (found.credential) return found;
    problem = found.problem;
  }
  const auths = byKey(file.auths ?? {});
  for (const key of keys) {
    const credential = fromEntry(auths.get(key));
    if (credential) return { credential };
  }
  return { credential: undefined, problem };
}

/** The keys that are good for a repository, the most specific first. */
function lookupKeys(domain: string, path: string): string[] {
  const hosts = isDockerHub(domain)
    ? ["docker.io", "index.docker.io", "registry-1.docker.io"]
    : [domain];
  const parts = path.split("/");
  return hosts.flatMap((host) =>
    [...parts.keys(), parts.length]
      .toReversed()
      .map((count) => [host, ...parts.slice(0, count)].join("/")),
  );
}

/**
 * A map whose keys have lost what tools put around a host: a scheme, `/v1/`. A key
 * with a scheme is an address of the registry, whatever its path is; a path without
 * one is a repository.
 */
function byKey<T>(entries: Record<string, T>): Map<string, T> {
  const found = new Map<string, T>();
  for (const [key, value] of Object.entries(entries)) {
    const host = /^https?:\/\/([^/?#]+)/i.exec(key)?.[1];
    if (host !== undefined) found.set(host, value);
  }
  for (const [key, value] of Object.entries(entries)) {
    const bare = key.replace(/^https?:\/\//i, "").replace(/\/+$/, "");
    found.set(bare.replace(/\/v[12]$/, ""), value);
  }
  // A key that is written exactly so counts more than one that was cleaned.
  for (const [key, value] of Object.entries(entries)) found.set(key, value);
  return found;
}

type Entry = NonNullable<CredentialFile["auths"]>[string];

function fromEntry(entry: Entry | undefined): Credential | undefined {
  if (!entry) return undefined;
  if (entry.registrytoken) return { registryToken: entry.registrytoken };
  let { username, password } = entry;
  if (entry.auth) {
    const text = Buffer.from(entry.auth, "base64").toString("utf8");
    const colon = text.indexOf(":");
    if (colon > 0) {
      username = text.slice(0, colon);
      // Docker strips the zero bytes that old versions padded with.
      password = text.slice(colon + 1).replace(/\0+$/, "");
    }
  }
  if (entry.identitytoken)
    return {
      username: username ?? undefined,
      identityToken: entry.identitytoken,
    };
  if (!username) return undefined;
  return { username, password: password ?? "" };
}

/** Runs `docker-credential-NAME get`, the server's name on its standard input. */
async function askHelper(
  name: string,
  server: string,
  options: CredentialOptions,
): Promise<CredentialLookup> {
  const program = `docker-credential-${name}`;
  const none = (problem?: string): CredentialLookup => ({
    credential: undefined,
    problem,
  });
  if (!/^[\w.-]+$/.test(name)) return none("the name of the credential helper is not a plain name");
  const env = { ...options.env };
  // These two would turn a helper that was compiled by Bun into something else.
  delete env["BUN_OPTIONS"];
  delete env["BUN_BE_BUN"];
  const path = Bun.which(program, { PATH: env["PATH"] ?? "" });
  if (path === null) return none(`${program} is not installed`);
  const timeout = AbortSignal.timeout(options.helperTimeout ?? HELPER_TIMEOUT);
  try {
    const child = Bun.spawn([path, "get"], {
      env,
      stdin: Buffer.from(`${server}\n`),
      stdout: "pipe",
      stderr: "ignore",
      signal: timeout,
      killSignal: "SIGKILL",
    });
    const { output, code } = await readHelper(child, timeout);
    if (code === undefined) return none(`${program} did not answer in time`);
    if (code !== 0) {
      return /credentials not found/i.test(output)
        ? none()
        : none(`${program} failed with exit code ${code}`);
    }
    const { Username, Secret } = v.parse(HelperSchema, JSON.parse(output));
    if (Secret === "") return none();
    return Username === "<token>"
      ? { credential: { identityToken: Secret } }
      : { credential: { username: Username, password: Secret } };
  } catch {
    // What it wrote may hold the secret, so the reason stays untold.
    return none(`${program} gave no valid answer`);
  }
}

/**
 * Reads what a helper writes until it has ended. A process that it left behind may
 * hold its output open, which nobody waits for: what has come shortly after the
 * helper's end counts.
 */
async function readHelper(
  child: Bun.Subprocess<Uint8Array, "pipe", "ignore">,
  timeout: AbortSignal,
): Promise<{ output: string; code: number | undefined }> {
  const reader = child.stdout.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  const read = async (): Promise<void> => {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || (size += value.length) > MAX_FILE) return;
      chunks.push(value);
    }
  };
  const whole = read().catch(() => {});
  const expired = new Promise<undefined>((resolve) => {
    if (timeout.aborted) resolve(undefined);
    timeout.addEventListener("abort", () => resolve(undefined), { once: true });
  });
  const code = await Promise.race([child.exited, expired]);
  await Promise.race([whole, Bun.sleep(AFTER_EXIT)]);
  await reader.cancel().catch(() => {});
  child.unref();
  const output = size > MAX_FILE ? "" : Buffer.concat(chunks).toString("utf8");
  return { output, code: timeout.aborted ? undefined : code };
}
