"use strict";
// Draws /state four times a second and posts what is clicked to /act. No library, no state of its own but
// the last minute of samples.

const $ = (id) => document.getElementById(id);
const WINDOW_MS = 60_000;
const SLOW_US = 100_000;
const NOTICED_MS = 30;
const stacked = matchMedia("(max-width: 1060px)"); // as in page.css
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let state = null;      // the last document
let next = 0;          // the first sample not seen yet
let samples = [];      // [sent_ms, took_us or -1]
let clock = 0;         // performance.now() at server time 0
const announced = new Set();

/** An element with attributes and children; `on…` are listeners. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Puts text where it differs, so that a selection or a screen reader is not disturbed. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const number = new Intl.NumberFormat("en");
const plural = (count, word) => `${number.format(count)} ${word}${count === 1 ? "" : "s"}`;
const span = (ms) => ms < 10_000 ? `${number.format(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
const noticed = (row) => row.outage_ms >= NOTICED_MS || row.failed > 0;

// ---- acts ----------------------------------------------------------------------------------------

async function act(target, action) {
  try {
    const answer = await fetch("/act", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ target, action }),
    });
    const done = await answer.json();
    if (answer.ok) return done;
    say(done.error);
  } catch {
    say("The demo does not answer.");
  }
  return null;
}

function say(text) {
  put($("live"), text);
  const banner = $("banner");
  put(banner, text);
  banner.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { banner.hidden = true; }, 5000);
}

/** A button that does `action` to `target`. Its label says the whole of it to who cannot see where it stands. */
function actButton(text, label, target, action, kind = "") {
  return make("button", { type: "button", class: `act ${kind}`, "aria-label": label, "data-key": `${target} ${action}`,
    onclick: () => act(target, action) }, text);
}

// ---- the stage -----------------------------------------------------------------------------------

/** Replaces a column's cards when what they show has changed, and keeps the focus where it was. */
function redraw(column, key, cards) {
  if (column.dataset.key === key) return;
  column.dataset.key = key;
  const focused = column.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  column.replaceChildren(...cards());
  if (focused) [...column.querySelectorAll("button")].find((b) => b.dataset.key === focused)?.focus();
}

function balancerState(balancer) {
  if (!balancer.linked) return "cable pulled";
  if (balancer.stopping) return "handing over and draining";
  if (!balancer.running) return "Relais does not run";
  if (state.mode === "loopback") return state.holder === balancer.name ? "serves" : "stands by";
  if (state.holder === balancer.name) return "holds the address";
  if (balancer.state === "fault") return "out of the election";
  return balancer.state ? "stands by" : "its vip process restarts";
}

const KILLS = { supervisor: "kill-supervisor", proxy: "kill-worker", vip: "kill-vip", control: "kill-control" };

function balancerCard(balancer) {
  const { name, running, linked } = balancer;
  const cabled = state.mode === "network";
  const process = (one) => {
    const wait = one.pid && !one.ready;
    const why = one.pid ? (wait ? "starting" : "runs") : "dead";
    return make("li", {}, make("button", {
      type: "button", class: "process", disabled: !one.pid, "data-key": `${name} ${one.role}`,
      "aria-label": `${one.role} of ${name}, ${why}${one.pid ? `, process ${one.pid}: kill it` : ""}`,
      onclick: () => act(name, KILLS[one.role]),
    },
      make("span", { class: `dot ${one.pid ? (wait ? "wait" : "") : "off"}` }),
      make("span", {}, one.role),
      one.restarts ? make("span", { class: "again", title: "times started again" }, `↻${one.restarts}`) : null,
      make("span", { class: "id" }, one.pid ? String(one.pid) : "dead")));
  };
  const holds = state.holder === name;
  return make("article", { class: `card balancer ${holds ? "holds" : ""} ${running && linked ? "" : "down"}`, id: name },
    make("div", { class: "card-head" }, make("h3", {}, name), make("span", { class: "where" }, balancer.address),
      cabled ? make("span", { class: "slot", id: `slot-${name}` }) : null),
    make("p", { class: "state", title: balancer.reason },
      make("b", {}, balancerState(balancer)), make("span", { class: "rate" }, "")),
    make("ul", { class: "processes" }, ...balancer.processes.map(process)),
    make("div", { class: "acts" },
      running
        ? actButton("Kill all", `Kill every Relais process of ${name}`, name, "kill-all")
        : actButton("Start Relais", `Start Relais on ${name}`, name, "start", "revive"),
      !cabled ? null : linked
        ? actButton("Pull the cable", `Pull the network cable of ${name}`, name, "cut-link")
        : actButton("Plug it in", `Plug in the network cable of ${name}`, name, "mend-link", "revive"),
      running ? actButton("Stop", `Planned stop of ${name}`, name, "stop", "calm") : null,
      running ? actButton("Reload", `Reload the plan of ${name}`, name, "reload", "calm") : null));
}

