"use strict";
// The time lines. A chart keeps one element a generation, so that the focus stays where it is when time goes on.

const LANE = 36;
const BAR = 27;
/** The lower part of a bar, for its sessions; its words are above. */
const DENSE = 12;
const TOP = 26;
const CLOSES = 34;
const AXIS = 20;
const time = (text) => (text ? Date.parse(text) : null);

/** Where times are across: half as much to come as is past. */
class Scale {
  constructor(now, minutes, width) {
    this.now = now;
    this.from = now - minutes * 60000;
    this.to = now + minutes * 30000;
    this.width = width;
    this.minutes = minutes;
  }

  x(at) {
    return ((at - this.from) / (this.to - this.from)) * this.width;
  }

  /** Within what is shown, and a little over its edges. */
  inside(at) {
    return Math.min(this.width + 8, Math.max(-8, this.x(at)));
  }

  /** Full minutes, as many as have room. */
  ticks() {
    const steps = [1, 2, 5, 10, 15, 30].map((minutes) => minutes * 60000);
    const step = steps.find((step) => this.x(this.from + step) > 62) || steps[steps.length - 1];
    const ticks = [];
    for (let at = Math.ceil(this.from / step) * step; at <= this.to; at += step) ticks.push(at);
    return ticks;
  }
}

function rect(kind, from, to, y, height) {
  return draw("rect", { class: kind, x: from.toFixed(1), y, width: Math.max(0.8, to - from).toFixed(1), height });
}

function line(kind, x1, y1, x2, y2) {
  return draw("line", { class: kind, x1: x1.toFixed(1), y1, x2: x2.toFixed(1), y2 });
}

/** The lines behind, and the words of the axis below `height`. */
function ground(scale, height, utc) {
  const parts = [];
  for (const at of scale.ticks()) {
    const x = scale.x(at);
    parts.push(line("grid", x, 0, x, height));
    if (x > 22 && x < scale.width - 22) {
      parts.push(draw("text", { x: x.toFixed(1), y: height + 14, "text-anchor": "middle" }, clock(at, utc, undefined, false)));
    }
  }
  parts.push(line("base", 0, height, scale.width, height));
  return parts;
}

/** The phases of a generation, each from one time to another; what is to come too. */
function phases(life, now) {
  const gone = time(life.gone_at), end = time(life.ends_at), closed = time(life.closed_at);
  const issued = time(life.issued_at), published = time(life.published_at), retired = time(life.retired_at);
  const last = gone || closed || end || Infinity;
  const served = life.state === "candidate" || life.state === "standby" ? null : published;
  const draining = retired && life.drain_at ? Math.min(last, Math.max(retired, time(life.drain_at))) : last;
  const list = [["proving", issued, served || Math.min(last, gone || now)]];
  if (served) {
    list.push(["current", served, Math.min(last, retired || last)]);
    if (retired) list.push(["retiring", retired, draining], ["drain", draining, last]);
  }
  if (closed) list.push([life.closed_cause === "revoked" ? "lost" : "ending", closed, gone || now]);
  return list.filter(([, from, to]) => to > from);
}

/** The generations that are to be seen, each in a lane in which it overlaps no other. */
function lanes(lives, scale) {
  const ends = [];
  const placed = [];
  for (const life of lives) {
    const to = time(life.gone_at) || Math.max(scale.now, time(life.ends_at) || Infinity);
    const from = time(life.issued_at);
    if (to < scale.from) continue;
    let lane = ends.findIndex((end) => end <= scale.x(from) - 3);
    if (lane < 0) lane = ends.push(0) - 1;
    ends[lane] = scale.x(to);
    placed.push([life, lane]);
  }
  return [placed, Math.max(1, ends.length)];
}

