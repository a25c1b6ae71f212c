// The endpoints of openapi.json, as text.
const api = await (await fetch("openapi.json")).json();

function make(tag, className, ...inside) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...inside);
  return element;
}

const named = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema ?? {});

function kind(schema) {
  const options = schema.anyOf?.map(kind).join(" or ");
  if (options) return options;
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return schema.type === "object" ? "object" : schema.type ?? "anything";
}

function table(rows) {
  const element = make("table");
  for (const cells of rows) {
    const line = make("tr");
    cells.forEach((cell, n) => line.append(make("td", "", n ? cell : make("code", "", cell))));
    element.append(line);
  }
  return element;
}

function fields(schema) {
  const needed = schema.required ?? [];
  return Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const rest = field.default === undefined ? (needed.includes(name) ? "needed" : "") : `default ${JSON.stringify(field.default)}`;
    return [name, kind(field), [rest, field.description].filter(Boolean).join("; ")];
  });
}

function example(method, path, body, parameters) {
  const query = parameters.filter((one) => one.required).map((one) => `${one.name}=…`).join("&");
  const url = `${location.origin}${path}${query && `?${query}`}`;
  if (!body) return `curl '${url}'`;
  const needed = Object.keys(body.properties).filter((name) => body.required?.includes(name));
  const sample = Object.fromEntries(needed.map((name) => [name, body.properties[name].type === "array" ? ["…"] : { title: "…" }]));
  return `curl -X ${method.toUpperCase()} '${url}' -H 'content-type: application/json' -d '${JSON.stringify(sample)}'`;
}

for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, told] of Object.entries(methods)) {
    const card = make("article"), parameters = told.parameters ?? [];
    const body = told.requestBody && named(told.requestBody.content["application/json"].schema);
    card.append(make("h2", "", make("span", "method", method.toUpperCase()), path), make("p", "", told.description));
    const asked = parameters.map((one) => [one.name, kind(one.schema), [one.required ? "needed" : "", one.schema.default === undefined ? "" : `default ${JSON.stringify(one.schema.default)}`, one.description ?? one.schema.description ?? ""].filter(Boolean).join("; ")]);
    if (body || asked.length) card.append(make("h3", "quiet", "request"), table(body ? fields(body) : asked));
    card.append(make("h3", "quiet", "answer"), table(Object.entries(told.responses).map(([status, one]) => {
      const schema = one.content?.["application/json"]?.schema;
      return [status, schema ? kind(schema) : "", one.description];
    })), make("pre", "", example(method, path, body, parameters)));
    document.getElementById("endpoints").append(card);
  }
}
const shapes = make("article", "", make("h2", "", "What answers hold"));
for (const [name, schema] of Object.entries(api.components.schemas)) {
  if (schema.properties) shapes.append(make("h3", "quiet", name), table(fields(schema)));
}
document.getElementById("endpoints").append(shapes);
