// Shows the API's document with Swagger UI, which the previous script loads.

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const place = document.getElementById("docs");

// Swagger UI sends the examples of optional parameters: a cursor gives an empty page, a condition gives 304.
// Examples of optional parameters therefore become text.
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
  validatorUrl: null, // it would contact another host
  persistAuthorization: false, // the token is not stored
});
