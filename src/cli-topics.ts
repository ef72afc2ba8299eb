/** What `cacheport help TOPIC` and the man page explain beside the commands. */
import { LEADING_OPTIONS } from "./cli-options.ts";
import type { OptionSpec } from "./cli-options.ts";
import { EXIT_CODES } from "./errors.ts";
import type { ErrorCode } from "./errors.ts";
import { PROBLEMS } from "./verify-problem.ts";

/** A paragraph, or terms with what they mean. */
export type TopicPart = string | readonly (readonly [term: string, text: string])[];

/** A topic of the help. */
export interface Topic {
  readonly name: string;
  readonly summary: string;
  readonly parts: readonly TopicPart[];
}

/** The variables that the program reads. */
export const ENVIRONMENT: readonly (readonly [string, string])[] = [
  ["NO_COLOR", "Set to anything: no colours"],
  ["FORCE_COLOR", "Set to anything but 0: colours without a terminal too"],
  ["CACHEPORT_DEBUG", "Set to 1: show where in the program an error arose"],
  ["DOCKER_AUTH_CONFIG", "Logins as the text of a config.json; read before any file"],
  ["REGISTRY_AUTH_FILE", "A file with logins; --authfile goes before it"],
  ["DOCKER_CONFIG", "The folder of docker's config.json (default ~/.docker)"],
  ["XDG_RUNTIME_DIR", "containers/auth.json in it has the logins of podman and skopeo"],
  ["XDG_CONFIG_HOME", "Another place for containers/auth.json (default ~/.config)"],
  ["SSL_CERT_FILE", "Certificate authorities that are trusted too, as with --ca-file"],
  ["HTTPS_PROXY, HTTP_PROXY", "The proxy for registries; not asked for hosts on loopback"],
  ["NO_PROXY", "Hosts that are reached without the proxy, separated by commas"],
  ["TMPDIR", "Where archives are unpacked that have no folder near them"],
  ["AWS_*", "Bucket, region, address and credentials of type=s3, as for Amazon's own clients"],
  ["BUILDKIT_AZURE_STORAGE_*", "Address and names of type=azblob, as BuildKit reads them"],
  ["AZURE_*, IDENTITY_*", "Credentials of type=azblob, as for Microsoft's own clients"],
  ["ACTIONS_*, GITHUB_API_URL", "Addresses and tokens of type=gha, from a workflow's step"],
];

const LOCATIONS: Topic = {
  name: "locations",
  summary: "How folders, archives, registries and object stores are written",
  parts: [
    "Every command takes its caches and images as locations. What exists wins: the longest start of the text that is a folder or a file is the path, and the rest is the name.",
    [
      [
        "PATH[:NAME][@DIGEST]",
        "A layout folder; also with oci:, oci-layout:// or ocidir:// before it",
      ],
      [
        "FILE.tar[:NAME][@DIGEST]",
        "A layout in a tar, .tar.gz or .tar.zst file, or what docker save wrote; also with oci-archive: or docker-archive: before it",
      ],
      ["-[:NAME]", "A tar on standard input or standard output"],
      ["HOST/REPO[:TAG][@DIGEST]", "A repository; also with docker:// before it"],
      [
        "type=local,src=PATH,tag=NAME",
        "A folder as --cache-from has it; dest= for one that is written",
      ],
      ["type=registry,ref=HOST/REPO:TAG", "A repository as --cache-to has it"],
      ["type=oci,dest=FILE", "An archive as --output has it; tar=false for a folder"],
      ["type=docker,dest=FILE", "An archive that docker load reads"],
      ["type=s3|azblob|gha,...", "An object store with BuildKit's own attributes, see below"],
      ["s3://BUCKET/PREFIX?name=NAME", "type=s3; nothing is added to PREFIX, not even a slash"],
    ],
    "NAME is a tag (main) or a full image name (registry.example/team/app:1.0). Without one it is latest, else the only name that there is. @DIGEST names any manifest or blob by its content, in a folder or an archive by the first seven or more of its digits too.",
    "A new target takes what follows its first colon as its name: new.tar:busybox:latest is the file new.tar. A new target that looks like a registry (localhost:5000), ends like a file of another kind (x.zip, notes.txt) or is a folder with other things in it is refused: ./PATH and oci:PATH always mean a folder, docker://HOST/REPO always a registry.",
    "Object stores have BuildKit's attributes, defaults and environment. A cache is called name= (scope= in gha), which is buildkit when it is left out; ls, gc and verify take all names then. Several names stand between semicolons: all are written, and read as one cache, of type=s3 the first alone.",
    [
      ["type=s3", "bucket= ($AWS_BUCKET), region= ($AWS_REGION), name="],
      ["", "prefix=, blobs_prefix= (blobs/), manifests_prefix= (manifests/), joined as they are"],
      ["", "endpoint_url= ($AWS_ENDPOINT_URL_S3), use_path_style= with it, touch_refresh= (24h)"],
      ["", "access_key_id=, secret_access_key=, session_token=; else as Amazon's own clients"],
      ["", "upload_parallelism=, retry_mode=, retry_max_attempts="],
      ["type=azblob", "account_url= ($BUILDKIT_AZURE_STORAGE_ACCOUNT_URL), account_name=, name="],
      ["", "container= (buildkit-cache), prefix=, blobs_prefix=, manifests_prefix="],
      ["", "secret_access_key=, a signature in account_url=, or as Microsoft's own clients"],
      ["type=gha", "token=, url=, url_v2=, version=, from the environment of a workflow's step"],
      ["", "scope=, timeout= (10m); repository= and ghtoken= to list and to remove"],
    ],
    [
      ["cacheport ls ./cache", "The names in a cache folder"],
      ["cacheport convert ./cache:main", "One name of it"],
      ["cacheport copy image.tar registry.example/team/app:1.0", "From a file to a registry"],
      ["cacheport cat ./cache@sha256:90bc0537", "A blob by the start of its digest"],
    ],
  ],
};

