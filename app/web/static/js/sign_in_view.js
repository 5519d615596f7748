/** Sign-in: the user pastes a token, which is verified with the service. */

import { address } from "./address.js";
import { h, setText } from "./dom.js";

export function signInView({ api, session }) {
  const error = h("p", { class: "form-error", id: "token-error", role: "alert" });
  const input = h("input", {
    type: "password",
    id: "token",
    class: "input",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    autofocus: true,
    value: session.token, // a token not verified yet because the service was unavailable
    "aria-describedby": "token-help token-error",
  });
  const button = h("button", { class: "button button-primary button-wide", type: "submit" }, "Sign in");
  const say = (text) => {
    setText(error, text);
    error.hidden = !text;
    input.setAttribute("aria-invalid", text ? "true" : "false");
  };

  const submit = async (event) => {
    event.preventDefault();
    const token = input.value.trim().replace(/^bearer\s+/i, "");
    if (!token) {
      say("Paste a token first.");
      return;
    }
    if (!/^[\x21-\x7e]+$/.test(token)) {
      say("This is not a token: a token is one line of letters, digits, dots, dashes and underscores.");
      return;
    }
    button.disabled = true;
    say("");
    try {
      await api.signIn(token);
    } catch (problem) {
      say(problem.detail || problem.title || problem.message);
      input.select();
    } finally {
      button.disabled = false;
    }
  };

  const form = h(
    "form",
    { class: "card sign-in", on: { submit }, novalidate: true },
    h("img", { src: address("/static/favicon.svg"), alt: "", width: 48, height: 48 }),
    h("h1", { tabindex: "-1" }, "Sign in to Detections"),
    h("label", { for: "token", class: "label" }, "Access token"),
    input,
    h(
      "p",
      { class: "help", id: "token-help" },
      "A JSON Web Token from your token issuer. It is stored in this tab only.",
    ),
    error,
    button,
  );
  say(session.reason);
  return { title: "Sign in", node: h("div", { class: "centre" }, form) };
}
