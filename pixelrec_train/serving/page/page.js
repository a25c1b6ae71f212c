// Every text of an item goes into the page by textContent: what looks like a tag stays text.
const $ = (id) => document.getElementById(id);
const seen = new Map(); // item id -> Item, of all that the server has told
let health, history = [], listed = { offset: 0 };

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

async function ask(path, body, signal) {
  const sent = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, { ...sent, signal });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

// An item: a button that takes it into the history, and one that lists what is like it.
function row(item, score) {
  seen.set(item.item_id, item);
  const element = make("div", "row"), take = make("button", "take"), like = make("button", "like", "≈");
  const first = make("span");
  first.append(make("span", "text", item.text || item.item_id));
  if (score !== undefined) first.append(make("span", "score", score));
  take.append(first, facts(item));
  take.title = "into the history";
  take.onclick = () => change([...history, item.item_id]);
  like.title = "what is like it";
  like.setAttribute("aria-label", `what is like ${item.item_id}`);
  like.onclick = () => similar(item);
  element.append(take, like);
  return element;
}

function facts(item) {
  const element = make("span", "facts");
  element.append(make("span", "id", item.item_id));
  if (item.semantic_id) element.append(path(item.semantic_id));
  if (item.new) element.append(make("span", "badge new", "new"));
  else if (item.cold) element.append(make("span", "badge cold", "cold"));
  return element;
}

// Ids that begin alike begin in the same colours: a hue for each code, far from its neighbours'.
function path(codes) {
  const element = make("span", "path");
  element.title = "semantic id, coarse to fine";
  codes.forEach((code, level) => {
    const pill = make("span", "code", code);
    pill.style.setProperty("--hue", Math.round((code * 137.508 + level * 47) % 360));
    element.append(pill);
  });
  return element;
}

async function search(offset = 0) {
  const words = $("search").value;
  const asked = (listed = { words, offset });
  try {
    const found = await ask(`items?${new URLSearchParams({ q: words, limit: 30, offset })}`);
    if (asked !== listed) return; // somebody has typed on
    show(found.items, offset, found.more);
    $("listed").textContent = found.items.length || offset ? "" : `nothing has “${words}” in its text or id`;
  } catch (error) {
    $("listed").textContent = error.message;
  }
}

function show(items, offset, more) {
  const rows = items.map((item) => {
    const entry = make("li");
    entry.append(row(item));
    return entry;
  });
  if (offset) $("items").append(...rows);
  else $("items").replaceChildren(...rows);
  $("more").hidden = !more;
}

async function similar(item) {
  listed = {};
  try {
    const found = await ask(`similar?${new URLSearchParams({ item: item.item_id, k: Math.min(30, health.max_k) })}`);
    show(found.items, 0, false);
    $("listed").textContent = `like ${item.item_id} “${item.text || ""}”, says ${found.checkpoint}`;
  } catch (error) {
    $("listed").textContent = error.message;
  }
}

function change(items) {
  history = items.slice(-health.max_history);
  location.hash = history.map(encodeURIComponent).join(",");
  $("history").replaceChildren(...history.map((id, place) => {
    const entry = make("li"), button = make("button");
    button.append(make("span", "", seen.get(id)?.text || id), make("span", "id", id));
    button.title = "out of the history";
    button.onclick = () => change(history.filter((_, other) => other !== place));
    entry.append(button);
    return entry;
  }));
  $("clear").hidden = !history.length;
  $("nothing").hidden = Boolean(history.length);
  for (const column of columns) column.ask();
}

const columns = [];

class Column {
  constructor(checkpoint) {
    this.checkpoint = checkpoint;
    this.element = make("article", "column");
    this.element.dataset.name = checkpoint.name;
    const head = make("header"), title = make("h2", "", checkpoint.name.replaceAll("_", "-"));
    title.title = checkpoint.path;
    this.latency = make("span", "latency");
    this.note = make("p", "note");
    this.list = make("ol");
    head.append(title, this.latency);
    this.element.append(head, this.note, this.list);
    $("columns").append(this.element);
  }

  async ask() {
    this.asking?.abort();
    const read = this.checkpoint.places_new_items ? history : history.filter((id) => !seen.get(id)?.new);
    if (!read.length) {
      this.list.replaceChildren();
      return this.say(history.length ? "only new items: they have no semantic id here" : "");
    }
    const asking = (this.asking = new AbortController());
    this.element.classList.add("asking");
    try {
      const body = { history: read, k: Math.min(10, health.max_k), checkpoint: this.checkpoint.name };
      const found = await ask("recommend", body, asking.signal);
      this.show(found.items);
      const left = history.length - read.length;
      this.say(left ? `${left} of ${history.length} are new and have no semantic id here` : "");
      this.latency.textContent = `${found.latency_ms.toFixed(1)} ms`;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.list.replaceChildren();
      this.say(error.message, "wrong");
    }
    this.element.classList.remove("asking");
  }

  say(text, kind = "") {
    this.note.textContent = text;
    this.note.className = `note ${kind}`;
    this.latency.textContent = "";
    this.element.classList.remove("asking");
  }

  show(items) {
    const scores = items.map((item) => item.score ?? 0), best = Math.max(...scores), least = Math.min(...scores);
    this.list.replaceChildren(...items.map((item, place) => {
      const entry = make("li"), right = row(item, item.score?.toFixed(3) ?? "");
      const bar = make("span", "bar"), filled = make("i");
      bar.style.display = "block";
      filled.style.width = `${best > least ? 12 + (88 * (item.score - least)) / (best - least) : 100}%`;
      bar.append(filled);
      const take = right.querySelector(".take");
      if (item.because && item.likeness > 0) take.title = `like ${item.because}; into the history`;
      take.append(bar);
      entry.append(make("span", "place", place + 1), right);
      return entry;
    }));
  }
}

async function add(event) {
  event.preventDefault();
  const texts = {};
  for (const field of $("fields").querySelectorAll("input")) if (field.value.trim()) texts[field.name] = field.value;
  try {
    const item = await ask("items", { texts });
    $("new").reset();
    $("added").textContent = `${item.item_id} is in the catalogue, until the server ends`;
    await told();
    seen.set(item.item_id, item);
    similar(item);
    change(history);
  } catch (error) {
    $("added").textContent = error.message;
  }
}

async function told() {
  health = await ask("health");
  const many = (n) => n.toLocaleString("en");
  const more = health.new_items ? `, ${many(health.new_items)} new` : "";
  $("catalogue").textContent = `${many(health.items)} items, ${many(health.cold_items)} cold${more}`;
}

async function begin() {
  await told();
  for (const checkpoint of health.checkpoints) columns.push(new Column(checkpoint));
  $("adding").hidden = !health.text_keys.length;
  for (const key of health.text_keys) {
    const label = make("label", "", key), input = make("input");
    input.name = key;
    label.append(input);
    $("fields").append(label);
  }
  let waiting;
  $("search").oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 120);
  };
  $("more").onclick = () => search(listed.offset + 30);
  $("clear").onclick = () => change([]);
  $("new").onsubmit = add;
  await search();
  const ids = location.hash.slice(1).split(",").filter(Boolean).map(decodeURIComponent);
  // Their texts, which a link does not hold.
  for (const id of ids) for (const item of (await ask(`items?${new URLSearchParams({ q: id, limit: 5 })}`)).items) seen.set(item.item_id, item);
  change(ids);
}

begin().catch((error) => ($("catalogue").textContent = error.message));
