/** The credentials of S3, kept until they run out and looked up again then. */
import { CacheportError } from "./errors.ts";
import type { ObjectSettings } from "./object-service.ts";
import type { AwsKeys } from "./object-sigv4.ts";

/** Credentials that run out. */
export interface TimedKeys extends AwsKeys {
  /** Milliseconds since 1970; undefined for never. */
  readonly expires?: number | undefined;
}

/** The credentials of one store. */
export class AwsCredentials {
  readonly #given: AwsKeys | undefined;
  readonly #region: string;
  readonly #settings: ObjectSettings;

  constructor(given: AwsKeys | undefined, region: string, settings: ObjectSettings) {
    this.#given = given;
    this.#region = region;
    this.#settings = settings;
  }

  async keys(): Promise<AwsKeys> {
    if (this.#given) return this.#given;
    const { env } = this.#settings;
    const accessKeyId = env["AWS_ACCESS_KEY_ID"];
    const secretAccessKey = env["AWS_SECRET_ACCESS_KEY"];
    if (accessKeyId && secretAccessKey)
      return { accessKeyId, secretAccessKey, sessionToken: env["AWS_SESSION_TOKEN"] };
    throw new CacheportError("STORE_DENIED", `Cannot find credentials ${this.#region}`);
  }

  async renew(): Promise<boolean> {
    return false;
  }
}
