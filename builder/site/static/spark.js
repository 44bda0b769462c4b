// What makes the pages handier. All of them say what they have to say without it.
// Text from elsewhere is only ever put in as text.
"use strict";

const $ = (id) => document.getElementById(id);

function made(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function tell(text) {
  const place = $("told");
  if (place) place.textContent = text;
}

// --- times: how long ago, with the date as a hint

const UNITS = [["year", 31536000], ["month", 2592000], ["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];

function showAges() {
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const element of document.querySelectorAll("time[datetime]")) {
    const seconds = (Date.parse(element.dateTime) - Date.now()) / 1000;
    if (Number.isNaN(seconds)) continue;
    element.title ||= element.textContent;
    const unit = UNITS.find(([, size]) => Math.abs(seconds) >= size);
    element.textContent = unit ? words.format(Math.trunc(seconds / unit[1]), unit[0]) : "just now";
  }
}

// --- addresses: where this index is, is known here

function showAddresses() {
  for (const element of document.querySelectorAll("[data-url]")) {
    const url = new URL(element.dataset.url || ".", location.href);
    url.search = url.hash = "";
    element.textContent = url.href;
  }
}

// --- copying

async function copy(button) {
  const text = button.parentElement.querySelector("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure connection browsers keep the clipboard to themselves: the old way still works.
    const field = made("textarea", text, { class: "away", "aria-hidden": "true" });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  button.textContent = "Copied";
  button.classList.add("done");
  tell(`Copied ${button.getAttribute("aria-label").replace(/^Copy /, "")}`);
  setTimeout(() => {
    button.textContent = "Copy";
    button.classList.remove("done");
  }, 1600);
}

function showCopying() {
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
}

// --- search; the same rules as builder/site/search.py

let indexed = null;

function load(form) {
  indexed ||= new Promise((resolve, reject) => {
    globalThis.sparkIndex = resolve;
    const script = made("script", undefined, { src: form.dataset.index });
    script.addEventListener("error", reject);
    document.head.append(script);
  });
  return indexed;
}

function score([kind, title, text, , ...keys], wanted) {
  const name = title.toLowerCase().replaceAll("_", "-");
  const all = `${name} ${text.toLowerCase()}`;
  const late = kind === "package" || kind === "channel" ? 0 : 1;
  let worst = 0;
  for (const word of wanted) {
    const plain = word.replaceAll("_", "-");
    let found;
    if (name === plain) found = late;
    else if (name.startsWith(plain)) found = 1 + late;
    else if (all.includes(plain)) found = 2 + late;
    else if (word.length >= 4 && keys.some((key) => key.startsWith(word))) found = 0;
    else return null;
    worst = Math.max(worst, found);
  }
  return worst;
}

function search(rows, query, limit) {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return [];
  return rows
    .map((row, at) => [score(row, wanted), at, row])
    .filter(([points]) => points !== null)
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .slice(0, limit)
    .map(([, , row]) => row);
}

function target(form, folder) {
  return `${form.dataset.root}${folder.split("/").map(encodeURIComponent).join("/")}index.html`;
}

function suggest(form, input) {
  const list = made("ul", undefined, { class: "suggest", role: "listbox", id: "suggest", "aria-label": "Suggestions" });
  list.hidden = true;
  form.append(list);
  for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-controls", "suggest"], ["aria-expanded", "false"]]) {
    input.setAttribute(name, value);
  }
  let active = -1;

  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (number) => {
    const options = [...list.children];
    if (!options.length) return;
    active = (number + options.length + 1) % (options.length + 1);
    options.forEach((option, at) => option.setAttribute("aria-selected", String(at === active)));
    if (active < options.length) input.setAttribute("aria-activedescendant", options[active].id);
    else input.removeAttribute("aria-activedescendant");
  };
  const show = async () => {
    const query = input.value.trim();
    if (!query) return close();
    let rows;
    try {
      rows = search(await load(form), query, 8);
    } catch {
      return close();
    }
    if (query !== input.value.trim()) return;
    list.replaceChildren(
      ...rows.map(([kind, title, text, folder], at) => {
        const option = made("li", undefined, { role: "option", id: `suggest-${at}`, "aria-selected": "false" });
        option.append(made("span", `${title} ${text}`), made("span", kind));
        option.dataset.to = target(form, folder);
        return option;
      }),
    );
    active = rows.length;
    list.hidden = !rows.length;
    input.setAttribute("aria-expanded", String(rows.length > 0));
    input.removeAttribute("aria-activedescendant");
    tell(rows.length ? `${rows.length} suggestion${rows.length === 1 ? "" : "s"}` : "No suggestions");
  };

  input.addEventListener("focus", () => load(form).catch(() => {}), { once: true });
  input.addEventListener("input", show);
  input.addEventListener("blur", () => setTimeout(close, 150));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !list.hidden) {
      close();
      event.preventDefault();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden) return;
      choose(active + (event.key === "ArrowDown" ? 1 : -1));
      event.preventDefault();
    } else if (event.key === "Enter" && !list.hidden && list.children[active]) {
      location.href = list.children[active].dataset.to;
      event.preventDefault();
    }
  });
  list.addEventListener("pointerdown", (event) => {
    const option = event.target.closest("[data-to]");
    if (option) location.href = option.dataset.to;
  });
  document.addEventListener("keydown", (event) => {
    const busy = /^(input|textarea|select)$/i.test(event.target.tagName ?? "");
    if (event.key === "/" && !busy && !event.ctrlKey && !event.metaKey && !event.altKey) {
      input.focus();
      event.preventDefault();
    }
  });
}

