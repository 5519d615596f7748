/** Deliveries per minute in the last hour: a bar chart with a summary and a table. */

import { h, setAttribute, setText, svg } from "./dom.js";
import { plural } from "./format.js";

const WIDTH = 600;
const HEIGHT = 120;
const GAP = 2;
const HOUR_MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

export class Plot {
  #bars = svg("g");
  #picture = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  #scale = h("div", { class: "plot-scale", "aria-hidden": "true" });
  #from = h("span");
  #table = h("tbody");
  #sum = h("p", { class: "plot-sum" });

  constructor() {
    const lines = [0, 0.5, 1].map((part) => {
      const y = 0.5 + part * (HEIGHT - 1);
      return svg("line", { class: "plot-line", x1: 0, x2: WIDTH, y1: y, y2: y });
    });
    this.#picture.append(...lines, this.#bars);
    const head = h("tr", {}, h("th", { scope: "col" }, "Minute"), h("th", { scope: "col" }, "Delivered"));
    const table = h("table", { class: "table" }, h("thead", {}, head), this.#table);
    const axis = h("div", { class: "plot-axis", "aria-hidden": "true" }, this.#from, h("span", {}, "now"));
    const details = h(
      "details",
      { class: "plot-details" },
      h("summary", {}, "As a table"),
      h("div", { class: "plot-table" }, table),
    );
    const frame = h("div", { class: "plot-frame" }, this.#scale, this.#picture, axis);
    this.node = h(
      "section",
      { class: "card panel", "aria-label": "Throughput" },
      h("h2", {}, "Delivered per minute"),
      this.#sum,
      frame,
      details,
    );
  }

  /** Show `[{at, delivered}]`, one entry per minute, oldest first. */
  show(minutes) {
    const counts = minutes.map(({ delivered }) => delivered);
    const most = Math.max(0, ...counts);
    const total = counts.reduce((sum, count) => sum + count, 0);
    const top = niceTop(most);
    const wide = WIDTH / Math.max(1, minutes.length);
    this.#bars.replaceChildren(
      ...minutes.map(({ at, delivered }, place) => {
        const tall = delivered ? Math.max(2, (delivered / top) * (HEIGHT - 1)) : 0;
        const bar = { class: "plot-bar", x: place * wide + GAP / 2, y: HEIGHT - tall, width: wide - GAP, height: tall };
        return svg("rect", bar, svg("title", {}, `${minuteOf(at)}: ${delivered}`));
      }),
    );
    const summary = total
      ? `${total.toLocaleString("en")} in the last hour, at most ${most.toLocaleString("en")} in a minute`
      : "Nothing was delivered in the last hour";
    setText(this.#sum, summary);
    setAttribute(this.#picture, "aria-label", `Bars, one for each minute. ${summary}.`);
    const scale = total ? [top, top / 2, 0] : [];
    this.#scale.replaceChildren(...scale.map((count) => h("span", {}, count.toLocaleString("en"))));
    setText(this.#from, minutes.length ? minuteOf(minutes[0].at) : "");
    this.#fillTable(minutes);
  }

  #fillTable(minutes) {
    const busy = minutes.filter(({ delivered }) => delivered > 0).reverse();
    const rows = busy.map(({ at, delivered }) =>
      h("tr", {}, h("th", { scope: "row" }, minuteOf(at)), h("td", {}, plural(delivered, "message"))),
    );
    const none = h("tr", {}, h("td", { colspan: 2 }, "No minute with a delivery"));
    this.#table.replaceChildren(...(rows.length ? rows : [none]));
  }
}

function minuteOf(timestamp) {
  return HOUR_MINUTE.format(new Date(timestamp));
}

/** Round up to 2, 4, 10, 20, 40, 100, …, whose halves are integers. */
function niceTop(value) {
  let power = 1;
  while (power * 10 < value) power *= 10;
  return [2, 4, 10].map((step) => step * power).find((top) => top >= value);
}
