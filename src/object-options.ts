/**
 * The attributes of object stores with their defaults and their environment, as
 * BuildKit reads them; the errors are in its words.
 *
 * Source: BuildKit cache/remotecache/s3/s3.go (getConfig), azblob/utils.go (getConfig),
 * gha/gha.go (getConfig).
 */
import { CacheportError } from "./errors.ts";
import type { AwsKeys } from "./object-sigv4.ts";
import { placeText } from "./object-place.ts";
import type { ObjectPlace } from "./object-place.ts";
import { DAY } from "./units.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Where an S3 cache is and how it is reached. */
export interface S3Options {
  readonly location: string;
  readonly bucket: string;
  readonly region: string;
  readonly blobs: string;
  readonly manifests: string;
  /** Milliseconds. */
  readonly touchRefresh: number;
  /** Undefined for Amazon's own. */
  readonly endpoint: URL | undefined;
  readonly pathStyle: boolean;
  readonly keys: AwsKeys | undefined;
  readonly maxTries: number | undefined;
  /** Blobs that are written at once, where that is to be fewer than the command's own. */
  readonly uploads: number | undefined;
}

/** @throws {CacheportError} USAGE */
export function readS3Options(place: ObjectPlace, env: Env): S3Options {
  const get = (key: string): string => place.attributes.get(key) ?? "";
  const bucket = get("bucket") || env["AWS_BUCKET"] || "";
  if (bucket === "")
    throw wrong(place, "bucket ($AWS_BUCKET) not set for s3 cache", "Add bucket=NAME");
  const region = get("region") || env["AWS_REGION"] || "";
  if (region === "")
    throw wrong(
      place,
      "region ($AWS_REGION) not set for s3 cache",
      "Add region=us-east-1 or the one of the bucket; AWS_DEFAULT_REGION is not looked at, as in BuildKit",
    );
  if (/[/?#\s]/.test(bucket) || !/^[\w.-]+$/.test(region))
    throw wrong(place, "the bucket or the region has characters that no name has");
  const given = get("endpoint_url");
  const prefix = get("prefix");
  const options = {
    location: placeText(place),
    bucket,
    region,
    blobs: prefix + (place.attributes.get("blobs_prefix") ?? "blobs/"),
    manifests: prefix + (place.attributes.get("manifests_prefix") ?? "manifests/"),
    touchRefresh: parseGoDuration(get("touch_refresh")) ?? DAY,
    endpoint: readUrl(
      place,
      "endpoint_url",
      given || env["AWS_ENDPOINT_URL_S3"] || env["AWS_ENDPOINT_URL"] || "",
    ),
    // Of an endpoint that the environment gives, BuildKit's client asks for virtual hosts.
    pathStyle: given !== "" && isGoTrue(get("use_path_style")),
    keys: staticKeys(place),
    maxTries: positive(place, "retry_max_attempts"),
    uploads: positive(place, "upload_parallelism"),
  };
  const mode = get("retry_mode");
  if (mode !== "" && mode !== "standard" && mode !== "adaptive")
    throw wrong(place, 'retry_mode must be "standard" or "adaptive"');
  refuseDots(place, [options.blobs, options.manifests]);
  return options;
}

/** Where an Azure cache is and how it is reached. */
export interface AzureOptions {
  readonly location: string;
  /** The account's address with its query, which may hold a shared access signature. */
  readonly account: URL;
  readonly accountName: string;
  readonly container: string;
  readonly blobs: string;
  readonly manifests: string;
  /** Base64. */
  readonly key: string | undefined;
}

/** @throws {CacheportError} USAGE */
export function readAzureOptions(place: ObjectPlace, env: Env): AzureOptions {
  const get = (key: string, variable: string): string =>
    place.attributes.get(key) || env[variable] || "";
  const text = get("account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL");
  if (text === "")
    throw wrong(
      place,
      "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache",
      "Add account_url=https://ACCOUNT.blob.core.windows.net",
    );
  const account = readUrl(place, "account_url", text) as URL;
  const accountName =
    get("account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME") ||
    (account.hostname.split(".")[0] as string);
  if (accountName === "")
    throw wrong(
      place,
      "unable to retrieve account name from account url or ${BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME} or account_name attribute for azblob cache",
    );
  const prefix = place.attributes.get("prefix") ?? env["BUILDKIT_AZURE_STORAGE_PREFIX"] ?? "";
  const key = place.attributes.get("secret_access_key") || undefined;
  if (key !== undefined && !/^[A-Za-z0-9+/]+={0,2}$/.test(key))
    throw wrong(place, "secret_access_key is no account key: that is base64");
  const options = {
    location: placeText(place),
    account,
    accountName,
    container: get("container", "BUILDKIT_AZURE_STORAGE_CONTAINER") || "buildkit-cache",
    blobs: joinKey(prefix, place.attributes.get("blobs_prefix") ?? "blobs"),
    manifests: joinKey(prefix, place.attributes.get("manifests_prefix") ?? "manifests"),
    key,
  };
  if (/[/?#%\s]/.test(options.container))
    throw wrong(place, "the container has characters that no name has");
  return options;
}

/** Where GitHub's cache service is and how it is reached. */
export interface GithubOptions {
  readonly location: string;
  readonly url: URL;
  readonly version: 1 | 2;
  readonly token: string;
  /** Milliseconds that a request may be put off by 429. */
  readonly timeout: number;
  readonly repository: string | undefined;
  readonly ghtoken: string | undefined;
}

const OUTSIDE =
  "GitHub gives it to the steps of a workflow only: run cacheport in a job after crazy-max/ghaction-github-runtime, which hands ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL to run: steps";

/** @throws {CacheportError} USAGE */
export function readGithubOptions(place: ObjectPlace, env: Env): GithubOptions {
  const get = (key: string): string => place.attributes.get(key) ?? "";
  const token = get("token") || env["ACTIONS_RUNTIME_TOKEN"] || "";
  if (token === "") throw wrong(place, "token not set for github actions cache", OUTSIDE);
  const asked = get("version") || (isGoTrue(env["ACTIONS_CACHE_SERVICE_V2"] ?? "") ? "2" : "");
  if (asked !== "" && asked !== "1" && asked !== "2")
    throw wrong(place, `invalid version ${JSON.stringify(asked)}`, "The versions are 1 and 2");
  const results = env["ACTIONS_RESULTS_URL"] ?? "";
  const second = get("url_v2") || (asked === "2" && get("url") === "" ? results : "");
  const first = get("url") || env["ACTIONS_CACHE_URL"] || results;
  const isSecond = asked !== "1" && second !== "";
  const text = isSecond ? second : first;
  if (text === "") throw wrong(place, "url not set for github actions cache", OUTSIDE);
  const url = readUrl(place, "url", text.endsWith("/") ? text : `${text}/`) as URL;
  const isNew = url.hostname.includes("results-receiver.actions.githubusercontent.com");
  return {
    location: placeText(place),
    url,
    version: isSecond || asked === "2" || (asked === "" && isNew) ? 2 : 1,
    token,
    timeout: parseGoDuration(get("timeout")) ?? 600_000,
    repository: get("repository") || undefined,
    ghtoken: get("ghtoken") || undefined,
  };
}

function staticKeys({ attributes }: ObjectPlace): AwsKeys | undefined {
  const accessKeyId = attributes.get("access_key_id") ?? "";
  const secretAccessKey = attributes.get("secret_access_key") ?? "";
  const sessionToken = attributes.get("session_token") || undefined;
  return accessKeyId !== "" && secretAccessKey !== ""
    ? { accessKeyId, secretAccessKey, sessionToken }
    : undefined;
}

function readUrl(place: ObjectPlace, key: string, text: string): URL | undefined {
  if (text === "") return undefined;
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol) && url.hostname !== "") return url;
  throw wrong(
    place,
    `no Host in request URL: ${key} is no address`,
    "An address starts with https:// (or http://) and a host",
  );
}

/** Joins the parts of a key as Go's filepath.Join does: one slash between them, dots resolved. */
function joinKey(...parts: string[]): string {
  const whole: string[] = [];
  for (const part of parts.join("/").split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") whole.push(part);
    else whole.pop();
  }
  return whole.map((part) => `${part}/`).join("");
}

/** An address cannot hold a key with such parts: they would be resolved away. */
function refuseDots(place: ObjectPlace, prefixes: readonly string[]): void {
  if (!prefixes.some((prefix) => /(?:^|\/)\.{1,2}(?:\/|$)/.test(prefix))) return;
  throw wrong(place, 'a prefix has the part "." or ".."', "Give the prefix without it");
}

function positive(place: ObjectPlace, key: string): number | undefined {
  const text = place.attributes.get(key) ?? "";
  if (text === "") return undefined;
  if (/^\+?\d{1,9}$/.test(text) && Number(text) > 0) return Number(text);
  throw wrong(place, `${key} must be a positive integer`);
}

function isGoTrue(text: string): boolean {
  return ["1", "t", "T", "TRUE", "true", "True"].includes(text);
}

const UNITS: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  "\u00b5s": 1e-3,
  "\u03bcs": 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/**
 * Reads a duration as Go's time.ParseDuration does, in milliseconds; undefined for what
 * it refuses.
 *
 * @example
 * parseGoDuration("1h30m"); // 5400000
 */
export function parseGoDuration(text: string): number | undefined {
  if (/^[+-]?0$/.test(text)) return 0;
  const [, sign, rest] =
    /^([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)$/.exec(text) ?? [];
  if (rest === undefined) return undefined;
  let sum = 0;
  for (const [, number, unit] of rest.matchAll(/([\d.]+)(\D+)/g))
    sum += Number(number) * (UNITS[unit as string] as number);
  return sign === "-" ? -sum : sum;
}

function wrong(place: ObjectPlace, reason: string, hint?: string): CacheportError {
  return new CacheportError("USAGE", `Cannot use location "${placeText(place)}": ${reason}`, {
    hint,
  });
}