/** How many sessions a generation had, as an area inside of its bar. */
function density(life, scale, seconds, most, y) {
  if (!life.density || !most) return null;
  const from = time(life.density.from), step = seconds * 1000;
  const last = time(life.closed_at) || time(life.gone_at) || scale.now;
  const bottom = y + BAR - 1, tall = DENSE;
  let path = "";
  life.density.sessions.forEach((sessions, place) => {
    const begin = Math.max(from + place * step, time(life.issued_at)), end = Math.min(begin + step, from + (place + 1) * step, last);
    if (!sessions || end <= scale.from || end <= begin) return;
    const x = scale.inside(begin).toFixed(1), top = (bottom - Math.max(1.5, (sessions / most) * tall)).toFixed(1);
    path += `M${x} ${bottom}V${top}H${(scale.inside(end) + 0.3).toFixed(1)}V${bottom}Z`;
  });
  return path && draw("path", { class: "density", d: path });
}

function lostSign(x, y) {
  return `M${(x - 5.5).toFixed(1)} ${y - 5.5}h11v11h-11zm2.5 2.5l6 6m0-6l-6 6`;
}

/** A generation's bar. */
function bar(life, lane, scale, renewals, seconds, most) {
  const y = TOP + lane * LANE + 4;
  const parts = [], coming = draw("g", { class: "future" });
  for (const [kind, from, to] of phases(life, scale.now)) {
    if (to < scale.from || from > scale.to) continue;
    const split = Math.min(to, scale.now);
    if (split > from) parts.push(rect(`seg ${kind}`, scale.inside(from), scale.inside(split), y, BAR));
    if (to > scale.now) coming.append(rect(`seg ${kind}`, scale.inside(Math.max(from, scale.now)), scale.inside(to), y, BAR));
  }
  parts.push(coming, density(life, scale, seconds, most, y));
  for (const at of renewals) {
    if (at >= scale.from) parts.push(rect("renewal", scale.x(at) - 1, scale.x(at) + 1, y - 5, 6));
  }
  const published = time(life.published_at), gone = time(life.gone_at);
  if (published && published >= scale.from) {
    const x = scale.x(published), middle = y + BAR / 2;
    parts.push(draw("path", { class: "publish", d: `M${x.toFixed(1)} ${middle - 8}l6 8-6 8-6-8z` }));
  }
  if (gone && gone >= scale.from) {
    const stays = ["stays", "forbidden", "failed"].includes(life.outcome);
    const x = scale.x(gone), middle = y + BAR / 2;
    if (life.closed_cause === "revoked") parts.push(draw("path", { class: "cap lost", d: lostSign(x, middle) }));
    else parts.push(stays
      ? draw("path", { class: "cap stays", d: `M${x - 4} ${middle - 4}l8 8m0-8l-8 8` })
      : draw("circle", { class: "cap", cx: x.toFixed(1), cy: middle, r: 3.5 }));
  }
  const left = Math.max(0, scale.x(published || time(life.issued_at))), right = Math.min(scale.width, scale.x(gone || time(life.ends_at) || scale.to));
  if (right - left > 44) {
    const words = right - left > 150 && !gone ? `${life.generation} · ${plural(life.sessions, "session")}` : `${life.generation}`;
    parts.push(draw("text", { class: "strong", x: (left + 11).toFixed(1), y: y + 11.5 }, words));
  }
  const begin = Math.max(1, scale.inside(time(life.issued_at))), end = Math.min(scale.width - 1, scale.inside(gone || time(life.ends_at) || scale.to));
  parts.push(draw("rect", { class: "ring", x: begin - 2, y: y - 3, width: Math.max(12, end - begin + 4), height: BAR + 6, rx: 5 }));
  // A finger needs more room than a bar that was short.
  parts.push(draw("rect", { fill: "transparent", x: begin - 4, y: y - 4, width: Math.max(20, end - begin + 8), height: BAR + 8 }));
  return parts.filter(Boolean);
}

/** When no usable credential was there: from one time to another, or until now. */
function outages(history, now) {
  const list = [];
  for (const event of history.events) {
    if (event.kind === "unserved") list.push([time(event.at), now]);
    if (event.kind === "served" && list.length) list[list.length - 1][1] = time(event.at);
  }
  return list;
}