function serverCard(server) {
  const { name, linked } = server;
  const instance = (one) => make("li", { class: "instance", id: one.name },
    make("span", { class: `dot ${one.running && linked ? (one.up ? "" : "wait") : "off"}` }),
    make("b", {}, one.name),
    make("span", { class: "about", title: one.check }, ""),
    one.running
      ? actButton("Kill", `Kill the instance ${one.name}`, one.name, "kill")
      : actButton("Start", `Start the instance ${one.name}`, one.name, "start", "revive"));
  return make("article", { class: `card server ${linked ? "" : "down"}`, id: name },
    make("div", { class: "card-head" }, make("h3", {}, name),
      make("span", { class: "where" }, linked ? "application server" : "cable pulled"),
      state.mode !== "network" ? null : linked
        ? actButton("Pull the cable", `Pull the network cable of ${name}`, name, "cut-link")
        : actButton("Plug it in", `Plug in the network cable of ${name}`, name, "mend-link", "revive")),
    make("ul", { class: "instances" }, ...server.instances.map(instance)));
}

function instanceAbout(one, linked) {
  if (!one.running) return "dead";
  if (!one.up) return linked ? "coming up" : "out of reach";
  return `${one.rate} req/s`;
}

function drawStage() {
  // Rates change always: the cards are made again only when something else does.
  const still = (value) => JSON.stringify(value, (name, v) => ["rate", "check", "generation"].includes(name) ? 0 : v);
  const holder = state.holder ?? "";
  redraw($("balancers"), still(state.balancers) + holder, () => state.balancers.map(balancerCard));
  redraw($("servers"), still(state.servers), () => state.servers.map(serverCard));
  for (const balancer of state.balancers) {
    put($(balancer.name).querySelector(".rate"), balancer.rate ? `${number.format(balancer.rate)} req/s` : "");
  }
  for (const server of state.servers) {
    for (const one of server.instances) put($(one.name).querySelector(".about"), instanceAbout(one, server.linked));
  }
  put($("requests"), number.format(state.client.requests));
  put($("failures"), number.format(state.client.failed));
  $("failures").classList.toggle("bad", state.client.failed > 0);
  $("stage").setAttribute("aria-busy", "false");
  placeAddress();
  drawWires();
}

/** A box inside the stage. */
function box(element) {
  const stage = $("stage").getBoundingClientRect();
  const b = element.getBoundingClientRect();
  return { left: b.left - stage.left, right: b.right - stage.left, top: b.top - stage.top, bottom: b.bottom - stage.top,
    x: (b.left + b.right) / 2 - stage.left, y: (b.top + b.bottom) / 2 - stage.top };
}

function placeAddress() {
  const chip = $("address");
  chip.hidden = state.mode !== "network";
  if (chip.hidden) return;
  const slots = state.balancers.map((b) => $(`slot-${b.name}`)).filter(Boolean).map(box);
  const own = state.holder && $(`slot-${state.holder}`);
  const middle = (edge) => slots.reduce((sum, slot) => sum + slot[edge], 0) / slots.length;
  const at = own ? box(own) : { left: middle("left"), top: middle("top") };
  chip.style.transform = `translate(${at.left}px, ${at.top}px)`;
  chip.style.width = own ? `${box(own).right - at.left}px` : "";
  chip.classList.toggle("nobody", !own);
  put($("address-text"), own ? state.address : "nobody has it");
}

/** A wire from the side of one box to the facing side of another. */
function wire(from, to) {
  if (!stacked.matches) {
    const bend = (to.left - from.right) / 2;
    return `M${from.right} ${from.y}C${from.right + bend} ${from.y} ${to.left - bend} ${to.y} ${to.left} ${to.y}`;
  }
  const bend = (to.top - from.bottom) / 2;
  return `M${from.x} ${from.bottom}C${from.x} ${from.bottom + bend} ${to.x} ${to.top - bend} ${to.x} ${to.top}`;
}

