"use strict";
// Words and elements: how times, spans and events are said. Everything shown is put in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element of HTML with attributes and children; a child that is no element becomes text. */
function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
function draw(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A sign of 16 by 16: a shape for each state, so that none needs its colour. */
const SHAPES = {
  good: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM6.9 11.4 3.6 8.1l1.2-1.2 2.1 2.1 4.3-4.3 1.2 1.2z",
  warn: "M8 1 .6 14.5h14.8zM7.1 6h1.8v4.4H7.1zm0 5.4h1.8v1.7H7.1z",
  bad: "M5 1h6l4 4v6l-4 4H5l-4-4V5zM5.6 4.4 4.4 5.6 6.8 8l-2.4 2.4 1.2 1.2L8 9.2l2.4 2.4 1.2-1.2L9.2 8l2.4-2.4-1.2-1.2L8 6.8z",
  idle: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM4 7.1h8v1.8H4z",
  publish: "M8 2l5 6-5 6-5-6z",
  renew: "M7 3h2v10H7z",
  close: "M3 4h10v2.5H3zM5 8h6v2.2H5zM7 12h2v2H7z",
  gone: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zm0 1.8a3.7 3.7 0 1 1 0 7.4 3.7 3.7 0 0 1 0-7.4z",
};

function sign(shape) {
  const path = draw("path", { d: SHAPES[shape] || SHAPES.idle, "fill-rule": "evenodd", fill: "currentColor" });
  return draw("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, path);
}

/** 0.4 s, 12 s, 3 min 20 s, 1 h 5 min, 2 d 3 h. */
function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first < 0) return "0 s";
  const [length, unit] = parts[first];
  const text = `${Math.floor(seconds / length)} ${unit}`;
  const next = parts[first + 1];
  const rest = next ? Math.floor((seconds % length) / next[0]) : 0;
  return rest ? `${text} ${rest} ${next[1]}` : text;
}

const clocks = {};

/** The time of day, with the date where it is another day than `today`. */
function clock(time, utc, today, seconds = true) {
  const zone = utc ? "UTC" : undefined;
  const make = (name, options) => (clocks[name + zone] ||= new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }));
  const day = make("day", { day: "numeric", month: "short" });
  const hour = make(`hour${seconds}`, { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hourCycle: "h23" });
  const text = hour.format(time);
  return today !== undefined && day.format(time) !== day.format(today) ? `${day.format(time)} ${text}` : text;
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** Why a credential was issued. */
const REASONS = {
  first: "the first one",
  schedule: "due by the schedule",
  capped: "the lease cannot be renewed in full",
  not_renewable: "the lease cannot be renewed",
  token: "the token ends",
  revoked: "the lease was gone",
  refused: "the server refused the credential before",
  command: "asked for",
  reload: "the configuration changed",
  taken_up: "taken up from the process before",
  standby: "ahead of need",
};

/** Why sessions ended, with what a reader should think of it. */
const CAUSES = {
  client: ["closed by their client", "quiet"],
  upstream: ["closed by the server", "quiet"],
  drain: ["drained between transactions", "quiet"],
  lease_end: ["closed at the end of the lease", "warn"],
  lease_end_cut: ["cut at the end of the lease, in the middle of a message", "bad"],
  revoked: ["closed as the credential was revoked or lost", "warn"],
  shutdown: ["closed by the shutdown", "quiet"],
  error: ["ended by a fault of the protocol or a socket", "warn"],
};

/** How a lease was given back. */
const OUTCOMES = {
  lease: "its lease is revoked",
  token: "its lease is revoked, with its token",
  unverified: "its token is revoked; whether the lease went with it was not seen",
  stays: "its token is revoked, but the lease is still there",
  forbidden: "its lease may not be revoked and lapses",
  failed: "its lease could not be revoked and lapses",
};

const NEXT = {
  renew: "renews", rotate: "rotates", issue: "asks for a credential", prove: "tries its credential", read: "reads the password",
  drain: "drains", end: "closes sessions",
};

/** What an event says: its sign, its tone, its sentence. `null`: it is drawn, and not told. */
function tell(event) {
  const it = `generation ${event.generation}`;
  switch (event.kind) {
    case "issuing": return ["renew", "quiet", `a fresh credential is asked for: ${REASONS[event.word] || event.word}`];
    case "published": return ["publish", "good", `${it} was proved and published: ${REASONS[event.word] || event.word}`];
    case "published_unproved": return ["publish", "warn", `${it} was published without a proof, as no server could be asked: ${REASONS[event.word] || event.word}`];
    case "stands_by": return ["publish", "quiet", `${it} was proved, and stands by`];
    case "renewed": return ["renew", "quiet", `${it} was renewed for ${span(event.ttl_seconds * 1000)}`];
    case "renewed_capped": return ["renew", "quiet", `${it} was renewed for the last time, for ${span(event.ttl_seconds * 1000)}`];
    case "token_ending": return ["renew", "quiet", "the token is not renewed again; what it owns ends with it"];
    case "token_of_no_use": return ["warn", "warn", "the token ends too soon for a fresh credential"];
    case "lost": return ["bad", "bad", `${it} lost its lease before the end`];
    case "too_short": return ["bad", "bad", `${it} came with a lease too short to be of use`];
    case "refused": return ["bad", "bad", `${it} is accepted by no server and was given back`];
    case "not_taken_up": return ["warn", "warn", `${it}, of the process before, is accepted by no server`];
    case "closing": return event.sessions ? ["close", "warn", `${it} ends: ${plural(event.sessions, "session")} ${(CAUSES[event.word] || [event.word])[0]}`] : null;
    case "returned": {
      const tone = ["lease", "token", "unverified"].includes(event.word) ? "quiet" : "warn";
      return ["gone", tone, `${it} has gone: ${OUTCOMES[event.word] || event.word}`];
    }
    case "recalled": return ["warn", "warn", `${it} serves new sessions again, as its successor is gone`];
    case "wanted_again": return ["publish", "quiet", `${it} serves new sessions again`];
    case "failed": return ["warn", "warn", event.line + (event.count > 1 ? ` (${event.count} times)` : "")];
    case "unserved": return ["bad", "bad", "no usable credential: new sessions wait"];
    case "served": return ["good", "good", "new sessions find a credential again"];
    default: return ["idle", "quiet", [event.kind, event.generation && it, event.word].filter(Boolean).join(" ")];
  }
}

const VAULT = {
  serving: ["good", "Vault serves"],
  sealed: ["bad", "Vault is sealed"],
  "not serving": ["bad", "Vault does not serve: no leader, or not initialized"],
  unreachable: ["bad", "Vault cannot be reached"],
  "not asked yet": ["idle", "Vault was not asked yet"],
};
