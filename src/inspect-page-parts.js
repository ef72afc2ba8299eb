// Part 2 of 7: what is said of words when they are pointed at, and buttons that copy.

import { byId, make, visible } from "./cli-page-kit.js";
import { mono, short } from "./inspect-page-graph.js";

// --- Words that are explained ----------------------------------------------

/** The words of the page, in a sentence each. */
const MEANINGS = {
  Caches: "One for each platform, in one index.",
  Size: "Bytes as they are stored, compressed. A layer that stands in several places is counted once.",
  Layers: "The distinct blobs in which the results of steps are stored.",
  Records:
    "Cache keys. A build looks up one for each step; records of steps whose result is not stored lead to those that have one.",
  Results:
    "What steps made: a result is a layer with all below it. Here: how many have this layer on top.",
  Depth: "How many layers lie below it in its chain: 0 for the first layer of a base image.",
  Places:
    "In how many chains the layer stands: the same bytes may lie on different layers, and are stored once.",
  "With all below":
    "Bytes of the layer and of all layers below it: what a build downloads to use it.",
  Inputs:
    "How many inputs the step has: the step below it, the stages and contexts that it copies from.",
  "Used by": "Records of steps that take the result of this one.",
  "Top layer": "The layer that the step itself added; those below belong to the steps before it.",
  "Newest result": "When the newest result of the record was made.",
  Created: "When the layer was made, in UTC.",
  Share: "The size beside that of the largest layer; the colour tells the age.",
};

const tip = byId("tip");

/** Lets a focusable element explain itself when it is pointed at, focused or tapped. */
export function explained(element, word, about = MEANINGS[word]) {
  if (about === undefined) return element;
  element.setAttribute("aria-description", about);
  const show = () => {
    if (!element.isConnected) return;
    const { left, bottom, top } = element.getBoundingClientRect();
    tip.textContent = about;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const isRoomBelow = bottom + 8 + height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    tip.style.top = `${isRoomBelow ? bottom + 6 : Math.max(8, top - height - 6)}px`;
  };
  for (const event of ["mouseenter", "focus", "click"]) element.addEventListener(event, show);
  for (const event of ["mouseleave", "blur"]) element.addEventListener(event, hideTip);
  return element;
}

export function hideTip() {
  tip.hidden = true;
}

/** A word with its explanation. */
export const term = (word) =>
  MEANINGS[word] === undefined
    ? make("span", {}, word)
    : explained(make("button", { type: "button", class: "term" }, word), word);

// --- Copying ---------------------------------------------------------------

/** A button that copies a text; `what` says to people who cannot see it what it copies. */
export function copyButton(text, what) {
  const button = make(
    "button",
    { type: "button", class: "copy", "aria-label": `Copy ${what}` },
    "Copy",
  );
  button.addEventListener("click", async () => {
    const isDone = await copyText(text);
    button.textContent = isDone ? "Copied" : "Not copied";
    button.setAttribute("aria-label", `${button.textContent}: ${what}`);
    setTimeout(() => {
      button.textContent = "Copy";
      button.setAttribute("aria-label", `Copy ${what}`);
    }, 1500);
  });
  return button;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages of other origins than a file or https have no clipboard of that kind.
    const area = /** @type {HTMLTextAreaElement} */ (make("textarea", { class: "unseen" }));
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}

/** A digest in full with its button. */
export const digestCell = (digest, what) =>
  make(
    "span",
    { class: "copyable" },
    mono(visible(digest) || "(empty)"),
    copyButton(digest, `${what} ${short(digest)}`),
  );

/** A command to run, with its button. */
export const commandLine = (command) =>
  make(
    "span",
    { class: "copyable command" },
    make("code", { class: "mono" }, visible(command)),
    copyButton(command, "command"),
  );

/** A word as a POSIX shell takes it. */
export const shellWord = (text) =>
  /^[\w./:@=,+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
