import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseIni } from "../src/object-credentials-profile.ts";
import {
  parseGoDuration,
  readAzureOptions,
  readGithubOptions,
  readS3Options,
} from "../src/object-options.ts";
import type { ObjectKind } from "../src/object-place.ts";
import { cacheport } from "./helpers/binary.ts";
import { failure } from "./helpers/errors.ts";
import { tempFolder } from "./helpers/temp.ts";
import { TestS3 } from "./helpers/test-s3-server.ts";

const DOCUMENT = "{}";
const s3 = new TestS3();
/** Whatever gives credentials: STS, a container's service, an instance's, Microsoft's. */
const seen: { method: string; path: string; headers: Record<string, string>; body: string }[] = [];
let answer: (path: string, method: string, headers: Record<string, string>) => Response = () =>
  new Response(null, { status: 404 });
const giver = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    const url = new URL(request.url);
    const headers = Object.fromEntries(request.headers);
    seen.push({
      method: request.method,
      path: url.pathname + url.search,
      headers,
      body: await request.text(),
    });
    return answer(url.pathname, request.method, headers);
  },
});
const GIVER = `http://127.0.0.1:${giver.port}`;
afterAll(async () => {
  await s3.stop();
  await giver.stop(true);
});
beforeEach(() => {
  s3.objects.clear();
  s3.seen.length = 0;
  seen.length = 0;
  s3.put("b/manifests/buildkit", DOCUMENT);
});

/** Reads a cache with no keys in its attributes; gives the key that signed, and the token. */
async function signedBy(env: Record<string, string>): Promise<unknown> {
  const location = s3.location().replace(/,access_key_id=.*$/, "");
  const run = await cacheport(["cat", location], {
    env: { AWS_EC2_METADATA_DISABLED: "true", ...env },
  });
  if (run.code !== 0) return run.stderr;
  expect(run.stdout).toBe(DOCUMENT);
  const { headers } = s3.seen.at(-1) ?? { headers: {} as Record<string, string> };
  const [, key] = /Credential=([^/]+)\//.exec(headers["authorization"] ?? "") ?? [];
  const token = headers["x-amz-security-token"];
  return token === undefined ? key : [key, token];
}

const KEYS = JSON.stringify({
  AccessKeyId: "AKIDGIVEN",
  SecretAccessKey: "given",
  Token: "given-token",
  Expiration: "2100-01-01T00:00:00Z",
});
const STS = `<R><Credentials><AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>role-token</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></R>`;

function profiles(config: string, credentials = ""): Record<string, string> {
  const folder = tempFolder();
  writeFileSync(join(folder, "config"), config);
  writeFileSync(join(folder, "credentials"), credentials);
  return {
    AWS_CONFIG_FILE: join(folder, "config"),
    AWS_SHARED_CREDENTIALS_FILE: join(folder, "credentials"),
  };
}

