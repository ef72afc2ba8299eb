/** What fingers type that know other tools: their commands and options, and what is meant here. */

/** Commands of other tools. */
const COMMANDS: Readonly<Record<string, string>> = {
  list: "Write: cacheport ls LOCATION",
  images: "Write: cacheport ls LOCATION",
  tags: "Write: cacheport ls HOST/REPOSITORY",
  "list-tags": "Write: cacheport ls HOST/REPOSITORY",
  catalog:
    "Write: cacheport ls HOST/REPOSITORY; a registry's list of repositories is not asked for",
  cp: "Write: cacheport copy SOURCE TARGET",
  sync: "Write: cacheport copy --all SOURCE TARGET",
  push: "Write: cacheport copy SOURCE HOST/REPOSITORY:TAG",
  pull: "Write: cacheport copy HOST/REPOSITORY:TAG TARGET",
  save: "Write: cacheport copy SOURCE type=docker,dest=FILE.tar",
  load: "Write: cacheport copy FILE.tar TARGET",
  import: "Write: cacheport copy SOURCE TARGET",
  export: "Write: cacheport copy SOURCE TARGET",
  rm: "Write: cacheport untag LOCATION:NAME, then cacheport gc LAYOUT",
  rmi: "Write: cacheport untag LOCATION:NAME, then cacheport gc LAYOUT",
  remove: "Write: cacheport untag LOCATION:NAME, then cacheport gc LAYOUT",
  delete: "Write: cacheport untag LOCATION:NAME, then cacheport gc LAYOUT",
  clean: "Write: cacheport gc LAYOUT, or cacheport prune CACHE --max-size SIZE",
  login: "Log in with docker login; cacheport help login shows every place that is read",
  logout: "Log out with docker logout; cacheport help login shows every place that is read",
  auth: "Log in with docker login; cacheport help login shows every place that is read",
  digest: "Write: cacheport resolve LOCATION",
  manifest: "Write: cacheport cat LOCATION",
  blob: "Write: cacheport cat LOCATION@DIGEST",
  config: "Write: cacheport inspect LOCATION",
  show: "Write: cacheport inspect LOCATION",
  history: "Write: cacheport inspect LOCATION",
  validate: "Write: cacheport verify LOCATION",
  check: "Write: cacheport verify LOCATION",
  rename: "Write: cacheport tag LOCATION:OLD NEW, then cacheport untag LOCATION:OLD",
  mv: "Write: cacheport tag LOCATION:OLD NEW, then cacheport untag LOCATION:OLD",
};

/** Options of other tools; `command option` goes before the option alone. */
const OPTIONS: Readonly<Record<string, string>> = {
  // docker buildx prune, docker builder prune
  "prune --filter": "Write --max-age 7d for until=168h",
  "prune --keep-storage": "Write --max-size SIZE",
  "prune --keep-bytes": "Write --max-size SIZE",
  "prune --keep-duration": "Write --max-age DURATION",
  "prune --reserved-space": "Write --max-size SIZE, or --keep-newest N for what is to stay",
  "prune --max-used-space": "Write --max-size SIZE",
  "prune --max-storage": "Write --max-size SIZE",
  "prune --min-free-space": "Write --max-size SIZE: what the cache may weigh",
  "prune --until": "Write --max-age DURATION",
  "prune --force": "Nothing is asked here; --dry-run shows what would go",
  "prune -f": "Nothing is asked here; --dry-run shows what would go",
  "--force": "Nothing is asked here; --dry-run shows what would be done",
  "-f": "Nothing is asked here; --dry-run shows what would be done",
  "--yes": "Nothing is asked here; --dry-run shows what would be done",
  "-y": "Nothing is asked here; --dry-run shows what would be done",
  // skopeo
  "--creds": "Write --src-creds USER:PASSWORD, or --dest-creds for the target",
  "--tls-verify": "Write --src-tls-verify=false, --dest-tls-verify=false or --insecure",
  "--dest-compress": "Write --compression gzip or --compression zstd",
  "--dest-compress-format": "Write --compression gzip or --compression zstd",
  "--multi-arch": "Write --platform OS/ARCH for one; an index is copied whole without it",
  "--override-os": "Write --platform OS/ARCH",
  "--override-arch": "Write --platform OS/ARCH",
  "--raw": "Write: cacheport cat LOCATION",
  "--src-no-creds": "Logins are sent only where the registry wants one",
  "--dest-no-creds": "Logins are sent only where the registry wants one",
  "--cert-dir": "Write --ca-file FILE",
  "--src-cert-dir": "Write --ca-file FILE",
  "--dest-cert-dir": "Write --ca-file FILE",
  // oras
  "--from-username": "Write --src-creds USER:PASSWORD",
  "--from-password": "Write --src-creds USER:PASSWORD",
  "--to-username": "Write --dest-creds USER:PASSWORD",
  "--to-password": "Write --dest-creds USER:PASSWORD",
  "--from-insecure": "Write --src-tls-verify=false",
  "--to-insecure": "Write --dest-tls-verify=false",
  "--from-ca-file": "Write --ca-file FILE",
  "--to-ca-file": "Write --ca-file FILE",
  "--registry-config": "Write --authfile FILE",
  "--recursive": "What names it is copied with --all",
  "--concurrency": "Write --jobs N",
  "--password": "Write --password-stdin, so that no list of processes shows it",
  "-p": "Write --password-stdin, so that no list of processes shows it",
  "-u": "Write --username NAME",
  "--no-color": "Set NO_COLOR=1",
  "--output-json": "Write --json",
  "--debug": "Write --verbose, or set CACHEPORT_DEBUG=1",
};

/** What to write instead of a command that another tool has. */
export function foreignCommand(name: string): string | undefined {
  return Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
}

/**
 * What to write instead of an option that another tool has.
 *
 * @param shown With its dashes.
 */
export function foreignOption(command: string, shown: string): string | undefined {
  return [`${command} ${shown}`, shown].flatMap((key) =>
    Object.hasOwn(OPTIONS, key) ? (OPTIONS[key] ?? []) : [],
  )[0];
}

/** What to write instead of a value that another tool takes. */
export function foreignValue(option: string, value: string): string | undefined {
  if (value.includes("{{")) return "Templates of Go are not read: write --json and use jq";
  if (option === "--format" && /^(?:table|yaml|text)$/.test(value))
    return "Text is what is printed without it; --json prints JSON";
  return undefined;
}
