/**
 * Profiles in ~/.aws/credentials and ~/.aws/config: keys, a program that prints some, a
 * role to take on.
 *
 * Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files",
 * "Process credential provider", "Assume role credential provider".
 */
import { homedir, platform } from "node:os";
import { CacheportError, systemCode, systemError } from "./errors.ts";
import {
  assumeRoleKeys,
  containerKeys,
  instanceKeys,
  parseKeys,
  webIdentityKeys,
} from "./object-credentials-remote.ts";
import type { ObjectSettings } from "./object-service.ts";
import type { TimedKeys } from "./object-sigv4.ts";
import { join } from "./paths.ts";

type Section = ReadonlyMap<string, string>;

/** Roles that are taken on one after another. */
const MAX_DEPTH = 5;
/** Milliseconds that a program may take to print credentials. */
const PROCESS_TIMEOUT = 60_000;

/**
 * The credentials of the profile that $AWS_PROFILE names, or of the default one.
 *
 * @returns Undefined when the profile says nothing of credentials.
 * @throws {CacheportError} STORE_DENIED for a named profile that is not there
 */
export async function profileKeys(
  region: string,
  settings: ObjectSettings,
): Promise<TimedKeys | undefined> {
  const name = settings.env["AWS_PROFILE"] || settings.env["AWS_DEFAULT_PROFILE"];
  const profiles = await readProfiles(settings.env);
  if (name !== undefined && !profiles.has(name))
    throw refused(name, "no file has it", "Check AWS_PROFILE and ~/.aws/config");
  return await keysOf(name ?? "default", { profiles, region, settings, depth: 0 });
}

interface Context {
  readonly profiles: ReadonlyMap<string, Section>;
  readonly region: string;
  readonly settings: ObjectSettings;
  readonly depth: number;
}

async function keysOf(name: string, context: Context): Promise<TimedKeys | undefined> {
  const { profiles, settings, depth } = context;
  const profile = profiles.get(name);
  if (!profile) return undefined;
  if (depth > MAX_DEPTH) throw refused(name, "its roles lead to each other without an end");
  const region = profile.get("region") ?? context.region;
  const role = profile.get("role_arn");
  const source = profile.get("source_profile");
  const tokenFile = profile.get("web_identity_token_file");
  const session = profile.get("role_session_name");
  if (role && tokenFile)
    return await webIdentityKeys({ tokenFile, role, session }, region, settings);
  if (role && (source || profile.has("credential_source"))) {
    const keys =
      source === name
        ? staticKeys(profile)
        : source
          ? await keysOf(source, { ...context, depth: depth + 1 })
          : await sourceKeys(name, profile.get("credential_source") ?? "", settings);
    if (!keys) throw refused(name, "what it takes its first credentials from has none");
    const externalId = profile.get("external_id");
    return await assumeRoleKeys({ role, session, externalId, keys }, region, settings);
  }
  const keys = staticKeys(profile);
  if (keys) return keys;
  const command = profile.get("credential_process");
  if (command) return await processKeys(name, command, settings);
  if (profile.has("sso_session") || profile.has("sso_start_url"))
    throw refused(
      name,
      "it logs in by SSO, which cacheport does not",
      "The AWS CLI hands its credentials out with aws configure export-credentials, also as the credential_process of another profile",
    );
  return undefined;
}

function staticKeys(profile: Section): TimedKeys | undefined {
  const accessKeyId = profile.get("aws_access_key_id");
  const secretAccessKey = profile.get("aws_secret_access_key");
  const sessionToken = profile.get("aws_session_token");
  return accessKeyId && secretAccessKey
    ? { accessKeyId, secretAccessKey, sessionToken }
    : undefined;
}

async function sourceKeys(
  name: string,
  source: string,
  settings: ObjectSettings,
): Promise<TimedKeys | undefined> {
  const { env } = settings;
  switch (source) {
    case "Environment": {
      const accessKeyId = env["AWS_ACCESS_KEY_ID"];
      const secretAccessKey = env["AWS_SECRET_ACCESS_KEY"];
      const sessionToken = env["AWS_SESSION_TOKEN"];
      return accessKeyId && secretAccessKey
        ? { accessKeyId, secretAccessKey, sessionToken }
        : undefined;
    }
    case "EcsContainer":
      return await containerKeys(settings);
    case "Ec2InstanceMetadata":
      return await instanceKeys(settings);
    default:
      throw refused(name, `its credential_source ${JSON.stringify(source)} is not known`);
  }
}

/** Runs the program of `credential_process`; what it writes on standard error is not shown. */
async function processKeys(
  name: string,
  command: string,
  { env, signal }: ObjectSettings,
): Promise<TimedKeys> {
  const shell = platform() === "win32" ? ["cmd.exe", "/C"] : ["/bin/sh", "-c"];
  const child = Bun.spawn([...shell, command], {
    env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    timeout: PROCESS_TIMEOUT,
    ...(signal && { signal }),
  });
  const [text, code] = await Promise.all([new Response(child.stdout).text(), child.exited]);
  const keys = code === 0 ? parseKeys(text) : undefined;
  if (keys) return keys;
  throw refused(
    name,
    code === 0
      ? "its credential_process printed no credentials"
      : `its credential_process ended with ${code}`,
    "Run it by hand to see why; what it says is not shown, since it may be a secret",
  );
}

/** Both files as one; what stands in the credentials file counts. */
async function readProfiles(env: ObjectSettings["env"]): Promise<Map<string, Section>> {
  const folder = join(env["HOME"] || env["USERPROFILE"] || homedir(), ".aws");
  const config = env["AWS_CONFIG_FILE"] || join(folder, "config");
  const credentials = env["AWS_SHARED_CREDENTIALS_FILE"] || join(folder, "credentials");
  const profiles = new Map<string, Section>();
  for (const [title, section] of parseIni(await readFile(config))) {
    const name = title === "default" ? title : /^profile\s+"?(.+?)"?$/.exec(title)?.[1];
    if (name !== undefined) profiles.set(name, section);
  }
  for (const [name, section] of parseIni(await readFile(credentials)))
    profiles.set(name, new Map([...(profiles.get(name) ?? []), ...section]));
  return profiles;
}

async function readFile(path: string): Promise<string> {
  try {
    return await Bun.file(path).text();
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return "";
    throw systemError(`Cannot read profiles "${path}"`, error);
  }
}

/**
 * Reads sections of `key = value`. Keys count without regard to case; a line that is
 * indented belongs to the value before it and is passed over.
 *
 * @example
 * parseIni("[default]\nregion = eu-west-1").get("default")?.get("region"); // "eu-west-1"
 */
export function parseIni(text: string): Map<string, Map<string, string>> {
  const sections = new Map<string, Map<string, string>>();
  let section: Map<string, string> | undefined;
  for (const line of text.split(/\r?\n/)) {
    const title = /^\s*\[([^\]]+)\]/.exec(line)?.[1]?.trim();
    if (title !== undefined) {
      section = sections.get(title) ?? new Map<string, string>();
      sections.set(title, section);
      continue;
    }
    const [, key, value] = /^([^\s#;=][^=]*?)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (key !== undefined && value !== undefined)
      section?.set(key.toLowerCase(), value.replace(/\s+[#;].*$/, ""));
  }
  return sections;
}

function refused(profile: string, reason: string, hint?: string): CacheportError {
  return new CacheportError("STORE_DENIED", `Cannot use the AWS profile "${profile}": ${reason}`, {
    hint,
  });
}