function drawWires() {
  const wires = [];
  const client = box($("client"));
  const troubled = state.client.troubled;
  for (const balancer of state.balancers) {
    const here = box($(balancer.name));
    const holds = state.holder === balancer.name;
    wires.push([balancer.linked ? (holds ? "base" : "idle") : "cut", wire(client, here)]);
    if (holds) wires.push([troubled ? "flow troubled" : "flow", wire(client, here)]);
    for (const server of state.servers) {
      const there = box($(server.name));
      const linked = balancer.linked && server.linked;
      const serves = holds && linked && server.instances.some((one) => one.up && one.running);
      wires.push([linked ? (serves ? "base" : "idle") : "cut", wire(here, there)]);
      if (serves && !troubled) wires.push(["flow", wire(here, there)]);
    }
  }
  const svg = $("wires");
  // The same paths stay, so that what flows does not start anew with each look.
  while (svg.children.length > wires.length) svg.lastChild.remove();
  while (svg.children.length < wires.length) svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  wires.forEach(([kind, d], i) => {
    const path = svg.children[i];
    if (path.getAttribute("class") !== kind) path.setAttribute("class", kind);
    if (path.getAttribute("d") !== d) path.setAttribute("d", d);
  });
}

// ---- the strip -----------------------------------------------------------------------------------

/** Height of a latency: a logarithm from 0.2 ms at the bottom to 5 s at the top. */
const height = (us) => Math.min(1, Math.max(.03, Math.log(us / 200) / Math.log(5_000_000 / 200)));

const SCALE = [[1_000, "1 ms"], [10_000, "10 ms"], [100_000, "100 ms"], [1_000_000, "1 s"]];

function drawStrip() {
  const canvas = $("strip");
  const ratio = devicePixelRatio || 1;
  const [width, tall] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(tall * ratio)) canvas.height = Math.round(tall * ratio);
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const [go, slow, bad, line, soft] = ["--go", "--slow", "--bad", "--line", "--soft"].map(colour);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, tall);
  pen.font = "11px system-ui, sans-serif";

  const [left, top, bottom] = [44, 14, tall - 16];
  const y = (us) => bottom - height(us) * (bottom - top);
  pen.lineWidth = 1;
  for (const [us, name] of SCALE) {
    pen.fillStyle = soft;
    pen.fillText(name, 0, y(us) + 4);
    pen.strokeStyle = line;
    pen.beginPath(); pen.moveTo(left, y(us) + .5); pen.lineTo(width, y(us) + .5); pen.stroke();
  }
  // A little behind, so that the last second's answers are there when their column comes in.
  const now = performance.now() - clock - 400;
  const x = (ms) => width - (now - ms) / WINDOW_MS * (width - left);
  const columns = new Map(); // of each pixel: the slowest answer, and whether one failed
  for (const [sent, took] of samples) {
    const at = Math.floor(x(sent));
    if (at < left || at > width) continue;
    const column = columns.get(at) ?? [0, false];
    if (took < 0) column[1] = true; else column[0] = Math.max(column[0], took);
    columns.set(at, column);
  }
  for (const [at, [took, failed]] of columns) {
    pen.fillStyle = failed ? bad : took > SLOW_US ? slow : go;
    const from = failed ? top : y(took);
    pen.fillRect(at, from, 1, bottom - from);
  }
  let right = width;
  for (const row of [...state.rows].reverse()) {
    const at = Math.round(x(row.at_ms));
    if (at < left || at > width) continue;
    if (row.outage_ms >= NOTICED_MS) {
      pen.fillStyle = bad;
      pen.fillRect(at, bottom + 1, Math.max(2, row.outage_ms / WINDOW_MS * (width - left)), 4);
    }
    pen.fillStyle = soft;
    pen.fillRect(at, 3, 1, bottom - 3);
    const cost = row.kind === "revive" ? "revived" : span(row.outage_ms);
    const fits = [`${row.target} ${cost}`, cost].find((text) => at + 8 + pen.measureText(text).width < right);
    if (fits) pen.fillText(fits, at + 4, 11);
    right = at;
  }
  pen.fillStyle = soft;
  pen.fillText("a minute ago", left, tall - 3);
  const label = "now";
  pen.fillText(label, width - pen.measureText(label).width, tall - 3);
}

// ---- rows ----------------------------------------------------------------------------------------

