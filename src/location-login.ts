/** The logins that a command line gives, and the registries that they are for. */
import { statSync } from "node:fs";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";

/** A user's name and password at one registry. */
export interface Login {
  readonly username: string;
  readonly password: string;
  /** The registry, as references have it; no other one is shown the password. */
  readonly host: string | undefined;
}

/** How registries are reached: what the command line says for one of them, and for each side. */
export interface Access {
  /** For one registry, wherever it stands. */
  readonly login: Login | undefined;
  readonly source: Login | undefined;
  readonly target: Login | undefined;
  /** False where certificates are not to be checked. */
  readonly verifySource: boolean;
  readonly verifyTarget: boolean;
  /** The locations that are written to. */
  readonly targets: readonly Location[];
  /** True when standard input has given a password. */
  readonly usedInput: boolean;
}

type LoginArguments = Arguments<SharedFlag, SharedValue>;

/** Bytes; tokens have a few KiB. */
const MAX_PASSWORD = 65_536;

/**
 * Reads what the command line says of logins and certificates.
 *
 * @throws {CacheportError} USAGE, INTERRUPTED
 */
export async function readAccess(context: CommandContext, args: LoginArguments): Promise<Access> {
  const targets = args.targets;
  const sources = args.locations.filter((location) => !targets.includes(location));
  const login = await readLogin(context, args, registryHosts(args.locations));
  return {
    login,
    source: await readCredentials(context, args, "src-creds", registryHosts(sources)),
    target: await readCredentials(context, args, "dest-creds", registryHosts(targets)),
    verifySource: args.value("src-tls-verify") !== "false",
    verifyTarget: args.value("dest-tls-verify") !== "false",
    targets,
    usedInput: login !== undefined && !context.stdinIsTerminal,
  };
}

/** The login for a location, and whether its certificate is checked. */
export function accessTo(
  location: Extract<Location, { kind: "registry" }>,
  access: Access,
): { login: Login | undefined; verify: boolean } {
  const isTarget = access.targets.includes(location);
  const own = isTarget ? access.target : access.source;
  const { domain } = location.reference;
  return {
    login: [own, access.login].find((login) => login?.host === domain),
    verify: isTarget ? access.verifyTarget : access.verifySource,
  };
}

/**
 * The environment with the file of `--authfile` in the first place.
 *
 * @throws {CacheportError} USAGE when there is no such file
 */
export function withAuthFile(
  env: CommandContext["env"],
  path: string | undefined,
): CommandContext["env"] {
  if (path === undefined) return env;
  if (!statSync(path, { throwIfNoEntry: false })?.isFile())
    throw new CacheportError(
      "USAGE",
      `Cannot use --authfile ${JSON.stringify(path)}: there is no such file`,
    );
  return { ...env, DOCKER_AUTH_CONFIG: undefined, REGISTRY_AUTH_FILE: path };
}

/** The registries that locations are in, in their order. */
function registryHosts(locations: readonly Location[]): string[] {
  return locations.flatMap((location) =>
    location.kind === "registry" ? [location.reference.domain] : [],
  );
}

/** Reads `USER:PASSWORD` for one side; a password that is left out is asked for. */
async function readCredentials(
  context: CommandContext,
  args: LoginArguments,
  option: "src-creds" | "dest-creds",
  hosts: readonly string[],
): Promise<Login | undefined> {
  const text = args.value(option);
  if (text === undefined) return undefined;
  const distinct = [...new Set(hosts)];
  const host = distinct[0];
  if (host === undefined || distinct.length > 1)
    throw new CacheportError(
      "USAGE",
      `Cannot use --${option}: ${host === undefined ? "no location on that side is in a registry" : "there are several registries on that side"}`,
      host === undefined ? {} : { hint: "Use --login-host with --username and --password-stdin" },
    );
  const colon = text.indexOf(":");
  const username = colon < 0 ? text : text.slice(0, colon);
  if (username === "")
    throw new CacheportError("USAGE", `Cannot use --${option}: the user's name is empty`, {
      hint: `Write --${option} USER:PASSWORD`,
    });
  const password =
    colon < 0
      ? checkPassword(await context.askSecret(`Password of ${username} at ${host}: `))
      : text.slice(colon + 1);
  return { username, password, host };
}

/**
 * Reads `--username` with `--password-stdin`. A password is for one registry: where
 * several are named, `--login-host` says for which, else it is the last one, which
 * is the target's. On a terminal it is asked for.
 *
 * @param hosts The registries that the command line names, in its order.
 * @returns Undefined when no login is given.
 * @throws {CacheportError} USAGE
 */
async function readLogin(
  context: CommandContext,
  args: LoginArguments,
  hosts: readonly string[],
): Promise<Login | undefined> {
  const username = args.value("username");
  const chosen = args.value("login-host");
  const hasPassword = args.flag("password-stdin");
  const asks = username !== undefined && context.stdinIsTerminal;
  if (
    (!asks && hasPassword !== (username !== undefined)) ||
    (chosen !== undefined && !hasPassword && !asks)
  ) {
    throw new CacheportError(
      "USAGE",
      `Cannot log in: --username and --password-stdin go together${chosen === undefined ? "" : ", and --login-host with both"}`,
      {
        hint: "Write: echo $TOKEN | cacheport ... --username NAME --password-stdin",
      },
    );
  }
  if (username === undefined) return undefined;
  const distinct = [...new Set(hosts)];
  if (chosen !== undefined && !distinct.includes(chosen)) {
    throw new CacheportError(
      "USAGE",
      `Cannot log in at ${JSON.stringify(chosen)}: no location is in that registry`,
      distinct.length > 0 ? { hint: `The registries are: ${distinct.join(", ")}` } : {},
    );
  }
  const host = chosen ?? distinct.at(-1);
  if (chosen === undefined && distinct.length > 1)
    context.note(`The login is used at ${host} only; --login-host chooses another registry`);
  const password = asks
    ? checkPassword(
        await context.askSecret(`Password of ${username} at ${host ?? "the registry"}: `),
      )
    : await readPassword(context.stdin());
  return { username, password, host };
}

/** A password file or `echo` ends with a line end that is not part of the password. */
async function readPassword(stream: ReadableStream<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > MAX_PASSWORD) throw badPassword(`is longer than ${MAX_PASSWORD} bytes`);
    chunks.push(chunk);
  }
  return checkPassword(
    Buffer.concat(chunks)
      .toString("utf8")
      .replace(/\r?\n$/, ""),
  );
}

function checkPassword(text: string): string {
  if (text === "") throw badPassword("is empty");
  return text;
}

function badPassword(fault: string): CacheportError {
  return new CacheportError("USAGE", `Cannot log in: the password on standard input ${fault}`, {
    hint: "Check the variable or the command that it comes from",
  });
}