const LOGIN: Topic = {
  name: "login",
  summary: "Where user names, passwords and certificates come from",
  parts: [
    "cacheport has no login of its own: docker login, podman login, crane auth login and oras login write where it looks. In this order:",
    [
      [
        "--src-creds, --dest-creds",
        "USER:PASSWORD for the source and for the target; without :PASSWORD it is asked for",
      ],
      [
        "--username, --password-stdin",
        "For the last registry that is named, or that of --login-host; asked for on a terminal",
      ],
      ["--authfile FILE", "A config.json or auth.json"],
      ["DOCKER_AUTH_CONFIG", "The text of such a file, as GitLab's runners have it"],
      ["REGISTRY_AUTH_FILE", "The path of such a file"],
      ["~/.docker/config.json", "Or $DOCKER_CONFIG/config.json; credential helpers are asked"],
      ["containers/auth.json", "In $XDG_RUNTIME_DIR, then in ~/.config"],
    ],
    "A login is sent to its own registry only, and by plain HTTP to this machine only, unless --plain-http says that the network is trusted.",
    [
      ["--ca-file FILE", "Trust these certificate authorities too"],
      [
        "--insecure",
        "Take any certificate, and plain HTTP where there is no HTTPS; --src-tls-verify=false and --dest-tls-verify=false for one side",
      ],
      ["--plain-http", "Speak HTTP without TLS"],
    ],
    [
      ['echo "$TOKEN" | cacheport ls ghcr.io/me/app --username me --password-stdin', "In a job"],
      [
        "cacheport copy --src-creds me --dest-creds you:$TOKEN a.example/app:1 b.example/app:1",
        "Two registries, two logins",
      ],
    ],
  ],
};

const ENVIRONMENT_TOPIC: Topic = {
  name: "environment",
  summary: "The variables that are read",
  parts: [ENVIRONMENT],
};

const OPTIONS: Topic = {
  name: "options",
  summary: "The options that commands share",
  parts: [
    "Every command takes these; those on registries only where it takes a location.",
    LEADING_OPTIONS.map((option) => [optionUsage(option).trim(), optionText(option)] as const),
  ],
};

