/** Prints the rooms of src/ with their doors and files: where to look for what. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./compile.ts";
import { filesOf, ROOMS, vocabulary } from "./structure.ts";

const files = readdirSync(join(ROOT, "src")).filter((file) => file.endsWith(".ts"));
console.log(`vocabulary: ${vocabulary(files).join(" ")}\n`);
for (const room of ROOMS) {
  const inside = filesOf(room, files);
  if (inside.length === 0) continue;
  console.log(`${room.name}-: ${room.holds}`);
  console.log(`  doors: ${room.doors === "*" ? "all" : room.doors || room.name}`);
  console.log(`  files: ${inside.join(" ")}\n`);
}
