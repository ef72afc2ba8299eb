/** The login that a command line gives, and the one registry that it is for. */
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { CacheportError } from "./errors.ts";

/** A user's name and password at one registry. */
export interface Login {
  readonly username: string;
  readonly password: string;
  /** The registry, as references have it; no other one is shown the password. */
  readonly host: string | undefined;
}

/** Bytes; tokens have a few KiB. */
const MAX_PASSWORD = 65_536;

/**
 * Reads `--username` with `--password-stdin`. A password is for one registry: where
 * several are named, `--login-host` says for which, else it is the last one, which
 * is the target's.
 *
 * @param hosts The registries that the command line names, in its order.
 * @returns Undefined when no login is given.
 * @throws {CacheportError} USAGE
 */
export async function readLogin(
  context: CommandContext,
  args: Arguments<SharedFlag, SharedValue>,
  hosts: readonly string[],
): Promise<Login | undefined> {
  const username = args.value("username");
  const chosen = args.value("login-host");
  const hasPassword = args.flag("password-stdin");
  if (hasPassword !== (username !== undefined) || (chosen !== undefined && !hasPassword)) {
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
  return { username, password: await readPassword(context.stdin()), host };
}

/** A password file or `echo` ends with a line end that is not part of the password. */
async function readPassword(stream: ReadableStream<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > MAX_PASSWORD) break;
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks)
    .toString("utf8")
    .replace(/\r?\n$/, "");
  const fault =
    size > MAX_PASSWORD
      ? `is longer than ${MAX_PASSWORD} bytes`
      : text === ""
        ? "is empty"
        : undefined;
  if (fault === undefined) return text;
  throw new CacheportError("USAGE", `Cannot log in: the password on standard input ${fault}`, {
    hint: "Check the variable or the command that it comes from",
  });
}
