// What all pages are made with, joined before their own scripts by cli-page.ts. Texts
// come from outside: they become text nodes, never markup.

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** The data of the page. */
export const data = JSON.parse(byId("data").textContent);

/** Makes an element; children are elements and texts. */
export function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") {
      for (const [property, text] of Object.entries(value))
        element.style.setProperty(property, text);
    } else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** Controls and marks that turn the direction of text are shown, not obeyed. */
export const visible = (text) =>
  text
    .toWellFormed()
    .replace(
      /[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu,
      (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`,
    );
