/** The log of requests that --verbose shows: what was asked, what came back, and no secrets. */
import { formatBytes, formatDuration } from "./units.ts";

/** Takes one line of the log. */
export type Trace = ((line: string) => void) | undefined;

/** Parameters whose values say what was asked for; signatures and states are in others. */
const SHOWN_PARAMETERS = ["digest", "from", "last", "list-type", "mount", "n", "prefix", "scope"];

/**
 * Sends a request and tells of it when its head has come back, or its failure.
 *
 * @param trace Undefined when nobody wants to know.
 */
export async function traced(
  trace: Trace,
  method: string,
  url: URL,
  send: () => Promise<Response>,
): Promise<Response> {
  if (!trace) return await send();
  const start = performance.now();
  const told = (outcome: string): void =>
    trace(
      `${method} ${addressText(url)} -> ${outcome} in ${formatDuration(performance.now() - start)}`,
    );
  try {
    const response = await send();
    const length = Number(response.headers.get("content-length") ?? NaN);
    told(`${response.status}${length >= 0 ? ` (${formatBytes(length)})` : ""}`);
    return response;
  } catch (error) {
    // The text of the failure may hold the address with its signature.
    told(String((error as { code?: unknown } | null)?.code ?? "no answer"));
    throw error;
  }
}

/** An address without a login and without the values of parameters that may be secrets. */
export function addressText(url: URL): string {
  const parameters = [...url.searchParams].map(([name, value]) =>
    SHOWN_PARAMETERS.includes(name) ? `${name}=${value}` : `${name}=...`,
  );
  const query = parameters.length > 0 ? `?${parameters.join("&")}` : "";
  return `${url.origin}${url.pathname}${query}`;
}

/**
 * The proxy that a request goes through by the environment, as fetch reads it.
 *
 * @returns Its variable and its address without a login; undefined for none.
 */
export function proxyOf(
  url: URL,
  env: Readonly<Record<string, string | undefined>>,
): { variable: string; address: string } | undefined {
  const excluded = (env["NO_PROXY"] ?? env["no_proxy"] ?? "").split(",").map((one) => one.trim());
  const names =
    url.protocol === "https:" ? ["HTTPS_PROXY", "https_proxy"] : ["HTTP_PROXY", "http_proxy"];
  for (const variable of names) {
    const proxy = env[variable] ? URL.parse(env[variable]) : undefined;
    if (!proxy) continue;
    const isExcluded = excluded.some(
      (one) => one === "*" || (one !== "" && `.${url.host}`.endsWith(`.${one.replace(/^\./, "")}`)),
    );
    return isExcluded ? undefined : { variable, address: proxy.host };
  }
  return undefined;
}
