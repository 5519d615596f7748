/** A media item's last run, and the button for another one. */

import { h, icon, setAttribute, setText, showFacts } from "./dom.js";
import { duration, grouped, moment, plural } from "./format.js";

const NAMES = { queued: "Waiting for the detector", running: "Detecting", done: "Done", failed: "Failed" };

export class RunPanel {
  #state = h("p", { class: "run-state" });
  #bar = h("progress", { "aria-label": "Progress of the run", hidden: true });
  #error = h("p", { class: "form-error", hidden: true });
  #warnings = h("ul", { class: "run-warnings", "aria-label": "Warnings", hidden: true });
  #facts = h("dl", { class: "facts" });
  #button;
  #idle = true;

  constructor(runAgain) {
    this.#button = h("button", { class: "button button-small", on: { click: () => this.#idle && runAgain() } });
    this.#button.append(icon("retry"), "Run again");
    const head = h("div", { class: "panel-head" }, h("h2", {}, "Detection"), this.#button);
    this.node = h(
      "section",
      { class: "card panel", "aria-label": "Detection" },
      head,
      this.#state,
      this.#bar,
      this.#error,
      this.#warnings,
      this.#facts,
    );
  }

  /** Show the last run. The button stays during a run, so that it keeps its focus. */
  show({ run }) {
    const active = run?.state === "queued" || run?.state === "running";
    this.#idle = !active;
    setAttribute(this.#button, "aria-disabled", active ? "true" : null);
    this.#button.lastChild.textContent = run ? "Run again" : "Run detection";
    setText(this.#state, run ? describe(run) : "No run yet.");
    setAttribute(this.#state, "data-tone", run?.state === "failed" ? "bad" : null);
    this.#bar.hidden = !active;
    setAttribute(this.#bar, "max", run?.framesTotal || 1);
    setAttribute(this.#bar, "value", run?.framesTotal ? Math.min(run.framesDone, run.framesTotal) : null);
    this.#error.hidden = !run?.error;
    setText(this.#error, run?.error ?? "");
    this.#warnings.hidden = !run?.warnings.length;
    this.#warnings.replaceChildren(...(run?.warnings ?? []).map((text) => h("li", {}, text)));
    showFacts(this.#facts, run ? facts(run) : []);
  }
}

function describe({ state, framesDone, framesTotal, waitingFor }) {
  if (state === "queued" && waitingFor) return `Waiting: ${waitingFor}`;
  if (state !== "running" || !framesTotal) return NAMES[state] ?? state;
  return `${NAMES.running}: ${grouped(framesDone)} of ${plural(framesTotal, "frame")}`;
}

function tookWords(seconds) {
  if (seconds < 0.1) return "less than 0.1 s";
  return seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

function facts(run) {
  const skipped = run.packetsSkipped ? [["Skipped", plural(run.packetsSkipped, "damaged packet")]] : [];
  const took = run.startedAt && run.finishedAt ? (Date.parse(run.finishedAt) - Date.parse(run.startedAt)) / 1000 : null;
  return [
    ["Detector", run.detector],
    [
      "Frames",
      run.framesTotal && run.framesTotal !== run.framesDone
        ? `${grouped(run.framesDone)} of ${grouped(run.framesTotal)}`
        : grouped(run.framesDone),
    ],
    ...skipped,
    ["Started", run.startedAt ? moment(run.startedAt) : "not yet"],
    ...(took === null ? [] : [["Took", tookWords(took)]]),
    ["Run", `number ${run.id}`],
  ];
}
