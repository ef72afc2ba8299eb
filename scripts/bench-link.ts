/**
 * A slow link for scripts/bench.ts: passes connections on to another port of this machine,
 * each byte half a round trip later and no more of them a second than the link carries.
 *
 *   bench-link.ts HOST:PORT ROUND_TRIP_MS MEGABITS   prints its own port, ends with its input
 */
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";

const [target = "", roundTrip = "60", megabits = "100"] = process.argv.slice(2);
const [host = "", port = ""] = target.split(":");
const delay = Number(roundTrip) / 2;
const bytesPerMs = (Number(megabits) * 1e6) / 8 / 1000;
/** Bytes under way in one direction of one connection before its sender must wait. */
const WINDOW = 4 * 2 ** 20;

/** One direction of the link, shared by all connections. */
class Lane {
  #free = 0;
  /** When the last of these bytes comes out at the other end, in milliseconds from now. */
  take(bytes: number): number {
    const now = performance.now();
    this.#free = Math.max(this.#free, now) + bytes / bytesPerMs;
    return this.#free - now + delay;
  }
}

function pass(from: Socket, to: Socket, lane: Lane): void {
  let underWay = 0;
  from.on("data", (bytes) => {
    underWay += bytes.length;
    if (underWay > WINDOW) from.pause();
    setTimeout(() => {
      underWay -= bytes.length;
      if (!to.destroyed) to.write(bytes);
      if (underWay <= WINDOW) from.resume();
    }, lane.take(bytes.length));
  });
  from.on("end", () => setTimeout(() => to.end(), lane.take(0)));
  from.on("error", () => to.destroy());
  from.on("close", () => setTimeout(() => to.destroy(), delay + 1000).unref());
}

const up = new Lane();
const down = new Lane();
const server = createServer({ allowHalfOpen: true }, (client) => {
  const origin = connect({ host, port: Number(port), allowHalfOpen: true });
  pass(client, origin, up);
  pass(origin, client, down);
});
server.listen(0, "127.0.0.1", () => console.log((server.address() as { port: number }).port));
process.stdin.on("end", () => process.exit(0)).resume();
