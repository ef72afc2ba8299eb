// Part 6 of 7: what an image has beside its layers: how it runs, and its history.

import { byId, data, make, visible } from "./cli-page-kit.js";
import { bytes, mono, places, short, time } from "./inspect-page-graph.js";
import { copyButton } from "./inspect-page-parts.js";

/** Rows of the history that are shown at most. */
const HISTORY_CAP = 2000;

export function showImage() {
  const { image } = data;
  if (!image) return;
  byId("image").hidden = false;
  byId("settings").append(
    ...image.settings.flatMap(([label, values]) => [
      make("dt", {}, label),
      make("dd", {}, ...values.map((value) => make("div", {}, mono(visible(value))))),
    ]),
  );
  byId("settings").hidden = image.settings.length === 0;
  byId("settings-title").hidden = image.settings.length === 0;
  byId("history").append(...image.history.slice(0, HISTORY_CAP).map(historyRow));
  if (image.history.length === 0) byId("history").append(make("li", {}, "No history"));
}

function historyRow([text, created, at, comment]) {
  const place = places[at];
  return make(
    "li",
    {},
    make("code", { class: "mono", title: comment && visible(comment) }, visible(text) || "-"),
    make(
      "span",
      { class: "muted" },
      created === null ? "" : `${time(created)}, `,
      place
        ? make(
            "a",
            { href: `#layer=${place.blob.digest}` },
            `layer ${short(place.blob.digest)}, ${bytes(place.blob.size)}`,
          )
        : "no layer",
    ),
    copyButton(text, "step"),
  );
}