describe("credentials for S3 are found where Amazon's own clients look", () => {
  const ENV = { AWS_ACCESS_KEY_ID: "AKIDENV", AWS_SECRET_ACCESS_KEY: "e" };

  test("in the environment, with a session's token", async () => {
    expect(await signedBy(ENV)).toBe("AKIDENV");
    expect(await signedBy({ ...ENV, AWS_SESSION_TOKEN: "t" })).toEqual(["AKIDENV", "t"]);
  });

  test("in profiles, of which the credentials file counts before the config", async () => {
    const files = profiles(
      "[default]\naws_access_key_id = AKIDCONFIG\naws_secret_access_key = c\n[profile other]\naws_access_key_id=AKIDOTHER\naws_secret_access_key=o\n",
      "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = f\n",
    );
    expect(await signedBy(files)).toBe("AKIDFILE");
    expect(await signedBy({ ...files, AWS_PROFILE: "other" })).toBe("AKIDOTHER");
    expect(await signedBy({ ...files, AWS_PROFILE: "none" })).toContain(
      'Cannot use the AWS profile "none": no file has it',
    );
    expect(await signedBy({ ...files, ...ENV })).toBe("AKIDENV");
  });

  test("as a role that another profile may take on, by a signed request to STS", async () => {
    answer = () => new Response(STS);
    const files = profiles(
      "[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = base\nexternal_id = x\n[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = b\n",
    );
    expect(await signedBy({ ...files, AWS_PROFILE: "role", AWS_ENDPOINT_URL_STS: GIVER })).toEqual([
      "AKIDROLE",
      "role-token",
    ]);
    expect(seen[0]?.body).toContain("Action=AssumeRole&");
    expect(seen[0]?.body).toContain("ExternalId=x");
    expect(seen[0]?.headers["authorization"]).toContain("Credential=AKIDBASE/");
  });

  test("as a role that a token in a file permits, by a request that is not signed", async () => {
    answer = () => new Response(STS);
    const file = join(tempFolder(), "token");
    writeFileSync(file, "jwt\n");
    const env = {
      AWS_WEB_IDENTITY_TOKEN_FILE: file,
      AWS_ROLE_ARN: "arn:aws:iam::1:role/w",
      AWS_ENDPOINT_URL_STS: GIVER,
    };
    expect(await signedBy(env)).toEqual(["AKIDROLE", "role-token"]);
    expect(seen[0]?.body).toContain("WebIdentityToken=jwt");
    expect(seen[0]?.headers["authorization"]).toBeUndefined();
    answer = () =>
      new Response("<E><Code>InvalidIdentityToken</Code><Message>no</Message></E>", {
        status: 400,
      });
    expect(await signedBy(env)).toContain("InvalidIdentityToken");
  });

  test("from a container's service, with its token and to no other machine without TLS", async () => {
    answer = () => new Response(KEYS);
    const env = {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${GIVER}/creds`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: "pod",
    };
    expect(await signedBy(env)).toEqual(["AKIDGIVEN", "given-token"]);
    expect(seen[0]?.headers["authorization"]).toBe("pod");
    seen.length = 0;
    expect(
      await signedBy({ ...env, AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://example.com/creds" }),
    ).toContain("another machine without TLS");
    expect(seen).toEqual([]);
  });

  test("from an instance's metadata, version 2 alone", async () => {
    answer = (path, method, headers) => {
      if (path === "/latest/api/token")
        return method === "PUT" ? new Response("imds") : new Response(null, { status: 405 });
      if (headers["x-aws-ec2-metadata-token"] !== "imds")
        return new Response(null, { status: 401 });
      return new Response(path.endsWith("/") ? "my-role\n" : KEYS);
    };
    const env = { AWS_EC2_METADATA_DISABLED: "false", AWS_EC2_METADATA_SERVICE_ENDPOINT: GIVER };
    expect(await signedBy(env)).toEqual(["AKIDGIVEN", "given-token"]);
    expect(seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
      "PUT /latest/api/token",
      "GET /latest/meta-data/iam/security-credentials/",
      "GET /latest/meta-data/iam/security-credentials/my-role",
    ]);
  });

  test("a program that prints them; what it fails with is not shown", async () => {
    const files = profiles("[default]\ncredential_process = echo hush-from-helper >&2; exit 3\n");
    const text = String(await signedBy(files));
    expect(text).toContain("credential_process ended with 3");
    expect(text).not.toContain("hush-from-helper");
  });

  test("none at all is an error that says where they may be", async () => {
    expect(await signedBy({})).toContain("Cannot find credentials for S3");
    expect(await signedBy(profiles("[default]\nsso_session = x\n"))).toContain("it logs in by SSO");
  });
});

describe("Azure is asked with a token of Microsoft Entra when there is no key", () => {
  const azure = (env: Record<string, string>) =>
    cacheport(["cat", `type=azblob,account_url=${GIVER}/acct,account_name=acct,name=x`], {
      env: { PATH: "/usr/bin", ...env },
    });
  const store = (path: string, headers: Record<string, string>): Response | undefined =>
    path.startsWith("/acct/")
      ? new Response(headers["authorization"] === "Bearer entra" ? DOCUMENT : "", {
          status: headers["authorization"] === "Bearer entra" ? 200 : 403,
        })
      : undefined;

  test("by an application's secret, by a cluster's token, by the machine's identity", async () => {
    answer = (path, _, headers) =>
      store(path, headers) ?? Response.json({ access_token: "entra", expires_in: "3600" });
    const app = {
      AZURE_TENANT_ID: "tenant",
      AZURE_CLIENT_ID: "client",
      AZURE_AUTHORITY_HOST: GIVER,
    };
    expect((await azure({ ...app, AZURE_CLIENT_SECRET: "s" })).stdout).toBe(DOCUMENT);
    expect(seen[0]?.path).toBe("/tenant/oauth2/v2.0/token");
    expect(seen[0]?.body).toContain("client_secret=s");
    seen.length = 0;
    const file = join(tempFolder(), "token");
    writeFileSync(file, "federated");
    expect((await azure({ ...app, AZURE_FEDERATED_TOKEN_FILE: file })).stdout).toBe(DOCUMENT);
    expect(seen[0]?.body).toContain("client_assertion=federated");
    seen.length = 0;
    expect((await azure({ AZURE_POD_IDENTITY_AUTHORITY_HOST: GIVER })).stdout).toBe(DOCUMENT);
    expect(seen[0]?.headers["metadata"]).toBe("true");
    expect(seen[0]?.path).toContain("resource=https%3A%2F%2Fstorage.azure.com%2F");
  });

  test("a signature in the account's address is part of each request, and no token is asked for", async () => {
    answer = () => new Response(DOCUMENT);
    const run = await cacheport([
      "cat",
      `type=azblob,account_url=${GIVER}/acct?sv=1&sig=a%2Bb,container=c,name=x`,
    ]);
    expect(run.stdout).toBe(DOCUMENT);
    expect(seen.map(({ path, headers }) => [path, headers["authorization"]])).toEqual([
      ["/acct/c/manifests/x?sv=1&sig=a%2Bb", undefined],
    ]);
  });
});

describe("attributes, defaults and errors are BuildKit's", () => {
  const place = (kind: ObjectKind, attributes: Record<string, string> = {}) => ({
    kind,
    attributes: new Map(Object.entries(attributes)),
  });
  const S3 = { bucket: "b", region: "r" };

  test.each([
    [place("s3", { region: "r" }), "bucket ($AWS_BUCKET) not set for s3 cache"],
    [place("s3", { bucket: "b" }), "region ($AWS_REGION) not set for s3 cache"],
    [
      place("s3", { ...S3, upload_parallelism: "0" }),
      "upload_parallelism must be a positive integer",
    ],
    [
      place("s3", { ...S3, retry_max_attempts: "x" }),
      "retry_max_attempts must be a positive integer",
    ],
    [place("s3", { ...S3, retry_mode: "legacy" }), 'retry_mode must be "standard" or "adaptive"'],
    [
      place("azblob"),
      "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache",
    ],
    [place("azblob", { account_url: "account.blob.core.windows.net" }), "no Host in request URL"],
    [place("gha"), "token not set for github actions cache"],
  ])("%p", async (one, words) => {
    const read = { s3: readS3Options, azblob: readAzureOptions, gha: readGithubOptions }[one.kind];
    const error = await failure(() => void read(one, {}));
    expect([error.code, error.message]).toEqual(["USAGE", expect.stringContaining(words)]);
  });

  test("s3: the environment fills in, prefixes are joined as they are, a bad value counts as none", () => {
    const env = {
      AWS_BUCKET: "e",
      AWS_REGION: "er",
      AWS_DEFAULT_REGION: "no",
      AWS_ENDPOINT_URL_S3: "http://h:1",
    };
    expect(
      readS3Options(
        place("s3", { prefix: "p", touch_refresh: "soon", use_path_style: "true" }),
        env,
      ),
    ).toMatchObject({
      bucket: "e",
      region: "er",
      blobs: "pblobs/",
      manifests: "pmanifests/",
      touchRefresh: 24 * 3_600_000,
      // Of an endpoint from the environment BuildKit's client asks for virtual hosts.
      pathStyle: false,
    });
    const given = {
      ...S3,
      endpoint_url: "http://h:1",
      use_path_style: "true",
      touch_refresh: "90m",
      access_key_id: "a",
    };
    // One half of a key pair is none.
    expect(readS3Options(place("s3", given), {})).toMatchObject({
      pathStyle: true,
      touchRefresh: 5_400_000,
      keys: undefined,
    });
    expect(readS3Options(place("s3", { ...given, use_path_style: "yes" }), {}).pathStyle).toBe(
      false,
    );
  });

  test("azblob: slashes are put between the parts of a key, and the account's name is that of the host", () => {
    const options = readAzureOptions(
      place("azblob", {
        account_url: "https://acct.blob.core.windows.net",
        prefix: "/a//b/../c/",
        blobs_prefix: "x/",
      }),
      {},
    );
    expect(options).toMatchObject({
      accountName: "acct",
      container: "buildkit-cache",
      blobs: "a/c/x/",
      manifests: "a/c/manifests/",
    });
  });

  test.each([
    [
      {},
      { ACTIONS_CACHE_URL: "http://one/", ACTIONS_RESULTS_URL: "http://two/" },
      1,
      "http://one/",
    ],
    [{}, { ACTIONS_RESULTS_URL: "http://two" }, 1, "http://two/"],
    [
      {},
      {
        ACTIONS_CACHE_URL: "http://one/",
        ACTIONS_RESULTS_URL: "http://two/",
        ACTIONS_CACHE_SERVICE_V2: "True",
      },
      2,
      "http://two/",
    ],
    [
      {},
      {
        ACTIONS_CACHE_URL: "http://one/",
        ACTIONS_RESULTS_URL: "http://two/",
        ACTIONS_CACHE_SERVICE_V2: "yes",
      },
      1,
      "http://one/",
    ],
    [
      {},
      { ACTIONS_RESULTS_URL: "https://results-receiver.actions.githubusercontent.com/" },
      2,
      "https://results-receiver.actions.githubusercontent.com/",
    ],
    [{ url: "http://a/", url_v2: "http://b/" }, {}, 2, "http://b/"],
    [{ url: "http://a/", url_v2: "http://b/", version: "1" }, {}, 1, "http://a/"],
    [{ url: "http://a/", version: "2" }, {}, 2, "http://a/"],
  ])("gha: %p with %p is version %d at %s", (attributes, env, version, url) => {
    const options = readGithubOptions(
      place("gha", { token: "t", ...attributes } as Record<string, string>),
      env as Record<string, string>,
    );
    expect([options.version, options.url.href]).toEqual([version as 1 | 2, url]);
  });

  test.each([
    ["24h", 86_400_000],
    ["1h30m", 5_400_000],
    ["1.5h", 5_400_000],
    ["100ms", 100],
    ["0", 0],
    ["-1s", -1000],
    ["1d", undefined],
    ["soon", undefined],
    ["", undefined],
    ["5", undefined],
  ])("a duration of %p is %p ms", (text, milliseconds) => {
    expect(parseGoDuration(text)).toBe(milliseconds);
  });

  test("profile files are read as Amazon's clients read them", () => {
    const text =
      '; comment\n[ default ]\nRegion = eu-west-1 # here\ns3 =\n  max_queue = 1\nx=a=b\n[profile "q"]\n';
    expect(Object.fromEntries(parseIni(text).get("default") ?? [])).toEqual({
      region: "eu-west-1",
      s3: "",
      x: "a=b",
    });
    expect([...parseIni(text).keys()]).toEqual(["default", 'profile "q"']);
  });
});