/** What each code of an error means. Source: {@link EXIT_CODES} in errors.ts. */
const ERROR_MEANINGS: Readonly<Record<ErrorCode, string>> = {
  USAGE: "The command line is wrong",
  REFERENCE_INVALID: "A reference or a location does not follow its grammar",
  NOT_SUPPORTED: "What was asked for is not something cacheport does",
  LOCATION_NOT_FOUND: "No layout, archive or repository is where the location says",
  NAME_NOT_FOUND: "No name in the store matches",
  NAME_AMBIGUOUS: "Several names with different digests match",
  PLATFORM_NOT_FOUND: "No manifest for the platform that was asked for",
  BLOB_NOT_FOUND: "A blob that is asked for by its digest is not in the store",
  BLOB_MISSING: "A blob that a document names is not in the store",
  BLOB_UNREADABLE: "A store says that it has a blob and cannot give it",
  DIGEST_INVALID: "A digest has the wrong form, or an algorithm that is not supported",
  DIGEST_MISMATCH: "The bytes do not have the digest that they are known by",
  SIZE_MISMATCH: "The bytes are more or fewer than the descriptor says",
  DOCUMENT_INVALID: "A document is no JSON or does not have the fields of its kind",
  DOCUMENT_UNKNOWN: "A document of a type that is not known, so that nobody knows what it lists",
  DOCUMENT_TOO_LARGE: "A document is over its size limit",
  INDEX_TOO_DEEP: "Indexes are nested too deeply, or in a cycle",
  CACHE_INVALID: "A cache config breaks a rule by which BuildKit would refuse it",
  NOT_A_CACHE: "What was named is no build cache",
  LAYOUT_INVALID: "The layout marks itself with a version that is not 1.0.0, or is no layout",
  ARCHIVE_INVALID: "A tar archive is truncated, damaged or has members that are refused",
  COMPRESSION_INVALID: "A compressed stream is damaged, truncated or has an unknown format",
  VERIFY_FAILED: "`verify` found errors",
  GC_REFUSED: "`gc` met something below which it must not delete",
  REGISTRY_DENIED: "A registry refused: 401, 403, denied",
  REGISTRY_UNSUPPORTED: "A registry does not do at all what was asked of it: 405",
  REGISTRY_REJECTED: "A registry does not take a document in this form",
  REGISTRY_FAILED: "A registry could not be reached, or failed after all retries",
  STORE_DENIED: "An object store refused: 401, 403, wrong or expired credentials",
  STORE_FAILED: "An object store could not be reached, or failed after all retries",
  NAME_CHANGED: "A name moved between reading it and writing it",
  LOCK_TIMEOUT: "Another process held the lock for too long",
  NO_SPACE: "The disk is full or a quota is reached",
  PERMISSION_DENIED: "The operating system does not permit it",
  IO_FAILED: "Any other failure of a file, a pipe or a process",
  INTERNAL: "A fault in cacheport itself",
  INTERRUPTED: "The user or a signal ended it",
};

const ERRORS: Topic = {
  name: "errors",
  summary: "The codes of errors and of the problems that verify finds",
  parts: [
    'With --json a failure is {"error":{"code","message","hint"}}. Codes are only added; the exit code stands before each one. cacheport schema prints the form of every value.',
    Object.entries(ERROR_MEANINGS).map(
      ([code, meaning]) => [`${EXIT_CODES[code as ErrorCode]} ${code}`, meaning] as const,
    ),
    "verify and inspect list problems with these codes:",
    Object.entries(PROBLEMS).map(
      ([code, [severity, meaning]]) => [code, `${severity}: ${meaning}`] as const,
    ),
  ],
};

/** `-q, --quiet`, `    --jobs N`. */
export function optionUsage({ name, short, value }: OptionSpec): string {
  const head = short ? `-${short}, ` : "    ";
  return `${head}--${name}${value ? ` ${value}` : ""}`;
}

/** What an option does, with the values that can be chosen. */
export function optionText({ description, choices, repeat }: OptionSpec): string {
  return `${withChoices(description, choices)}${repeat ? "; may be given several times" : ""}`;
}

/** A description with the values that can be chosen. */
export function withChoices(description: string, choices: readonly string[] | undefined): string {
  return choices ? `${description}: ${choices.join(", ")}` : description;
}

/** All topics, in the order in which they are listed. */
export const TOPICS: readonly Topic[] = [LOCATIONS, LOGIN, ENVIRONMENT_TOPIC, OPTIONS, ERRORS];
