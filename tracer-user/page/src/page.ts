// The page at `/` of `unfreed serve`.

import "./page.css";
import "uplot/dist/uPlot.min.css";

import * as api from "./api";
import { el, part } from "./dom";
import { ServiceView } from "./service";
import { ServiceList } from "./services";
import { address, home, read, type State } from "./state";
import { startTheme, themeButton } from "./theme";
import { duration, time } from "./units";

/** Whether there is a new window is asked this often, milliseconds. */
const EVERY = 3000;

const KEYS = "Keys: / search, Esc back, t dark or light; arrows in the chart and the flamegraph.";

class Page {
  private state = read();
  private ended = -1;
  private view: ServiceView | null = null;
  private readonly list = new ServiceList((service) => this.go({ service }));
  private readonly search = el("input", { type: "search", placeholder: "search  ( / )", "aria-label": "search" });
  private readonly status = el("span", { class: "status dim", role: "status" });
  private isBusy = false;
  private last: [api.Services, api.Outline[]] | null = null;

  start(): void {
    startTheme(() => this.view?.redraw());
    const up = (event: Event) => {
      event.preventDefault();
      this.go(home());
    };
    part("head").replaceChildren(
      el("a", { href: "/", class: "brand", click: up }, "unfreed"),
      this.search,
      this.status,
      themeButton(() => this.view?.redraw()),
    );
    part("foot").replaceChildren(
      el("p", { class: "dim" }, KEYS, " ", el("a", { href: "/licences.txt" }, "Licences of what this page is made of.")),
    );
    this.search.addEventListener("input", () => this.go({ search: this.search.value }, true));
    addEventListener("popstate", () => this.apply(read()));
    addEventListener("keydown", (event) => this.key(event));
    setInterval(() => void this.tick(), EVERY);
    this.apply(this.state);
  }

  /** Goes to another state; a link to it is the address. */
  private go(change: Partial<State>, replaces = false): void {
    const isOther = change.service !== undefined && change.service !== this.state.service;
    const state = { ...(isOther ? home() : this.state), ...change };
    const to = address(state);
    if (replaces) history.replaceState(null, "", to);
    else if (to !== location.pathname + location.search) history.pushState(null, "", to);
    this.apply(state);
  }

  private apply(state: State): void {
    const isOther = state.service !== this.state.service || this.ended < 0;
    this.state = state;
    if (this.search.value !== state.search) this.search.value = state.search;
    document.title = state.service ? `${state.service} – unfreed` : "unfreed";
    if (!isOther && !state.service && this.last) {
      this.list.show(...this.last, state.search);
    } else if (isOther || !this.view) {
      this.view = null;
      void this.tick(true);
    } else {
      void this.guarded(() => this.view?.show(state) ?? Promise.resolve());
    }
  }

  /** Asks whether there is something new, and shows it. */
  private async tick(isForced = false): Promise<void> {
    if (!isForced && (document.hidden || this.isBusy)) return;
    this.isBusy = true;
    await this.guarded(async () => {
      const services = await api.services();
      const isNew = services.ended !== this.ended;
      this.ended = services.ended;
      this.status.textContent = services.ended
        ? `last window ${time(services.ended)}, ${duration((Date.now() - services.ended) / 1000)} ago`
        : "no window yet";
      if (isNew || isForced) await this.refresh(services);
    });
    this.isBusy = false;
  }

  private async refresh(services: api.Services): Promise<void> {
    const { service, search } = this.state;
    if (!service) {
      const { services: outlines } = await api.curves();
      if (this.state.service) return;
      this.last = [services, outlines];
      this.list.show(services, outlines, search);
      this.put(this.list.element);
      return;
    }
    this.view ??= new ServiceView(this.state, (change) => this.go(change));
    this.put(this.view.element);
    await this.view.refresh(services.services.find((it) => it.name === service) ?? null, services.tracer);
  }

  private put(element: HTMLElement): void {
    const main = part("main");
    if (main.firstChild !== element || main.childNodes.length > 1) main.replaceChildren(element);
  }

  /** Does it; what is refused is said. */
  private async guarded(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (!(error instanceof api.Refused)) throw error;
      if (error.status === 401) this.askForToken(api.hasToken());
      else if (error.status === 0) this.status.textContent = error.message;
      else this.put(el("p", { class: "refusal" }, error.message));
    }
  }

  private askForToken(wasWrong: boolean): void {
    if (document.getElementById("token")) return;
    api.forgetToken();
    const input = el("input", { id: "token", type: "password", autocomplete: "off", required: true });
    const enter = (event: Event) => {
      event.preventDefault();
      api.keepToken(input.value);
      this.ended = -1;
      part("main").replaceChildren();
      this.apply(this.state);
    };
    this.put(
      el(
        "form",
        { class: "token", submit: enter },
        el("label", { for: "token" }, "The token of this unfreed serve"),
        input,
        el("button", { type: "submit" }, "Enter"),
        wasWrong && el("p", { class: "bad", role: "alert" }, "This token is not the right one."),
        el("p", { class: "dim" }, "It is in the file of --token-file, or in the folder of its state: ", el("code", {}, "sudo cat /var/lib/unfreed/token"), ". This tab keeps it until it is closed."),
      ),
    );
    input.focus();
  }

  private key(event: KeyboardEvent): void {
    const isTyping = event.target instanceof HTMLInputElement;
    if (event.key === "Escape" && isTyping) {
      this.search.blur();
      if (this.state.search) this.go({ search: "" }, true);
    } else if (event.key === "Escape" && event.target === document.body && this.state.service) {
      this.go(this.state.path ? { path: null } : home());
    } else if (!isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      if (event.key === "/") {
        event.preventDefault();
        this.search.focus();
      } else if (event.key === "t") {
        document.querySelector<HTMLButtonElement>("#head button")?.click();
      }
    }
  }
}

new Page().start();
