// Part 3 of 4: the search and the lists, of which only the rows in sight are made.

import { byId, make, visible } from "./cli-page-kit.js";
import {
  ageColor,
  blobs,
  bytes,
  called,
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

// --- The lists -------------------------------------------------------------

/** Pixels, as in the style sheet. */
const ROW_HEIGHT = 30;

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

/** Each view: what is listed, in which columns, and what a row selects. */
const VIEWS = {
  Layers: {
    items: () => blobs.filter(matchesBlob),
    selects: (blob) => ({ layer: blob }),
    sort: { column: 1, descending: true },
    columns: [
      ["Layer", "120px", (blob) => blob.digest, (blob) => mono(short(blob.digest))],
      [
        "Step",
        "minmax(0, 2fr)",
        (blob) => namesOn(blob).join("; "),
        (blob) => visible(namesOn(blob).join("; ")),
      ],
      ["Size", "80px", (blob) => blob.size ?? -1, (blob) => bytes(blob.size), true],
      ["", "minmax(40px, 1fr)", undefined, barCell],
      ["Created", "130px", (blob) => blob.created ?? -Infinity, (blob) => time(blob.created)],
      ["Depth", "56px", (blob) => blob.depth, (blob) => number(blob.depth), true],
      ["Places", "56px", (blob) => blob.places.length, (blob) => number(blob.places.length), true],
      ["Results", "60px", (blob) => blob.results, (blob) => number(blob.results), true],
    ],
  },
  Chains: {
    items: () => inChains.filter((place) => matchesBlob(place.blob)),
    selects: (place) => ({ layer: place.blob }),
    sort: undefined,
    columns: [
      [
        "Layer, on the layer below it",
        "minmax(180px, 1fr)",
        undefined,
        (place) =>
          make(
            "span",
            {
              class: "mono",
              style: { "padding-left": `${Math.min(place.depth, 16) * 18}px` },
            },
            short(place.blob.digest),
            ...namesOn(place.blob).map((name) => `  ${visible(name)}`),
          ),
      ],
      ["Depth", "56px", undefined, (place) => number(place.depth), true],
      ["Size", "80px", undefined, (place) => bytes(place.blob.size), true],
      ["With all below", "100px", undefined, (place) => bytes(place.chainSize), true],
      ["Results", "60px", undefined, (place) => number(place.records.length), true],
    ],
  },
  Records: {
    items: () => records.filter(matchesRecord),
    selects: (record) => ({ record }),
    sort: { column: 5, descending: true },
    columns: [
      [
        "Record",
        "minmax(120px, 1fr)",
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

let view = "Layers";
let items = [];
let active = 0;

export function showViews() {
  byId("views").replaceChildren(
    ...Object.keys(VIEWS).map((name) =>
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
  root.setAttribute("aria-label", view);
  root.setAttribute("aria-rowcount", String(items.length + 1));
  root
    .querySelector(".head")
    .replaceChildren(...columns.map((column, at) => headCell(column, at, sort)));
  byId("matches").textContent = isSearching() ? `${number(items.length)} found` : "";
  active = 0;
  const body = root.querySelector(".body");
  body.scrollTop = 0;
  /** @type {HTMLElement} */ (body.firstElementChild).style.height =
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
    key
      ? make(
          "button",
          {
            type: "button",
            onclick() {
              const descending = sorted ? !sort.descending : Boolean(isNumber);
              VIEWS[view].sort = { column: at, descending };
              showList();
            },
          },
          title,
        )
      : title,
  );
}

/** Makes the rows that can be seen, and some more above and below. */
export function showRows() {
  const root = byId("list");
  const body = root.querySelector(".body");
  const { columns, selects } = VIEWS[view];
  const first = Math.max(0, Math.floor(body.scrollTop / ROW_HEIGHT) - 8);
  const last = Math.ceil((body.scrollTop + body.clientHeight) / ROW_HEIGHT) + 8;
  const rows = items.slice(first, last).map((item, offset) => {
    const at = first + offset;
    const target = selects(item);
    return make(
      "div",
      {
        id: `row-${at}`,
        role: "row",
        class: at === active ? "row active" : "row",
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
  });
  if (items.length === 0) rows.push(make("p", { class: "empty" }, "Nothing is found"));
  body.firstElementChild.replaceChildren(...rows);
  root.setAttribute("aria-activedescendant", `row-${active}`);
}

export function moveInList(event) {
  if (event.target !== event.currentTarget) return;
  const item = items[active];
  if ((event.key === "Enter" || event.key === " ") && item) {
    event.preventDefault();
    select(VIEWS[view].selects(item));
    return;
  }
  const body = byId("list").querySelector(".body");
  const page = Math.floor(body.clientHeight / ROW_HEIGHT) - 1;
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
  const body = byId("list").querySelector(".body");
  active = at;
  const top = active * ROW_HEIGHT;
  if (top < body.scrollTop) body.scrollTop = top;
  else if (top + ROW_HEIGHT > body.scrollTop + body.clientHeight)
    body.scrollTop = top + ROW_HEIGHT - body.clientHeight;
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