function drawRows() {
  const rows = [...state.rows].reverse();
  $("empty").hidden = rows.length > 0;
  const list = $("rows");
  const old = new Map([...list.children].map((element) => [element.dataset.id, element]));
  list.replaceChildren(...rows.map((row) => {
    const key = JSON.stringify(row);
    const element = old.get(String(row.id));
    return element?.dataset.key === key ? element : rowElement(row, key);
  }));
  for (const row of rows.filter((one) => one.done && !announced.has(one.id))) {
    announced.add(row.id);
    put($("live"), `${row.what}. ${sentence(row)}`);
  }
}

const verdict = (row) => noticed(row)
  ? `${span(row.outage_ms)} without an answer, ${plural(row.failed, "failed request")}`
  : "no client noticed";
const sentence = (row) => `${row.target}: ${[verdict(row), row.then].filter(Boolean).join("; ")}.`;

function rowElement(row, key) {
  const cost = row.failed > 0 || row.outage_ms >= 1000 ? "bad" : row.outage_ms >= 300 ? "slow" : "";
  const bar = make("i");
  // A logarithm: 10 ms is a tenth, 10 s is all.
  bar.style.width = `${Math.min(100, Math.max(3, Math.log10(Math.max(1, row.outage_ms)) * 25))}%`;
  const minutes = Math.floor(row.at_ms / 60_000);
  const seconds = String(Math.floor(row.at_ms / 1000) % 60).padStart(2, "0");
  const then = row.then || (row.done ? "" : "measuring…");
  return make("li", { class: `row ${row.kind} ${row.done ? "" : "open"}`, "data-id": row.id, "data-key": key },
    make("span", { class: "when" }, `${minutes}:${seconds}`),
    make("span", { class: "what" }, make("b", {}, row.target), ` ${row.what}`, make("span", { class: "then" }, then)),
    make("span", { class: `cost ${cost}` }, make("b", {}, span(row.outage_ms)), make("span", { class: "bar" }, bar)),
    make("span", { class: `failed ${row.failed ? "bad" : ""}` }, `${number.format(row.failed)} failed`,
      make("small", {}, `slowest ${span(row.slowest_ms)}`)));
}

function drawEnrolments() {
  const seen = state.enrolments;
  put($("lost"), number.format(seen.lost));
  $("lost").classList.toggle("bad", seen.lost > 0);
  put($("acknowledged"), number.format(seen.acknowledged));
  put($("stored"), number.format(seen.in_store));
  put($("twice"), number.format(seen.twice));
  $("twice").classList.toggle("bad", seen.twice > 0);
  put($("again"), number.format(seen.tried_again));
  put($("wait"), span(seen.longest_wait_ms));
}

// ---- the tour ------------------------------------------------------------------------------------

const STEPS = [
  { title: "The proxy is killed",
    text: "SIGKILL to the process that carries all traffic. Its supervisor keeps the listening sockets open, so clients wait in the kernel’s queue for the moment a new one takes to start.",
    target: "holder", action: "kill-worker" },
  { title: "An application instance is killed",
    text: "One of four. What it had not answered yet and may be asked twice goes to another instance; health checks keep the dead one out.",
    target: "tomcat1-1", action: "kill", revive: "start" },
  { title: "A balancer’s cable is pulled",
    text: "The whole machine is gone from the network and can tell nobody. The other balancer hears no advertisement, takes the address and announces it.",
    target: "holder", action: "cut-link", revive: "mend-link", network: true },
  { title: "Every process of a balancer is killed",
    text: "Supervisor, proxy, vip, control: all SIGKILLed at once, with no goodbye. Its address is a lease in the kernel, so it does not stay behind on a dead machine.",
    target: "holder", action: "kill-all", revive: "start" },
  { title: "An application server loses its cable",
    text: "Half of the instances are out of reach at once. The balancer tries others first and asks them no more until they answer again.",
    target: "tomcat2", action: "cut-link", revive: "mend-link", network: true },
  { title: "A planned stop",
    text: "SIGTERM, as before maintenance. The holder hands the address over first, then lets its clients finish. Nothing may fail here.",
    target: "holder", action: "stop", revive: "start" },
  { title: "A new plan",
    text: "SIGHUP: the file is read again, checked, and swapped in every process without dropping a connection.",
    target: "holder", action: "reload" },
];

const tour = { running: false, skip: null };
const pause = (ms) => new Promise((resolve) => {
  const begun = performance.now();
  const bar = $("tour-progress");
  const done = () => { clearInterval(timer); tour.skip = null; bar.style.width = "0"; resolve(); };
  const timer = setInterval(() => {
    const part = (performance.now() - begun) / ms;
    bar.style.width = `${Math.min(100, part * 100)}%`;
    if (part >= 1) done();
  }, 50);
  tour.skip = done;
});

