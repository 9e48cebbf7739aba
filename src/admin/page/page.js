"use strict";
// The page: asks every two seconds, shows what it was told, and goes on drawing between two answers.

const EVERY = 2000;
const page = {
  status: null, history: null,
  /** The server's time at the latest answer, and this machine's clock then. */
  told: 0, heard: 0, answered: true, silentSince: null,
  span: null, utc: false, timer: 0, cards: new Map(),
  now() { return this.told + (performance.now() - this.heard); },
  /** The end of a route's runway. */
  end(route) { return this.told + route.runway_seconds * 1000; },
};
const byId = (id) => document.getElementById(id);

async function ask(path) {
  const reply = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
  return reply.json();
}

async function poll() {
  try {
    page.timer = 0;
    const [status, history] = await Promise.all([ask("status"), ask("history")]);
    Object.assign(page, { status, history, told: Date.parse(history.now), heard: performance.now(), answered: true, silentSince: null });
  } catch {
    page.answered = false;
    page.silentSince ??= page.told ? page.now() : Date.now();
  }
  show();
  page.timer = setTimeout(poll, document.visibilityState === "visible" ? EVERY : 10 * EVERY);
}

/** Of the spans the shortest that shows what is held from its begin, and the hour. */
function spanOfChoice() {
  if (page.span) return page.span;
  const begins = page.history.routes.flatMap((route) => route.generations.map((life) => Date.parse(life.issued_at)));
  const age = (page.now() - Math.min(page.now(), ...begins)) / 60000;
  return age < 4 ? 5 : age < 12 ? 15 : 60;
}

function show() {
  document.body.classList.toggle("stale", !page.answered);
  if (!page.history) {
    const verdict = page.answered ? ["idle", "Asking …", ""] : ["bad", "leasehold does not answer", "This page tries again every two seconds."];
    return showVerdict(...verdict);
  }
  const { status } = page;
  byId("process").textContent = `${status.version} · ${status.state}`;
  showVerdict(...verdict(status));
  const minutes = spanOfChoice();
  for (const input of document.querySelectorAll("input[name=span]")) input.checked = Number(input.value) === minutes;
  showVault(minutes);
  showRoutes(minutes);
  showStory();
}

/** What somebody wants to know first, by its tone: the sentence, and the one below. */
function verdict(status) {
  const at = (time) => clock(time, page.utc, page.now());
  if (!page.answered) return ["bad", `leasehold has not answered since ${at(page.silentSince)}`, "Below is what it said last. Is it still running? This page asks again every two seconds."];
  if (status.state === "draining") return ["warn", "leasehold is shutting down", "Open sessions go on until they end, or until the shutdown's time is over."];
  const out = status.routes.filter((route) => !route.ready && !sleeps(route));
  if (out.length) {
    const [first] = out;
    const names = out.map((route) => route.name).join(", ");
    const why = errorOf(first) ? `${out.length > 1 ? `${first.name}: ` : ""}${errorOf(first).reason}` : "No credential has been issued yet.";
    const vault = status.vault.reachable ? "" : `${vaultWords(status.vault)[1]}. `;
    return ["bad", `${names}: no new session can log in`, vault + why];
  }
  const ends = status.routes.filter((route) => route.runway_seconds !== null).sort((one, other) => one.runway_seconds - other.runway_seconds);
  const until = ends.length ? `If Vault never answered again: until ${at(page.end(ends[0]))}, for ${span(page.end(ends[0]) - page.now())}${ends.length > 1 ? ` (${ends[0].name})` : ""}.` : "";
  if (!status.vault.reachable && status.vault.trouble !== "not asked yet") return ["warn", `Served, but ${vaultWords(status.vault)[1]}`, until];
  // What could not be given back lapses by itself, and endangers nobody's session.
  const troubled = status.routes.find((route) => errorOf(route) && !errorOf(route).past && !errorOf(route).kind.startsWith("revoke"));
  if (troubled) return ["warn", `Served, with a failure on ${troubled.name}`, `${errorOf(troubled).reason}. ${until}`];
  const all = status.routes.length === 1 ? `${status.routes[0].name} is served` : `All ${status.routes.length} routes are served`;
  return ["good", all, until];
}

/** What matters most of what went wrong: why there is no fresh credential, why no server gives sessions, else the latest error. */
function errorOf(route) {
  return route.credential_error || route.upstream_error || route.last_error;
}

function sleeps(route) {
  return route.runway_seconds === null && route.kind === "dynamic" && !route.generations.length;
}

