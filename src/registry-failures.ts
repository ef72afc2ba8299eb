/** Why a request to a registry got no answer at all. */
import { CacheportError } from "./errors.ts";
import type { Remedy } from "./errors.ts";

/** What went wrong between here and the registry. */
export type FailureKind =
  "refused" | "proxy" | "reset" | "stalled" | "silent" | "tls" | "certificate" | "protocol" | "dns";

/** Why a request got no answer, and whether another try has a chance. */
export class TransportFailure extends Error {
  override readonly name = "TransportFailure";
  readonly kind: FailureKind;

  constructor(kind: FailureKind, message: string) {
    super(message);
    this.kind = kind;
  }

  /** Tells whether the failure may pass by itself. */
  get temporary(): boolean {
    return ["refused", "proxy", "reset", "stalled"].includes(this.kind);
  }
}

const TLS_CODES =
  /^(?:UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|CERT_|ERR_TLS_|ERR_SSL_|HOSTNAME_MISMATCH|INVALID_CA)/;

/**
 * Says in a few words why fetch failed. The text of the failure itself is not
 * shown, because it may hold a signed URL.
 */
export function explainFailure(error: unknown): TransportFailure {
  if (error instanceof TransportFailure) return error;
  const code = String((error as { code?: unknown } | null)?.code ?? "");
  if (/^(?:ECONNREFUSED|ConnectionRefused|FailedToOpenSocket)$/.test(code))
    return new TransportFailure("refused", "the connection was refused");
  if (code === "ENOTFOUND" || code === "EAI_AGAIN")
    return new TransportFailure("dns", "its host name cannot be resolved");
  if (code === "EPROTO")
    return new TransportFailure("tls", "it does not speak TLS, or in no version that is known");
  if (TLS_CODES.test(code))
    return new TransportFailure("certificate", `its certificate is not trusted (${code})`);
  if (
    code === "" ||
    /^(?:ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ConnectionClosed|ConnectionReset)/.test(code)
  )
    return new TransportFailure("reset", "the connection broke");
  return new TransportFailure("protocol", `its answer cannot be understood (${code})`);
}

/** The error for a registry that cannot be reached, whatever is tried. */
export function unreachable(domain: string, failure: TransportFailure): CacheportError {
  const hint: string | Remedy =
    failure.kind === "tls" || failure.kind === "silent" || failure.kind === "certificate"
      ? { do: "trust-certificate", plainHttp: true }
      : failure.kind === "proxy"
        ? "Check the variable that names the proxy, or name the host in NO_PROXY"
        : failure.kind === "dns"
          ? "Check the spelling of the host"
          : "Check that the registry is running and can be reached from here, then try again";
  return new CacheportError(
    "REGISTRY_FAILED",
    `Cannot reach registry "${domain}": ${failure.message}`,
    { hint },
  );
}
