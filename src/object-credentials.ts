/**
 * The credentials of S3: from the attributes, else from where Amazon's own clients look
 * for them. They are kept until shortly before they run out.
 *
 * Source: AWS SDKs and Tools Reference Guide, "Standardized credential providers".
 */
import { CacheportError } from "./errors.ts";
import { profileKeys } from "./object-credentials-profile.ts";
import { containerKeys, instanceKeys, webIdentityKeys } from "./object-credentials-remote.ts";
import type { ObjectSettings } from "./object-service.ts";
import type { AwsKeys, TimedKeys } from "./object-sigv4.ts";

/** Milliseconds before their end at which credentials are looked up again. */
const MARGIN = 5 * 60_000;

/** The credentials of one store. */
export class AwsCredentials {
  readonly #given: AwsKeys | undefined;
  readonly #region: string;
  readonly #settings: ObjectSettings;
  #keys: Promise<TimedKeys> | undefined;
  /** Milliseconds since 1970. */
  #until = Number.POSITIVE_INFINITY;

  /**
   * @param given What the location's attributes say; nothing else is looked at then.
   * @param region For a service that gives credentials.
   */
  constructor(given: AwsKeys | undefined, region: string, settings: ObjectSettings) {
    this.#given = given;
    this.#region = region;
    this.#settings = settings;
  }

  /**
   * The credentials that are valid now.
   *
   * @throws {CacheportError} STORE_DENIED when there are none
   */
  async keys(): Promise<AwsKeys> {
    if (this.#given) return this.#given;
    if (Date.now() > this.#until) this.#keys = undefined;
    this.#keys ??= this.#find();
    const { expires } = await this.#keys.catch((error: unknown) => {
      this.#keys = undefined;
      throw error;
    });
    this.#until = expires === undefined ? Number.POSITIVE_INFINITY : expires - MARGIN;
    return await this.#keys;
  }

  /**
   * Looks the credentials up again, after a store has refused some.
   *
   * @param sent The headers that were refused.
   * @returns True when there are others now.
   */
  async renew(sent: Readonly<Record<string, string>>): Promise<boolean> {
    if (this.#given) return false;
    const isRefused = ({ accessKeyId, sessionToken }: AwsKeys): boolean =>
      sent["authorization"]?.includes(`Credential=${accessKeyId}/`) === true &&
      sent["x-amz-security-token"] === sessionToken;
    // Another request may have done it meanwhile.
    if (!isRefused(await this.keys())) return true;
    this.#keys = undefined;
    return !isRefused(await this.keys());
  }

  async #find(): Promise<TimedKeys> {
    const { env } = this.#settings;
    const accessKeyId = env["AWS_ACCESS_KEY_ID"];
    const secretAccessKey = env["AWS_SECRET_ACCESS_KEY"];
    if (accessKeyId && secretAccessKey)
      return { accessKeyId, secretAccessKey, sessionToken: env["AWS_SESSION_TOKEN"] || undefined };
    const tokenFile = env["AWS_WEB_IDENTITY_TOKEN_FILE"];
    const role = env["AWS_ROLE_ARN"];
    if (tokenFile && role) {
      const session = env["AWS_ROLE_SESSION_NAME"];
      return await webIdentityKeys({ tokenFile, role, session }, this.#region, this.#settings);
    }
    const found =
      (await profileKeys(this.#region, this.#settings)) ??
      (await containerKeys(this.#settings)) ??
      (await instanceKeys(this.#settings));
    if (found) return found;
    throw new CacheportError(
      "STORE_DENIED",
      "Cannot find credentials for S3: none are in the attributes, the environment, the profile files, or given by the machine",
      {
        hint: "Give access_key_id= and secret_access_key=, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with aws configure",
      },
    );
  }
}