/** The ends of sessions and the failed logins, stacked by cause. Several bins share a column where they would be too thin. */
function closes(bins, since, scale, y) {
  const from = time(bins.from), step = bins.seconds * 1000;
  const causes = Object.keys(CAUSES).filter((cause) => bins.closed[cause]);
  const merged = Math.max(1, Math.ceil(5 / (scale.x(scale.from + step) || 1)));
  const columns = new Map();
  bins.opened.forEach((_, place) => {
    const key = Math.floor((from / step + place) / merged);
    const column = columns.get(key) || { counts: {}, failures: 0, all: 0 };
    for (const cause of causes) {
      const count = bins.closed[cause][place];
      column.counts[cause] = (column.counts[cause] || 0) + count;
      column.all += count;
    }
    column.failures += bins.login_failures[place];
    columns.set(key, column);
  });
  const shown = [...columns].filter(([key]) => (key + 1) * merged * step > scale.from);
  const most = Math.max(4, ...shown.map(([, column]) => column.all));
  const parts = [];
  for (const [key, column] of shown) {
    const left = Math.max(scale.inside(key * merged * step), scale.inside(since)), right = Math.min(scale.inside((key + 1) * merged * step), scale.x(scale.now));
    let top = y;
    for (const cause of causes) {
      if (!column.counts[cause]) continue;
      const height = Math.max(2.5, (column.counts[cause] / most) * (CLOSES - 8));
      parts.push(rect(`close ${cause}`, left + 0.5, right - 0.5, top, height.toFixed(1)));
      top += height;
    }
    if (column.failures) {
      const x = (left + right) / 2;
      parts.push(draw("path", { class: "failure", d: `M${(x - 4).toFixed(1)} ${y + CLOSES - 1}h8l-4-7z` }));
    }
  }
  return parts;
}

/** How long credentials last if nothing answers any more. */
function runway(route, scale) {
  if (route.runway_seconds === null) return [];
  if (!route.runway_seconds) return [];
  const end = Math.max(scale.now, page.end(route)), from = scale.x(scale.now), to = scale.x(end);
  const beyond = end > scale.to, edge = Math.min(to, scale.width - 1);
  const head = beyond ? `M${edge} 12l-6-4v8z` : `M${edge - 1} 7v10h2v-10z`;
  const text = span(end - scale.now), room = scale.width - edge > text.length * 6.5 + 12;
  return [
    line("runway", from, 12, edge, 12),
    draw("path", { class: "runway-end", d: head }),
    draw("text", room
      ? { class: "halo strong", x: (edge + 6).toFixed(1), y: 16 }
      : { class: "halo strong", x: ((from + edge) / 2).toFixed(1), y: 16, "text-anchor": "middle" }, text),
  ];
}

