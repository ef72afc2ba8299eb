// Part 7 of 7: the selection and what is told of it, then the start.

import { byId, data, make, visible } from "./cli-page-kit.js";
import {
  bytes,
  called,
  calledLayer,
  filesOf,
  mono,
  namesOn,
  number,
  places,
  plural,
  readSelection,
  search,
  selection,
  selectorText,
  short,
  time,
} from "./inspect-page-graph.js";
import { showImage } from "./inspect-page-image.js";
import { commandLine, digestCell, hideTip, shellWord } from "./inspect-page-parts.js";
import { showPrune } from "./inspect-page-prune.js";
import { markTiles, showHead, showMap } from "./inspect-page-map.js";
import {
  moveInList,
  setPrinted,
  showList,
  showRows,
  showSelectedRow,
  showViews,
} from "./inspect-page-list.js";

const layerLink = (blob) =>
  make("a", { href: `#layer=${blob.digest}`, title: blob.digest }, calledLayer(blob));
const recordLink = (record) =>
  make(
    "a",
    {
      class: record.name === undefined && "mono",
      href: `#record=${record.index}`,
      title: visible(record.digest),
    },
    called(record),
  );
const muted = (text) => make("span", { class: "muted" }, text);

/** Entries of a list that are shown before they are asked for. */
const LIST_CAP = 20;

/** A titled list, of which very long ones show their beginning first. */
function section(title, entries, row) {
  if (entries.length === 0) return [];
  const list = make("ul", {}, ...entries.slice(0, LIST_CAP).map(row));
  const rest = entries.slice(LIST_CAP);
  const more =
    rest.length > 0
      ? [
          make(
            "button",
            {
              type: "button",
              class: "more",
              onclick(event) {
                list.append(...rest.map(row));
                event.currentTarget.remove();
              },
            },
            `Show ${number(rest.length)} more`,
          ),
        ]
      : [];
  return [make("h3", {}, title), list, ...more];
}

const fields = (pairs) =>
  make(
    "dl",
    {},
    ...pairs
      .filter(([, value]) => value)
      .flatMap(([label, value]) => [make("dt", {}, label), make("dd", {}, value)]),
  );

function showDetail() {
  const { layer, record } = selection;
  const isChosen = layer !== undefined || record !== undefined;
  byId("detail").classList.toggle("chosen", isChosen);
  byId("detail").replaceChildren(
    ...(isChosen ? [closeButton()] : []),
    ...(layer ? layerDetail(layer) : record ? recordDetail(record) : noDetail()),
  );
  byId("detail").scrollTop = 0;
}

/** On a phone the selection lies over the page as a sheet; this puts it away. */
const closeButton = () =>
  make("button", { type: "button", class: "close", "aria-label": "Close", onclick: unselect }, "×");

