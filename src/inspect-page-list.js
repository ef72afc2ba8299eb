// Part 4 of 7: the search and the lists, of which only the rows in sight are made.

import { byId, data, make, visible } from "./cli-page-kit.js";
import {
  ageColor,
  blobs,
  bytes,
  called,
  calledLayer,
  filesOf,
  goes,
  inChains,
  isSearching,
  isSelected,
  matchesBlob,
  matchesRecord,
  mono,
  namesOn,
  number,
  records,
  select,
  short,
  time,
  topSize,
} from "./inspect-page-graph.js";
import { bySize } from "./inspect-page-map.js";
import { explained, hideTip } from "./inspect-page-parts.js";

// --- The lists -------------------------------------------------------------

/** Pixels, as in the style sheet. */
const ROW_HEIGHT = 30;
const HEAD_HEIGHT = 32;
const COLUMN_GAP = 14;
/** Rows that are printed at most. */
const PRINTED_ROWS = 1000;

const barCell = (blob) =>
  make("div", {
    class: "bar",
    style: {
      width: `${(100 * (blob.size ?? 0)) / (bySize[0]?.size ?? 1)}%`,
      "--age": ageColor(blob.created),
    },
  });

/** The links of one input are alternatives. */
const countInputs = (record) => new Set(record.inputs.map(({ input }) => input)).size;

/** The folder that nearly all of a layer is in, and how many files it has. */
function contentsText(blob) {
  const files = filesOf(blob);
  if (!files) return "";
  const { count, place } = files;
  if (count <= 1) return visible(place) || "no files";
  return `${place === "." ? "" : `${visible(place)}, `}${number(count)} files`;
}

const hasFiles = Object.keys(data.files).length > 0;

/** Each view: what is listed, in which columns, and what a row selects. */
const VIEWS = {
  Layers: {
    items: () => blobs.filter(matchesBlob),
    selects: (blob) => ({ layer: blob }),
    goes: (blob) => goes.blobs.has(blob),
    sort: { column: hasFiles ? 2 : 1, descending: true },
    columns: [
      [
        "Step, or digest",
        "minmax(170px, 2fr)",
        (blob) => namesOn(blob)[0] ?? blob.digest,
        calledLayer,
      ],
      ...(hasFiles
        ? [["Contents", "minmax(110px, 1.2fr)", (blob) => contentsText(blob), contentsText]]
        : []),
      ["Size", "70px", (blob) => blob.size ?? -1, (blob) => bytes(blob.size), true],
      ["Share", "minmax(36px, 0.6fr)", undefined, barCell],
      ["Created", "128px", (blob) => blob.created ?? -Infinity, (blob) => time(blob.created)],
      ["Depth", "46px", (blob) => blob.depth, (blob) => number(blob.depth), true],
      ...(data.kind === "image"
        ? []
        : [
            [
              "Places",
              "48px",
              (blob) => blob.places.length,
              (blob) => number(blob.places.length),
              true,
            ],
            ["Results", "58px", (blob) => blob.results, (blob) => number(blob.results), true],
          ]),
    ],
  },
  Chains: {
    items: () => inChains.filter((place) => matchesBlob(place.blob)),
    selects: (place) => ({ layer: place.blob }),
    goes: (place) => goes.blobs.has(place.blob),
    sort: undefined,
    columns: [
      [
        "Layer, on the layer below it",
        "minmax(240px, 1fr)",
        undefined,
        (place) =>
          make(
            "span",
            { style: { "padding-left": `${Math.min(place.depth, 16) * 18}px` } },
            place.names.length > 0
              ? visible(place.names.join("; "))
              : mono(short(place.blob.digest)),
          ),
      ],
      ["Depth", "56px", undefined, (place) => number(place.depth), true],
      ["Size", "80px", undefined, (place) => bytes(place.blob.size), true],
      ["With all below", "100px", undefined, (place) => bytes(place.chainSize), true],
      ...(data.kind === "image"
        ? []
        : [["Results", "64px", undefined, (place) => number(place.records.length), true]]),
    ],
  },
  Records: {
    items: () => records.filter(matchesRecord),
    selects: (record) => ({ record }),
    goes: (record) => goes.records.has(record),
    sort: { column: 5, descending: true },
    columns: [
      [
        "Step, or key",
        "minmax(210px, 1fr)",
        (record) => record.name ?? record.digest,
        (record) => (record.name === undefined ? mono(called(record)) : called(record)),
      ],
      ["Inputs", "60px", countInputs, (record) => number(countInputs(record)), true],
      [
        "Used by",
        "64px",
        (record) => record.users.length,
        (record) => number(record.users.length),
        true,
      ],
      [
        "Results",
        "60px",
        (record) => record.results.length,
        (record) => number(record.results.length),
        true,
      ],
      [
        "Top layer",
        "80px",
        (record) => topSize(record) ?? -1,
        (record) => (record.results.length > 0 ? bytes(topSize(record)) : ""),
        true,
      ],
      [
        "Newest result",
        "130px",
        (record) => record.newest ?? -Infinity,
        (record) => (record.newest === null ? "" : time(record.newest)),
      ],
    ],
  },
};

/** An image has no records. */
const shownViews = Object.keys(VIEWS).filter((name) => name !== "Records" || data.kind === "cache");

let view = "Layers";
let items = [];
let active = 0;

export function showViews() {
  byId("views").replaceChildren(
    ...shownViews.map((name) =>
      make(
        "button",
        {
          type: "button",
          "aria-pressed": String(name === view),
          onclick() {
            view = name;
            showViews();
            showList();
          },
        },
        name,
      ),
    ),
  );
}

