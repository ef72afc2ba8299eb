// Part 4 of 4: the selection and what is told of it, then the start.

import { byId, data, make, visible } from "./cli-page-kit.js";
import {
  bytes,
  called,
  mono,
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
import { markTiles, showHead, showMap } from "./inspect-page-map.js";
import { moveInList, showList, showRows, showSelectedRow, showViews } from "./inspect-page-list.js";

const layerLink = (blob) =>
  make(
    "a",
    { class: "mono", href: `#layer=${blob.digest}`, title: blob.digest },
    short(blob.digest),
  );
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
const LIST_CAP = 50;

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
  byId("detail").replaceChildren(
    ...(layer ? layerDetail(layer) : record ? recordDetail(record) : noDetail()),
  );
}

const noDetail = () => [
  make(
    "p",
    { class: "muted" },
    "Choose a layer or a record to see the chain that it stands in, the records that have results there, and what they link to.",
  ),
];

function layerDetail(blob) {
  const owners = blob.places.flatMap((place) => place.records);
  const platforms = new Set(blob.places.map(({ cache }) => data.caches[cache]));
  return [
    make("h2", {}, `Layer of ${bytes(blob.size)}`),
    fields([
      ["Digest", mono(blob.digest)],
      ["Uncompressed", blob.diffId && mono(visible(blob.diffId))],
      ["Media type", blob.mediaType && visible(blob.mediaType)],
      ["Created", time(blob.created)],
      ["For", data.caches.length > 1 && visible([...platforms].join(", "))],
    ]),
    ...section("Records with a result here", owners, recordRow),
    ...(owners.length > 0 ? [] : [make("h3", {}, "No record has a result here")]),
    ...blob.places.slice(0, 5).flatMap((place) => chainSection(blob, place)),
    ...section(
      "Layers on top of it",
      blob.places.flatMap((place) => place.children),
      (child) => make("li", {}, layerLink(child.blob), make("span", {}, bytes(child.blob.size))),
    ),
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
    make("h2", {}, "Record"),
    fields([
      ["Step", record.name !== undefined && visible(record.name)],
      ["Key", mono(visible(record.digest) || "(empty)")],
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
showViews();
showList();
showMap();
showSelection();

byId("search").addEventListener("input", (event) => {
  search(/** @type {HTMLInputElement} */ (event.target).value);
  markTiles();
  showList();
});
byId("list").addEventListener("keydown", moveInList);
byId("list").querySelector(".body").addEventListener("scroll", showRows);
addEventListener("hashchange", showSelection);
new ResizeObserver(() => {
  showMap();
  showRows();
}).observe(byId("map"));