function showVerdict(tone, title, below) {
  const section = byId("verdict");
  section.className = `verdict ${tone}`;
  // A screen reader says it again only where it has changed; the seconds of the line below are not for it.
  if (section.dataset.title !== tone + title) {
    section.dataset.title = tone + title;
    section.replaceChildren(sign(tone), el("div", {}, el("h2", {}, title), el("p", { "aria-live": "off" })));
  }
  const paragraph = section.querySelector("p");
  if (paragraph.textContent !== below) paragraph.textContent = below;
  document.title = `${tone === "good" ? "" : tone === "warn" ? "! " : "× "}leasehold: ${title}`;
}

function vaultWords(vault) {
  const state = vault.reachable ? "serving" : vault.trouble || "unreachable";
  return VAULT[state] || ["bad", `Vault: ${state}`];
}

function badge(tone, words) {
  return el("span", { class: `badge ${tone}` }, sign(tone), words);
}

function showVault(minutes) {
  const section = byId("vault");
  const { vault } = page.status;
  const scale = new Scale(page.now(), minutes, Math.max(280, section.clientWidth - 2 * parseFloat(getComputedStyle(section).paddingLeft)));
  const [tone, words] = vaultWords(vault);
  const success = vault.last_success ? `last success ${span(page.now() - Date.parse(vault.last_success))} ago` : vault.trouble === "not asked yet" ? "" : "no success yet";
  section.replaceChildren(
    el("div", { class: "head" }, badge(tone, words), el("span", { class: "mono" }, vault.addr), el("span", { class: "soft" }, success)),
    el("figure", {}, vaultLine(page.history.vault, scale, page.utc)),
  );
}

function showRoutes(minutes) {
  const routes = byId("routes");
  const names = new Set(page.status.routes.map((route) => route.name));
  for (const [name, card] of page.cards) {
    if (!names.has(name)) {
      card.section.remove();
      page.cards.delete(name);
    }
  }
  for (const route of page.status.routes) {
    const history = page.history.routes.find((known) => known.name === route.name);
    if (!history) continue;
    let card = page.cards.get(route.name);
    if (!card) {
      card = new Card(route.name);
      page.cards.set(route.name, card);
      routes.append(card.section);
    }
    card.show(route, history, minutes);
  }
}