/** The chart of one route, in a figure. `choose(generation)` is called when one is reached. */
class RouteChart {
  constructor(choose) {
    this.back = draw("g", { "aria-hidden": "true" });
    this.bars = draw("g", {});
    this.front = draw("g", { "aria-hidden": "true" });
    this.svg = draw("svg", { role: "group" }, this.back, this.bars, this.front);
    this.lives = new Map();
    this.chosen = null;
    this.choose = choose;
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  show(route, history, scale, utc, name) {
    const [placed, count] = lanes(history.generations, scale);
    const height = TOP + count * LANE + 6, whole = height + CLOSES;
    this.svg.setAttribute("viewBox", `0 0 ${scale.width} ${whole + AXIS}`);
    this.svg.setAttribute("height", whole + AXIS);
    this.svg.setAttribute("aria-label", name);
    this.behind(history, scale, whole, height, utc);
    this.generations(placed, history, scale);
    const x = scale.x(scale.now);
    this.front.replaceChildren(
      ...runway(route, scale), line("now", x, 4, x, whole),
      draw("text", { class: "halo strong", x: (x - 6).toFixed(1), y: 16, "text-anchor": "end" }, `now ${clock(scale.now, utc)}`),
    );
  }

  behind(history, scale, whole, height, utc) {
    const parts = [];
    const since = time(history.since);
    if (since > scale.from) {
      parts.push(rect("before", 0, scale.inside(since), 0, whole));
      const room = scale.inside(since);
      if (room > 130) parts.push(draw("text", { class: "halo", x: 4, y: height - 4 }, "before this process"));
    }
    parts.push(...ground(scale, whole, utc));
    for (const [from, to] of outages(history, scale.now)) {
      if (to >= scale.from && to - from > 500) parts.push(rect("out", scale.inside(from), scale.inside(to), 0, whole));
    }
    parts.push(line("base", 0, height, scale.width, height), ...closes(history.bins, since, scale, height + 1));
    this.back.replaceChildren(...parts);
  }

  generations(placed, history, scale) {
    const most = Math.max(0, ...history.generations.map((life) => Math.max(0, ...(life.density ? life.density.sessions : []))));
    const renewals = new Map();
    for (const event of history.events) {
      if (event.kind.startsWith("renewed")) renewals.set(event.generation, [...(renewals.get(event.generation) || []), time(event.at)]);
    }
    const seen = new Set(placed.map(([life]) => life.generation));
    for (const [number, element] of this.lives) {
      if (!seen.has(number)) {
        element.remove();
        this.lives.delete(number);
      }
    }
    for (const [life, lane] of placed) {
      const element = this.lives.get(life.generation) || this.life(life.generation);
      element.setAttribute("aria-label", describe(life));
      element.replaceChildren(...bar(life, lane, scale, renewals.get(life.generation) || [], history.bins.seconds, most));
    }
    const numbers = [...this.lives.keys()].sort((one, other) => one - other);
    if (!numbers.includes(this.chosen)) this.chosen = null;
    const current = placed.map(([life]) => life).find((life) => life.state === "current");
    const entry = this.chosen ?? (current ? current.generation : numbers[numbers.length - 1]);
    for (const [number, element] of this.lives) {
      element.setAttribute("tabindex", number === entry ? "0" : "-1");
      element.classList.toggle("chosen", number === this.chosen);
    }
  }

  life(number) {
    const element = draw("g", { class: "life", role: "img", tabindex: "-1", "data-generation": number });
    element.addEventListener("focus", () => this.pick(number));
    element.addEventListener("click", () => this.pick(number));
    this.lives.set(number, element);
    // In the order of the numbers, whatever the lanes.
    const after = [...this.lives.keys()].filter((other) => other > number).sort((one, other) => one - other)[0];
    this.bars.insertBefore(element, after === undefined ? null : this.lives.get(after));
    return element;
  }

  pick(number) {
    this.chosen = number;
    for (const [other, element] of this.lives) element.classList.toggle("chosen", other === number);
    this.choose(number);
  }

  key(event) {
    const numbers = [...this.lives.keys()].sort((one, other) => one - other);
    const at = numbers.indexOf(Number(event.target.dataset && event.target.dataset.generation));
    const to = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: numbers.length - 1 }[event.key];
    const element = this.lives.get(numbers[to]);
    if (at < 0 || !element) return;
    event.preventDefault();
    element.setAttribute("tabindex", "0");
    element.focus();
  }
}

/** A generation in one line, for those who hear the page. */
function describe(life) {
  const parts = [`Generation ${life.generation}, ${life.state}`, plural(life.sessions, "session")];
  if (life.state !== "gone" && life.ends_at) parts.push(`ends ${clock(time(life.ends_at), page.utc, page.now())}`);
  return parts.join(", ");
}

/** The state of Vault over time. */
function vaultLine(changes, scale, utc) {
  const height = 16;
  const parts = [...ground(scale, height, utc)];
  changes.forEach((change, place) => {
    const from = time(change.at), to = place + 1 < changes.length ? time(changes[place + 1].at) : scale.now;
    if (to < scale.from) return;
    const good = change.state === "serving";
    parts.push(rect(`vault ${change.state.replace(" ", "-")}`, scale.inside(from), scale.inside(to), good ? 6 : 1, good ? 4 : 14));
  });
  const x = scale.x(scale.now);
  parts.push(line("now", x, 0, x, height));
  return draw("svg", { viewBox: `0 0 ${scale.width} ${height + AXIS}`, height: height + AXIS, "aria-hidden": "true" }, ...parts);
}
