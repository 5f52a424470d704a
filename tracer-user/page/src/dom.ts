// Elements. Text is always text: nothing here, or elsewhere in the page, parses HTML.

type Child = Node | string | null | undefined | false;
type Listener = (event: Event) => void;

/** Makes an element: attributes by name, and listeners where the value is a function. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | boolean | Listener | undefined> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (typeof value === "string") made.setAttribute(name, value);
  }
  made.append(...children.filter((it): it is Node | string => !!it || it === ""));
  return made;
}

/** A button that says what it does. */
export function button(text: string, act: () => void, pressed?: boolean): HTMLButtonElement {
  const state = pressed === undefined ? {} : { "aria-pressed": String(pressed) };
  return el("button", { type: "button", click: act, ...state }, text);
}

/** The element of the document with an id. */
export function part(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing. */
export function svg(tag: string, attributes: Record<string, string>, ...children: Node[]): SVGElement {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
