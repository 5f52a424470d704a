// Dark and light: as the system has it, unless somebody chose.

import { button } from "./dom";

const KEY = "unfreed-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

export function isDark(): boolean {
  const chosen = document.documentElement.dataset["theme"];
  return chosen ? chosen === "dark" : dark.matches;
}

/** A colour by its name in the style sheet. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Takes what was chosen before; `changed` is called whenever colours are others. */
export function startTheme(changed: () => void): void {
  const chosen = localStorage.getItem(KEY);
  if (chosen) document.documentElement.dataset["theme"] = chosen;
  dark.addEventListener("change", changed);
}

/** The button that changes it. */
export function themeButton(changed: () => void): HTMLButtonElement {
  const made = button("◐", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset["theme"] = next;
    localStorage.setItem(KEY, next);
    changed();
  });
  made.setAttribute("aria-label", "dark or light");
  made.title = "dark or light (t)";
  return made;
}