function unselect() {
  if (location.hash === "") return;
  history.pushState(undefined, "", location.href.replace(/#.*$/, ""));
  showSelection();
}

const noDetail = () => [
  make(
    "p",
    { class: "muted" },
    data.kind === "image"
      ? "Choose a layer to see what is in it and the chain that it stands in."
      : "Choose a layer or a record to see what is in it, the chain that it stands in, the records that have results there, and what they link to.",
  ),
];

function layerDetail(blob) {
  const owners = blob.places.flatMap((place) => place.records);
  const platforms = new Set(blob.places.map(({ cache }) => data.caches[cache]));
  const names = namesOn(blob);
  const isImage = data.kind === "image";
  return [
    make("h2", {}, names.length === 0 ? `Layer of ${bytes(blob.size)}` : visible(names.join("; "))),
    fields([
      ["Size", names.length > 0 && bytes(blob.size)],
      ["Digest", digestCell(blob.digest, "digest")],
      ["Uncompressed", blob.diffId && digestCell(blob.diffId, "digest of the uncompressed layer")],
      ["Media type", blob.mediaType && visible(blob.mediaType)],
      ["Created", time(blob.created)],
      ["For", data.caches.length > 1 && visible([...platforms].join(", "))],
    ]),
    ...filesSection(blob),
    ...section("Records with a result here", owners, recordRow),
    ...(owners.length > 0 || isImage ? [] : [make("h3", {}, "No record has a result here")]),
    ...blob.places.slice(0, 5).flatMap((place) => chainSection(blob, place)),
    ...section(
      "Layers on top of it",
      blob.places.flatMap((place) => place.children),
      (child) => make("li", {}, layerLink(child.blob), make("span", {}, bytes(child.blob.size))),
    ),
  ];
}

/** What is in a layer, or how to list it. */
function filesSection(blob) {
  const files = filesOf(blob);
  const command = commandLine(
    `cacheport inspect ${shellWord(data.name)} --files ${short(blob.digest)}`,
  );
  if (!files)
    return [make("h3", {}, "Files"), make("p", { class: "muted" }, "Not read. ", command)];
  const { count, bytes: size, isWhole, largest } = files;
  const title = `Contents: ${isWhole ? "" : "over "}${plural(count, "file")}, ${bytes(size)}`;
  const rest = count - largest.length;
  return [
    ...section(title, largest, ([path, length, mark]) =>
      make(
        "li",
        {},
        make("span", { class: "mono path" }, visible(path)),
        make("span", {}, mark === "" ? bytes(length) : visible(mark)),
      ),
    ),
    ...(largest.length === 0 ? [make("h3", {}, "Contents: no files")] : []),
    ...(rest > 0 || !isWhole
      ? [make("p", { class: "muted" }, "The largest are listed. All of them: ", command)]
      : []),
  ];
}

function chainSection(blob, place) {
  const chain = [];
  for (let at = place; at; at = places[at.parent]) chain.push(at);
  const many = blob.places.length > 1;
  const title = many
    ? `Chain ${blob.places.indexOf(place) + 1} of ${blob.places.length}, ${bytes(place.chainSize)}`
    : `Chain of ${plural(chain.length, "layer")}, ${bytes(place.chainSize)}`;
  return section(title, chain, (at) =>
    make(
      "li",
      { class: at === place ? "here" : "" },
      layerLink(at.blob),
      make("span", {}, bytes(at.blob.size)),
    ),
  );
}

function recordRow(record) {
  return make(
    "li",
    {},
    recordLink(record),
    muted(`${plural(record.inputs.length, "link")} in, ${number(record.users.length)} out`),
    make("span", {}, time(record.newest)),
  );
}

function recordDetail(record) {
  const linkRow = (other) => (link) =>
    make(
      "li",
      {},
      recordLink(link[other]),
      link.selector === ""
        ? undefined
        : make(
            "span",
            { class: "muted note", title: visible(link.selector) },
            "selects ",
            mono(selectorText(link.selector)),
          ),
      muted(`input ${link.input}`),
    );
  return [
    make("h2", {}, record.name === undefined ? "Record" : visible(record.name)),
    fields([
      ["Key", digestCell(record.digest, "key")],
      ["For", data.caches.length > 1 && visible(data.caches[record.cache])],
    ]),
    ...section("Results", record.results, ({ place, moment, chain }) =>
      make(
        "li",
        {},
        layerLink(place.blob),
        muted(chain ? plural(chain.length, "layer") : bytes(place.chainSize)),
        make("span", {}, time(moment)),
      ),
    ),
    ...(record.results.length > 0 ? [] : [make("h3", {}, "No result")]),
    ...section("Takes the results of", record.inputs, linkRow("from")),
    ...section("Is taken by", record.users, linkRow("to")),
  ];
}

// --- Start -----------------------------------------------------------------

function showSelection() {
  readSelection();
  markTiles();
  showSelectedRow();
  showDetail();
}

showHead();
showImage();
showViews();
showList();
showMap();
showPrune();
showSelection();

byId("search").addEventListener("input", (event) => {
  search(/** @type {HTMLInputElement} */ (event.target).value);
  markTiles();
  showList();
});
byId("list").addEventListener("keydown", moveInList);
byId("list").addEventListener("scroll", showRows);
addEventListener("hashchange", showSelection);
addEventListener("scroll", hideTip, { capture: true, passive: true });
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  hideTip();
  unselect();
});
addEventListener("beforeprint", () => setPrinted(true));
addEventListener("afterprint", () => setPrinted(false));
new ResizeObserver(() => {
  showMap();
  showRows();
}).observe(byId("map"));