export function showList() {
  const { columns, sort, items: list } = VIEWS[view];
  items = list();
  const key = sort && columns[sort.column][2];
  if (key) {
    const sign = sort.descending ? -1 : 1;
    const keyed = items.map((item) => [key(item), item]);
    keyed.sort(([a], [b]) => (a < b ? -sign : a > b ? sign : 0));
    items = keyed.map(([, item]) => item);
  }
  const root = byId("list");
  root.style.setProperty("--tracks", columns.map(([, width]) => width).join(" "));
  // Narrower than this the columns would be of no use: the list scrolls.
  const least = columns.reduce(
    (sum, [, width]) => sum + COLUMN_GAP + parseInt(/\d+/.exec(width)[0]),
    20,
  );
  root.style.setProperty("--least", `${least}px`);
  root.setAttribute("aria-label", view);
  root.setAttribute("aria-rowcount", String(items.length + 1));
  root
    .querySelector(".head")
    .replaceChildren(...columns.map((column, at) => headCell(column, at, sort)));
  byId("matches").textContent = isSearching() ? `${number(items.length)} found` : "";
  active = 0;
  root.scrollTop = 0;
  /** @type {HTMLElement} */ (root.querySelector(".body")).style.height =
    `${items.length * ROW_HEIGHT}px`;
  showRows();
}

function headCell([title, , key, , isNumber], at, sort) {
  const sorted = sort?.column === at;
  const order = sort?.descending ? "descending" : "ascending";
  return make(
    "div",
    {
      role: "columnheader",
      class: isNumber ? "number" : "",
      "aria-sort": sorted ? order : undefined,
    },
    explained(
      key
        ? make(
            "button",
            {
              type: "button",
              onclick() {
                const descending = sorted ? !sort.descending : Boolean(isNumber);
                VIEWS[view].sort = { column: at, descending };
                hideTip();
                showList();
              },
            },
            title,
          )
        : make("span", { tabindex: "0" }, title),
      title,
    ),
  );
}

let isPrinted = false;

/** On paper all rows stand, as far as it is meant to have them. */
export function setPrinted(value) {
  isPrinted = value;
  showRows();
}

/** Makes the rows that can be seen, and some more above and below. */
export function showRows() {
  const root = byId("list");
  const body = root.querySelector(".body");
  const first = isPrinted ? 0 : Math.max(0, Math.floor(root.scrollTop / ROW_HEIGHT) - 8);
  const last = isPrinted
    ? PRINTED_ROWS
    : Math.ceil((root.scrollTop + root.clientHeight) / ROW_HEIGHT) + 8;
  const rows = items.slice(first, last).map((item, offset) => makeRow(item, first + offset));
  if (items.length === 0)
    rows.push(
      make(
        "div",
        { role: "row", class: "empty" },
        make("div", { role: "gridcell" }, "Nothing is found"),
      ),
    );
  if (isPrinted && items.length > PRINTED_ROWS)
    rows.push(make("p", { class: "empty" }, `and ${number(items.length - PRINTED_ROWS)} more`));
  body.replaceChildren(...rows);
  if (items.length > 0) root.setAttribute("aria-activedescendant", `row-${active}`);
  else root.removeAttribute("aria-activedescendant");
}

function makeRow(item, at) {
  const { columns, selects, goes } = VIEWS[view];
  const target = selects(item);
  return make(
    "div",
    {
      id: `row-${at}`,
      role: "row",
      class: `row${at === active ? " active" : ""}${goes(item) ? " goes" : ""}`,
      "aria-rowindex": String(at + 2),
      "aria-selected": String(isSelected(target)),
      style: { top: `${at * ROW_HEIGHT}px` },
      onclick() {
        active = at;
        select(target);
      },
    },
    ...columns.map(([, , , cell, isNumber]) =>
      make("div", { role: "gridcell", class: isNumber ? "number" : "" }, cell(item)),
    ),
  );
}

export function moveInList(event) {
  if (event.target !== event.currentTarget) return;
  const item = items[active];
  if ((event.key === "Enter" || event.key === " ") && item) {
    event.preventDefault();
    select(VIEWS[view].selects(item));
    return;
  }
  const page = Math.floor((byId("list").clientHeight - HEAD_HEIGHT) / ROW_HEIGHT) - 1;
  const target = {
    ArrowDown: active + 1,
    ArrowUp: active - 1,
    PageDown: active + page,
    PageUp: active - page,
    Home: 0,
    End: items.length - 1,
  }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  activate(Math.max(0, Math.min(items.length - 1, target)));
}

/** Makes a row the active one and brings it into sight. */
function activate(at) {
  const root = byId("list");
  active = at;
  const top = active * ROW_HEIGHT;
  // The head stays at the top and covers what is under it.
  const inSight = root.clientHeight - HEAD_HEIGHT;
  if (top < root.scrollTop) root.scrollTop = top;
  else if (top + ROW_HEIGHT > root.scrollTop + inSight) root.scrollTop = top + ROW_HEIGHT - inSight;
  showRows();
}

/** Shows the selection in the list, if it is there. */
export function showSelectedRow() {
  const { selects } = VIEWS[view];
  const isRow = (item) => item !== undefined && isSelected(selects(item));
  const at = items.findIndex(isRow);
  // A click in the list has its row already.
  if (at < 0 || isRow(items[active])) showRows();
  else activate(at);
}
