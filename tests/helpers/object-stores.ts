/**
 * The object stores of the interop peers, reached by plain requests: a second pair of
 * eyes that shares no code with what is tested, beyond the signer for S3.
 */
import { createHmac } from "node:crypto";
import { signRequest } from "../../src/object-sigv4.ts";

const env = (name: string): string => process.env[name] ?? "";

/** True when the stores are up. */
export const hasStores = env("STORES_S3") !== "";

/** A bucket name or a prefix that no other test uses. */
export function freshName(): string {
  return `t${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
}

/** A request to the S3 door of Swift. */
export async function askS3(
  method: string,
  path: string,
  body?: Uint8Array | string,
): Promise<Response> {
  const url = new URL(env("STORES_S3") + path.replaceAll(":", "%3A"));
  const headers = signRequest(
    { method, url, payload: "UNSIGNED-PAYLOAD" },
    { accessKeyId: env("STORES_S3_KEY"), secretAccessKey: env("STORES_S3_SECRET") },
    { region: env("STORES_S3_REGION"), service: "s3", date: new Date() },
  );
  const response = await fetch(url, { method, headers, body: (body as string) ?? null });
  if ([401, 403].includes(response.status)) throw new Error(`S3 refuses ${method} ${path}`);
  return response;
}

/** Makes a bucket and gives the attributes of a cache in it, without a name. */
export async function freshBucket(): Promise<{ bucket: string; s3: string }> {
  const bucket = freshName();
  const { status } = await askS3("PUT", `/${bucket}`);
  if (status !== 200) throw new Error(`Cannot make the bucket ${bucket}: ${status}`);
  return { bucket, s3: s3Location(bucket) };
}

/** The attributes of a cache in a bucket. */
export function s3Location(bucket: string, secret = env("STORES_S3_SECRET")): string {
  return [
    "type=s3",
    `bucket=${bucket}`,
    `region=${env("STORES_S3_REGION")}`,
    `endpoint_url=${env("STORES_S3")}`,
    "use_path_style=true",
    `access_key_id=${env("STORES_S3_KEY")}`,
    `secret_access_key=${secret}`,
  ].join(",");
}

/** The keys in a bucket. */
export async function s3Keys(bucket: string): Promise<string[]> {
  const xml = await (await askS3("GET", `/${bucket}?list-type=2`)).text();
  return [...xml.matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, key = ""]) => key);
}

/** The attributes of a cache in a container of Azurite. */
export function azureLocation(container: string): string {
  return [
    "type=azblob",
    `account_url=${env("STORES_AZURE")}`,
    `account_name=${env("STORES_AZURE_ACCOUNT")}`,
    `secret_access_key=${env("STORES_AZURE_KEY")}`,
    `container=${container}`,
  ].join(",");
}

/** A request to Azurite, signed with the account's key. */
export async function askAzure(method: string, path: string): Promise<Response> {
  const url = new URL(env("STORES_AZURE") + path);
  const date = new Date().toUTCString();
  const account = env("STORES_AZURE_ACCOUNT");
  const query = [...url.searchParams]
    .toSorted()
    .map(([key, value]) => `\n${key}:${value}`)
    .join("");
  const text = `${method}\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:${date}\nx-ms-version:2021-12-02\n/${account}${url.pathname}${query}`;
  const signature = createHmac("sha256", Buffer.from(env("STORES_AZURE_KEY"), "base64"))
    .update(text)
    .digest("base64");
  return await fetch(url, {
    method,
    headers: {
      "x-ms-date": date,
      "x-ms-version": "2021-12-02",
      authorization: `SharedKey ${account}:${signature}`,
    },
  });
}

/** The attributes of a cache in the stand-in for GitHub's service. */
export function githubLocation(version: 1 | 2, scope: string): string {
  const url = version === 2 ? "url_v2" : "url";
  return [
    "type=gha",
    `version=${version}`,
    `${url}=${env("STORES_GHA")}`,
    `token=${env("STORES_GHA_TOKEN")}`,
    `scope=${scope}`,
  ].join(",");
}

/** The entries of the stand-in, finished or not. */
export async function githubEntries(): Promise<{ key: string; done: boolean }[]> {
  return (await (await fetch(`${env("STORES_GHA")}entries`)).json()) as never;
}

/** Evicts the entries whose keys start so. */
export async function evictGithub(prefix: string): Promise<void> {
  await fetch(`${env("STORES_GHA")}entries/${encodeURIComponent(prefix)}`, { method: "DELETE" });
}
