/**
 * A browser that is driven as a person would: by size, taps and keys, over the DevTools
 * protocol, without a package.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The browser's program; tests skip where there is none. */
export const CHROMIUM = ["chromium", "chromium-browser", "google-chrome"].find((name) =>
  Bun.which(name),
);

/** How a page is shown. */
export interface Screen {
  width: number;
  height: number;
  /** A phone: taps, and no pointer that hovers. */
  mobile?: boolean;
  dark?: boolean;
}

/** One tab of a browser. */
export class Browser {
  readonly #child: Bun.Subprocess;
  readonly #profile: string;
  readonly #socket: WebSocket;
  readonly #answers = new Map<number, (message: any) => void>();
  readonly #events = new Map<string, () => void>();
  #session: string | undefined;
  #last = 0;
  #isMobile = false;
  /** What stood on the console: errors of scripts, and what the page's policy refused. */
  readonly console: string[] = [];

  private constructor(child: Bun.Subprocess, profile: string, socket: WebSocket) {
    this.#child = child;
    this.#profile = profile;
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(String(data)));
  }

  /** Starts the browser and opens an empty tab. */
  static async start(): Promise<Browser> {
    const profile = mkdtempSync(join(tmpdir(), "cacheport-browser-"));
    const child = Bun.spawn(
      [
        CHROMIUM as string,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        `--user-data-dir=${profile}`,
        "about:blank",
      ],
      { stdout: "ignore", stderr: "pipe" },
    );
    const socket = new WebSocket(await endpoint(child.stderr));
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const browser = new Browser(child, profile, socket);
    const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
    browser.#session = sessionId;
    for (const domain of ["Page", "Runtime", "Log"]) await browser.send(`${domain}.enable`);
    return browser;
  }

  /** Sends a command of the protocol. */
  async send(method: string, params: object = {}): Promise<any> {
    const id = ++this.#last;
    const answer = new Promise<any>((resolve) => this.#answers.set(id, resolve));
    this.#socket.send(JSON.stringify({ id, method, params, sessionId: this.#session }));
    const { result, error } = await answer;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  #receive(message: any): void {
    const { id, method, params } = message;
    if (id !== undefined) return this.#answers.get(id)?.(message);
    if (method === "Runtime.exceptionThrown")
      this.console.push(params.exceptionDetails.exception?.description ?? "exception");
    if (method === "Log.entryAdded") this.console.push(params.entry.text);
    if (method === "Runtime.consoleAPICalled") this.console.push(JSON.stringify(params.args));
    this.#events.get(method)?.();
  }

  /** Opens a file as a screen shows it. */
  async open(path: string, { width, height, mobile = false, dark = false }: Screen): Promise<void> {
    this.#isMobile = mobile;
    await this.send("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      mobile,
      deviceScaleFactor: 1,
    });
    await this.send("Emulation.setTouchEmulationEnabled", { enabled: mobile });
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await this.send("Emulation.setEmulatedMedia", { media: "", features });
    // One address after the other in the same page would load nothing.
    await this.#load("about:blank");
    await this.#load(`file://${path}`);
  }

  async #load(url: string): Promise<void> {
    const loaded = new Promise<void>((resolve) =>
      this.#events.set("Page.loadEventFired", () => resolve()),
    );
    await this.send("Page.navigate", { url });
    await loaded;
    await this.evaluate("new Promise((done) => setTimeout(done, 50))");
  }

  /** The value of an expression in the page. */
  async evaluate(expression: string): Promise<any> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
      userGesture: true,
    });
    if (exceptionDetails)
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Clicks in the middle of an element, as a mouse or a finger does. */
  async tap(selector: string): Promise<void> {
    const { x, y } = await this.evaluate(
      `(() => { const element = document.querySelector(${JSON.stringify(selector)});
        element.scrollIntoView({ block: "center" });
        const { x, y, width, height } = element.getBoundingClientRect();
        return { x: x + width / 2, y: y + height / 2 }; })()`,
    );
    if (this.#isMobile) {
      await this.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: [{ x, y }] });
      await this.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
    }
    for (const type of this.#isMobile ? [] : ["mousePressed", "mouseReleased"])
      await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
  }

  /** Waits until an expression in the page is true. */
  async until(expression: string): Promise<void> {
    for (let tries = 0; !(await this.evaluate(expression)); tries++) {
      if (tries === 500) throw new Error(`It did not come true: ${expression}`);
      await Bun.sleep(20);
    }
  }

  /** Presses a key. */
  async press(key: string): Promise<void> {
    for (const type of ["keyDown", "keyUp"])
      await this.send("Input.dispatchKeyEvent", { type, key, code: key });
  }

  /** A picture of what is in sight. */
  async picture(): Promise<Uint8Array> {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  /** Ends the browser. */
  async close(): Promise<void> {
    this.#socket.close();
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    rmSync(this.#profile, { recursive: true, force: true });
  }
}

/** The address that the browser says it listens on. */
async function endpoint(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stderr) {
    text += decoder.decode(chunk);
    const [, address] = /DevTools listening on (ws:\S+)/.exec(text) ?? [];
    if (address !== undefined) return address;
  }
  throw new Error(`The browser did not start: ${text}`);
}
