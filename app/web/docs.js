// Shows the API's document with Swagger UI, which the script before this one brought.

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const place = document.getElementById("docs");

// Swagger UI sends the examples of parameters that nobody asked for: a cursor that shows an empty page, a condition
// that is answered 304. So those of optional ones become text.
const asText = (parameter) => {
  if (parameter.required || parameter.example === undefined) return parameter;
  const { example, description, ...rest } = parameter;
  return { ...rest, description: `${description.replace(/\.?$/, ".")} For example \`${example}\`` };
};

const withTextForExamples = (node) => {
  if (Array.isArray(node)) return node.map(withTextForExamples);
  if (node === null || typeof node !== "object") return node;
  const copy = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, withTextForExamples(value)]));
  return "in" in copy && "name" in copy && "schema" in copy ? asText(copy) : copy;
};

const examplesAsText = () => ({
  statePlugins: {
    spec: {
      wrapActions: { updateJsonSpec: (original) => (document) => original(withTextForExamples(document)) },
    },
  },
});

window.SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  plugins: [examplesAsText],
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null, // it would be asked over the network
  persistAuthorization: false, // a pasted token is gone with the page
});
