/** A token server for tests. */
import { TestServer, failed } from "./test-server.ts";
import type { Answer, SeenRequest } from "./test-server.ts";

/** Hands out bearer tokens. */
export class TestTokenServer extends TestServer {
  readonly tokens = new Map<string, { scopes: string[]; until: number }>();
  /** Users with their passwords; a token without a user permits reading alone. */
  users = new Map<string, string>();
  refreshTokens = new Set<string>();
  /** Milliseconds that a token is good for, whatever was said. */
  life = 60_000;
  get = true;
  anonymousPush = false;
  #count = 0;

  static async start(): Promise<TestTokenServer> {
    return await new TestTokenServer(() => ({ status: 404 })).listen();
  }

  override answer = (request: SeenRequest): Answer => {
    const { pathname, searchParams } = new URL(request.url, "http://x");
    if (pathname !== "/token") return { status: 404 };
    const form = new URLSearchParams(Buffer.from(request.body).toString());
    if (request.method === "GET" && !this.get) return { status: 405 };
    const scopes =
      request.method === "GET"
        ? searchParams.getAll("scope")
        : (form.get("scope") ?? "").split(" ");
    const [user, password] =
      request.method === "GET"
        ? Buffer.from(request.headers["authorization"]?.replace(/^Basic /, "") ?? "", "base64")
            .toString()
            .split(":")
        : [form.get("username") ?? "", form.get("password") ?? ""];
    const refresh = form.get("refresh_token");
    const known = refresh
      ? this.refreshTokens.has(refresh)
      : user && this.users.get(user) === password;
    if ((user || refresh) && !known) return failed(401, "UNAUTHORIZED");
    const granted =
      known || this.anonymousPush
        ? scopes
        : scopes.map((scope) => scope.replace(/:[^:]*$/, ":pull"));
    const token = `token-${++this.#count}-${crypto.randomUUID()}`;
    this.tokens.set(token, {
      scopes: granted,
      until: Date.now() + this.life,
    });
    return {
      status: 200,
      body: JSON.stringify(request.method === "GET" ? { token } : { access_token: token }),
    };
  };

  permits(token: string, repository: string, action: string): boolean {
    const known = this.tokens.get(token);
    if (!known || known.until < Date.now()) return false;
    if (repository === "") return true;
    return known.scopes.some((scope) => {
      const [, name, actions = ""] = scope.split(":");
      return name === repository && actions.split(",").includes(action);
    });
  }
}