/** What is shown of one route. */
class Card {
  constructor(name) {
    this.name = name;
    this.chart = new RouteChart((number) => {
      this.number = number;
      this.tellDetail();
    });
    this.head = el("div", { class: "head" });
    this.facts = el("dl", { class: "facts" });
    this.error = el("p", { class: "error" });
    this.figure = el("figure", {}, this.chart.svg);
    this.detail = el("p", { class: "detail", "aria-live": "polite" });
    this.table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Credentials of ${name}` });
    this.more = el("details", {}, el("summary", {}, "The same as a table"), this.table);
    this.section = el("section", { class: "card", "aria-label": `Route ${name}` }, this.head, this.facts, this.error, this.figure, this.detail, this.more);
  }

  show(route, history, minutes) {
    this.route = route;
    this.history = history;
    const now = page.now();
    const tone = route.ready ? "good" : sleeps(route) ? "idle" : "bad";
    const words = route.ready ? "served" : sleeps(route) ? "idle: no session needs it" : "not served";
    this.head.replaceChildren(el("h2", {}, route.name), badge(tone, words), el("span", { class: "mono" }, route.vault_path));
    this.facts.replaceChildren(...this.tellFacts(route, now).map(([term, value, small]) => el("div", {}, el("dt", {}, term), el("dd", {}, value, small && el("small", {}, ` ${small}`)))));
    const error = errorOf(route);
    this.error.hidden = !error;
    this.error.className = error && error.past ? "error past" : "error";
    this.error.textContent = error ? `${error.past ? "past: " : ""}${error.reason} (${clock(Date.parse(error.at), page.utc, now)})` : "";
    const scale = new Scale(now, minutes, Math.max(280, this.figure.clientWidth));
    this.chart.show(route, history, scale, page.utc, `Credentials of ${route.name} over time`);
    this.tellDetail();
    if (this.more.open || !this.table.firstChild) this.table.replaceChildren(this.tabulate());
  }

  tellFacts(route, now) {
    const at = (text) => clock(Date.parse(text), page.utc, now);
    const facts = [];
    if (route.runway_seconds !== null) {
      const end = page.end(route);
      facts.push(["served even without Vault until", route.runway_seconds ? clock(end, page.utc, now) : "–", route.runway_seconds ? span(end - now) : ""]);
    }
    facts.push(["sessions", String(route.sessions), ""]);
    if (NEXT[route.next_action] && route.next_action_at) {
      const left = Date.parse(route.next_action_at) - now;
      facts.push(["next", NEXT[route.next_action], left > 500 ? `in ${span(left)}` : "now"]);
    }
    const last = this.history.generations.filter((life) => life.published_at).at(-1);
    if (last && last.generation > 1) facts.push(["last rotation", at(last.published_at), REASONS[last.reason] || ""]);
    return facts;
  }

  tellDetail() {
    const lives = this.history.generations;
    const life = lives.find((life) => life.generation === this.number) || lives.find((life) => life.state === "current") || lives.at(-1);
    if (!life) return this.detail.replaceChildren();
    const at = (text) => clock(Date.parse(text), page.utc, page.now());
    const parts = [el("b", {}, `Generation ${life.generation}, ${life.state}`), ` · ${life.username} · lease …${life.lease_id} · issued ${at(life.issued_at)}`];
    if (life.published_at) parts.push(`, ${life.proved === false ? "published without a proof" : "proved and published"} ${at(life.published_at)}`);
    if (life.reason) parts.push(` (${REASONS[life.reason] || life.reason})`);
    if (life.renewals) parts.push(` · renewed ${life.renewals === 1 ? "once" : `${life.renewals} times`}`);
    if (life.retired_at) parts.push(` · retired ${at(life.retired_at)}`);
    if (life.drain_at) parts.push(` · drain window from ${at(life.drain_at)}`);
    if (life.closed_at) parts.push(` · closed ${at(life.closed_at)}`);
    if (life.gone_at) parts.push(` · gone ${at(life.gone_at)}${life.outcome ? `: ${OUTCOMES[life.outcome] || life.outcome}` : ""}`);
    else if (life.ends_at) parts.push(` · ends ${at(life.ends_at)}${life.state === "current" ? " unless renewed" : ""} · ${plural(life.sessions, "session")}`);
    const text = parts.map((part) => part.textContent ?? part).join("");
    if (this.detail.textContent !== text) this.detail.replaceChildren(...parts);
  }

  tabulate() {
    const at = (text) => (text ? clock(Date.parse(text), page.utc, page.now()) : "");
    const columns = ["generation", "state", "role", "issued", "published", "reason", "renewals", "retired", "drains from", "ends", "gone", "sessions"];
    const rows = [...this.history.generations].reverse().map((life) => el("tr", {},
      el("th", { scope: "row" }, String(life.generation)),
      ...[life.state, life.username, at(life.issued_at), at(life.published_at), life.reason || "", String(life.renewals), at(life.retired_at), at(life.drain_at), at(life.ends_at), at(life.gone_at), String(life.sessions)].map((text) => el("td", {}, text))));
    return el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows));
  }
}

/** Renewals one after the other are one line; so are closes of a cause in neighbouring bins. */
function stories() {
  const list = [];
  for (const route of page.history.routes) {
    const renewals = new Map();
    const short = blinks(route.events);
    let asked = null;
    for (const event of route.events) {
      // Asked for again and again, until it comes.
      if (event.kind === "issuing" && asked && asked.word === event.word) {
        Object.assign(asked, { at: Date.parse(event.at), count: asked.count + 1, words: `${tell(event)[2]} (${asked.count + 1} times)` });
        continue;
      }
      if (event.kind === "renewed") {
        const known = renewals.get(event.generation);
        if (known) {
          known.count += 1;
          known.at = Date.parse(event.at);
          known.words = `generation ${event.generation} was renewed ${known.count} times, for ${span(event.ttl_seconds * 1000)} each`;
          continue;
        }
      }
      const told = tell(event);
      if (!told || short.has(event)) continue;
      const [shape, tone, words] = told;
      const story = { at: Date.parse(event.last_at || event.at), route: route.name, shape, tone, words, count: 1 };
      if (event.kind === "renewed") renewals.set(event.generation, story);
      if (event.kind === "issuing") asked = Object.assign(story, { word: event.word });
      if (event.kind.startsWith("published")) asked = null;
      list.push(story);
    }
    list.push(...closeStories(route));
  }
  page.history.vault.forEach((change, place) => {
    const [tone, words] = VAULT[change.state] || ["idle", change.state];
    if (place || tone !== "good") list.push({ at: Date.parse(change.at), route: "", shape: tone, tone, words });
  });
  return list.sort((one, other) => other.at - one.at);
}

/** Outages of less than a second: between two credentials, or at the start. */
function blinks(events) {
  const list = new Set();
  let out = null;
  for (const event of events) {
    if (event.kind === "unserved") out = event;
    if (event.kind === "served" && out && Date.parse(event.at) - Date.parse(out.at) < 1000) list.add(out).add(event);
  }
  return list;
}

function closeStories(route) {
  const { bins } = route, list = [], step = bins.seconds * 1000;
  for (const [cause, counts] of Object.entries(bins.closed)) {
    const [words, tone] = CAUSES[cause] || [cause, "warn"];
    // The first end by themselves; of the others an event tells.
    if (["client", "upstream", "lease_end", "revoked"].includes(cause)) continue;
    let run = null;
    counts.forEach((count, place) => {
      if (!count) return;
      if (!run || place - run.place > 2) list.push(run = { route: route.name, shape: "close", tone, count: 0 });
      run.count += count;
      run.place = place;
      run.at = Math.min(page.now(), Date.parse(bins.from) + (place + 1) * step);
      run.words = `${plural(run.count, "session")} ${words}`;
    });
  }
  return list;
}

const MOST_STORIES = 120;

function showStory() {
  const list = stories().slice(0, MOST_STORIES);
  byId("story-none").hidden = list.length > 0;
  const several = page.status.routes.length > 1;
  const key = JSON.stringify([list.map(({ at, words }) => [Math.round(at / 1000), words]), page.utc, several]);
  if (page.storyKey === key) return;
  page.storyKey = key;
  byId("story-list").replaceChildren(...list.map((story) => el("li", {},
    el("time", { datetime: new Date(story.at).toISOString() }, clock(story.at, page.utc, page.now())),
    el("span", { class: story.tone }, sign(story.shape)),
    el("span", {}, several && story.route && el("span", { class: "route" }, `${story.route} `), el("span", { class: story.tone === "quiet" ? "note" : "" }, story.words)))));
}

/** The signs, each as it is drawn. */
function showLegend() {
  const swatch = (kind) => rect(kind, 1, 25, 2, 12);
  const signs = [
    [swatch("seg proving"), "issued, not yet proved"], [swatch("seg current"), "current: new sessions log in with it"],
    [swatch("seg retiring"), "retiring: its sessions go on"], [swatch("seg drain"), "drain window: idle sessions are closed"],
    [draw("g", { class: "future" }, swatch("seg current")), "to come, if Vault never answers again"],
    [rect("density", 1, 25, 8, 6), "sessions on it"], [draw("path", { class: "publish", d: "M13 0l6 8-6 8-6-8z" }), "proved and published"],
    [rect("renewal", 12, 14, 4, 8), "renewed"], [draw("circle", { class: "cap", cx: 13, cy: 8, r: 3.5 }), "given back"],
    [draw("path", { class: "cap stays", d: "M9 4l8 8m0-8l-8 8" }), "left to lapse"], [draw("path", { class: "cap lost", d: lostSign(13, 8) }), "lost or revoked before its end"], [swatch("out"), "no usable credential"],
    [swatch("close client"), "sessions that ended by themselves"], [swatch("close drain"), "drained"], [swatch("close lease_end"), "closed at the lease's end"],
    [swatch("close lease_end_cut"), "cut in a message"], [swatch("close revoked"), "closed as revoked"], [swatch("close error"), "ended by a fault"],
    [draw("path", { class: "failure", d: "M9 12h8l-4-7z" }), "logins failed"],
  ];
  byId("signs").replaceChildren(...signs.map(([shape, words]) => el("li", {}, draw("svg", { viewBox: "0 0 26 16", "aria-hidden": "true" }, shape), words)));
}

/** The view is in the address, so that it can be kept and sent on: #15, #60utc. */
function readView() {
  const match = location.hash.match(/^#?(5|15|60)?(utc)?$/);
  if (!match) return;
  const [, minutes, utc] = match;
  page.span = minutes ? Number(minutes) : null;
  page.utc = Boolean(utc);
  byId("view").elements.utc.checked = page.utc;
}

byId("view").addEventListener("change", (event) => {
  const form = byId("view").elements;
  if (event.target.name === "span") page.span = Number(form.span.value);
  page.utc = form.utc.checked;
  history.replaceState(null, "", `#${page.span || ""}${page.utc ? "utc" : ""}`);
  show();
});
byId("view").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => { readView(); show(); });
addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !page.timer) return;
  clearTimeout(page.timer);
  page.timer = 0;
  poll();
});
addEventListener("resize", () => show());
setInterval(() => { if (document.visibilityState === "visible" && page.history) show(); }, 1000);
byId("zone").hidden = new Date().getTimezoneOffset() === 0;
readView();
showLegend();
show();
poll();