async function showFound(form, input) {
  const place = $("found");
  const query = new URLSearchParams(location.search).get("q")?.trim();
  if (!place || !query || "query" in place.dataset) return; // a server has answered already
  input.value = query;
  let rows;
  try {
    rows = search(await load(form), query, 50);
  } catch {
    return;
  }
  const told = rows.length ? `${rows.length} result${rows.length === 1 ? "" : "s"} for “${query}”` : `Nothing is called “${query}”.`;
  const list = made("ul", undefined, { class: "list small" });
  for (const [kind, title, text, folder] of rows) {
    const link = made("a", undefined, { href: target(form, folder) });
    link.append(made("b", title), ` ${text}`);
    const item = made("li");
    const line = made("div", undefined, { class: "title" });
    line.append(link);
    item.append(line, made("div", kind, { class: "about kind" }));
    list.append(item);
  }
  const back = made("p", "Names of packages, versions, and the start of a fingerprint or sha256 are looked for. ");
  back.append(made("a", "All packages", { href: target(form, "") }));
  document.querySelector("h1").textContent = told;
  place.replaceChildren(...(rows.length ? [list] : []), back);
  place.hidden = false;
  $("main").classList.add("searching");
  tell(told);
}

// --- a build that runs

function bytes(size) {
  let value = size;
  let unit = "B";
  for (const larger of ["KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1000) break;
    value /= 1024;
    unit = larger;
  }
  return `${unit === "B" || value >= 100 ? value.toFixed(0) : value.toFixed(1)}\u00a0${unit}`;
}

function duration(ms) {
  const seconds = ms / 1000;
  if (seconds < 10) return seconds < 1 ? `${ms}\u00a0ms` : `${seconds.toFixed(1)}\u00a0s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole}\u00a0s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}\u00a0min${whole % 60 ? `\u00a0${two(whole % 60)}\u00a0s` : ""}`;
  return `${Math.floor(whole / 3600)}\u00a0h\u00a0${two(Math.floor((whole % 3600) / 60))}\u00a0min`;
}

function put(id, text) {
  const element = $(id);
  if (element && element.textContent !== text) element.textContent = text;
}

function mark(kind, word, sign) {
  const element = made("span", undefined, { class: `mark ${kind}` });
  element.append(made("span", sign, { "aria-hidden": "true" }), ` ${word}`);
  return element;
}

const SIGNS = { ok: ["ok", "done", "✓"], cached: ["ok", "done", "✓"], failed: ["failed", "failed", "✗"], interrupted: ["interrupted", "interrupted", "–"] };
const LINES = 400;

class Follower {
  constructor() {
    this.tail = $("tail");
    this.lines = [];
    this.due = false;
    this.body = document.querySelector("#phases tbody");
  }

  take(event) {
    switch (event.kind) {
      case "phase.started": return this.started(event);
      case "phase.ended": return this.ended(event);
      case "phase.printed": return this.printed(event);
      case "gate.state": return this.state(event);
      case "note": return event.level === "warning" ? tell(event.text) : undefined;
      default: return undefined;
    }
  }

  started(event) {
    put("now-phase", event.output ? `${event.phase} ${event.output}` : event.phase);
    const row = made("tr");
    const state = made("td");
    state.append(mark("running", "running", "●"));
    row.append(made("th", event.output ? `${event.phase} ${event.output}` : event.phase, { scope: "row" }), state, made("td", "", { class: "num" }), made("td", ""));
    this.body?.append(row);
    tell(`Phase ${event.phase}`);
  }

  ended(event) {
    const row = this.body?.lastElementChild;
    if (!row) return;
    const [, state, took, says] = row.children;
    state.replaceChildren(mark(...(SIGNS[event.status] ?? ["", event.status, "?"])));
    took.textContent = duration(event.ms);
    says.textContent = event.text;
  }

  state(event) {
    const progress = $("now-progress");
    if (progress && event.edges) {
      progress.max = event.edges;
      progress.value = event.done;
      put("now-steps", `${event.done.toLocaleString("en")} of ${event.edges.toLocaleString("en")} steps`);
    }
    put("now-jobs", `${event.jobs} of ${event.slots}`);
    put("now-memory", `${bytes(event.used_bytes)} of ${bytes(event.ceiling_bytes)}`);
    put("now-waiting", String(event.waiting));
    $("now-running")?.replaceChildren(
      ...event.running.map(([name, used]) => {
        const item = made("li");
        item.append(made("code", name), ` ${bytes(used)}`);
        return item;
      }),
    );
  }

  printed({ phase, text }) {
    // What stood there when the page was made is in the tail, too.
    const old = document.querySelector(`pre[data-phase="${CSS.escape(phase)}"]`)?.closest("details");
    if (old) old.hidden = true;
    this.lines.push(text);
    if (this.lines.length > LINES) this.lines.splice(0, this.lines.length - LINES);
    if (this.due || !this.tail) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      const below = this.tail.scrollHeight - this.tail.scrollTop - this.tail.clientHeight < 40;
      this.tail.hidden = false;
      this.tail.textContent = this.lines.join("\n");
      if (below) this.tail.scrollTop = this.tail.scrollHeight;
    });
  }
}

function follow(url) {
  if (location.protocol === "file:") return;
  const source = new EventSource(url);
  const follower = new Follower();
  source.addEventListener("open", () => put("now-still", "Followed as it happens."));
  source.addEventListener("error", () => put("now-still", "The connection is lost; trying again."));
  source.addEventListener("message", (message) => follower.take(JSON.parse(message.data)));
  source.addEventListener("end", () => {
    source.close();
    tell("The build has ended");
    put("now-still", "The build has ended.");
    setTimeout(() => location.reload(), 800); // the page of an ended build has more to say
  });
}

showAges();
setInterval(showAges, 60000);
showAddresses();
showCopying();
const form = document.querySelector("form[role=search]");
suggest(form, $("q"));
showFound(form, $("q"));
const live = $("main").dataset.live;
if (live) follow(live);