/** The row of this id once its figures are final, or `null` when the tour is over or it never comes. */
async function closed(id) {
  for (let looks = 0; tour.running && looks < 200; looks += 1) {
    const row = state?.rows.find((one) => one.id === id);
    if (row?.done) return row;
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
  return null;
}

/** Waits until what was killed or stopped is dead, or cut off: a planned stop lets its clients finish. */
async function stopped(target) {
  const alive = () => state.balancers.some((one) => one.name === target && one.running && one.linked);
  for (let looks = 0; tour.running && alive() && looks < 150; looks += 1) {
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}

async function takeTour() {
  tour.running = true;
  $("tour-card").hidden = false;
  $("tour-next").hidden = false;
  put($("tour-stop"), "End the tour");
  $("tour-next").focus({ preventScroll: true });
  const steps = STEPS.filter((step) => !step.network || state.mode === "network");
  for (const [i, step] of steps.entries()) {
    if (!tour.running) return;
    put($("tour-count"), `${i + 1} of ${steps.length}`);
    put($("tour-title"), step.title);
    put($("tour-text"), step.text);
    put($("tour-result"), "");
    await pause(6000);
    if (!tour.running) return;
    put($("tour-result"), "measuring…");
    const done = await act(step.target, step.action);
    const row = done && await closed(done.row);
    if (!tour.running) return;
    put($("tour-result"), row ? sentence(row) : "");
    await pause(5000);
    if (done && step.revive) {
      await stopped(done.target);
      const revived = tour.running && await act(done.target, step.revive);
      if (revived) await closed(revived.row);
    }
  }
  if (!tour.running) return;
  const { client, enrolments } = state;
  put($("tour-count"), "The end");
  put($("tour-title"), enrolments.lost === 0 ? "Nothing was lost" : `${plural(enrolments.lost, "enrolment")} lost`);
  put($("tour-text"), `${plural(client.requests, "request")}, ${number.format(client.failed)} failed. ${plural(enrolments.acknowledged, "receipt")}, and every one of them is in the store. Now break it yourself.`);
  put($("tour-result"), "");
  $("tour-next").hidden = true;
  put($("tour-stop"), "Close");
  $("tour-stop").focus({ preventScroll: true });
}

function endTour() {
  tour.running = false;
  tour.skip?.();
  $("tour-card").hidden = true;
  $("tour").focus();
}

$("tour").addEventListener("click", () => { if (!tour.running && state) takeTour(); });
$("tour-stop").addEventListener("click", endTour);
$("tour-next").addEventListener("click", () => tour.skip?.());
addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("tour-card").hidden) endTour(); });

// ---- looking -------------------------------------------------------------------------------------

async function look() {
  try {
    const answer = await fetch(`/state?after=${next}`);
    if (!answer.ok) throw new Error(answer.statusText);
    state = await answer.json();
  } catch {
    put($("banner"), "The demo has ended, or does not answer.");
    $("banner").hidden = false;
    look.lost = true;
    setTimeout(look, 1000);
    return;
  }
  if (look.lost) { look.lost = false; $("banner").hidden = true; }
  if (state.next < next) samples = []; // another demo, on the same port
  next = state.next;
  const heard = performance.now() - state.now_ms;
  clock = clock === 0 || Math.abs(heard - clock) > 500 ? heard : clock + (heard - clock) * .05;
  for (let i = 0; i < state.samples.length; i += 2) samples.push([state.samples[i], state.samples[i + 1]]);
  const oldest = state.now_ms - WINDOW_MS - 1000;
  const keep = samples.findIndex(([sent]) => sent >= oldest);
  if (keep > 0) samples.splice(0, keep);
  $("platform").href = state.platform_url;
  if (state.mode === "loopback") {
    put($("intro"), "This machine allows no network of our own, so the platform runs on loopback addresses: everything but the virtual address that moves from one balancer to the other.");
  }
  drawStage();
  drawRows();
  drawEnrolments();
  if (calm.matches || document.hidden) drawStrip();
  setTimeout(look, 250);
}

let drawn = 0;
function frame(at) {
  if (state && !calm.matches && at - drawn > 40) {
    drawn = at;
    drawStrip();
  }
  requestAnimationFrame(frame);
}

addEventListener("resize", () => { if (state) drawStage(); });
look();
requestAnimationFrame(frame);
