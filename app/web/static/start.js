import { readHeader } from "/static/header.js";
import { show } from "/static/problem.js";
import { preflight, showProposal } from "/static/proposal.js";
import { upload as sendInParts } from "/static/upload.js";

const form = document.getElementById("convert");
const [file, drop, chosen, found] = ["file", "drop", "chosen", "found"].map((id) => document.getElementById(id));
const [name, names, summary] = ["architecture", "names", "summary"].map((id) => document.getElementById(id));
const [upload, told, problem] = ["upload", "told", "problem"].map((id) => document.getElementById(id));
const schemas = JSON.parse(document.getElementById("schemas").textContent);
let described = null, known = false;

// --- forms made from JSON Schema ---------------------------------------------------------------------------------

const typeOf = (rule) => rule.type ?? (rule.anyOf ?? []).map((each) => each.type ?? (each.enum || each.const ? "enum" : null)).find((type) => type && type !== "null") ?? "json";

// Every admitted value of a rule that admits a few; null for others.
function choices(rule) {
  if (rule.enum) return rule.enum;
  if ("const" in rule) return [rule.const];
  if (rule.type === "boolean") return [true, false];
  const parts = (rule.anyOf ?? []).filter((each) => each.type !== "null").map(choices);
  return parts.length && parts.every(Boolean) ? parts.flat() : null;
}

const shown = (value) => typeof value === "string" ? value : JSON.stringify(value);

function checkboxes(option, rule) {
  const set = document.createElement("fieldset"), legend = document.createElement("legend");
  legend.textContent = option.replaceAll("_", " ");
  set.append(legend);
  set.dataset.list = option;
  for (const value of rule.items.enum) {
    const label = document.createElement("label"), box = document.createElement("input");
    label.className = "choice";
    box.type = "checkbox";
    box.value = value;
    label.append(box, ` ${value}`);
    set.append(label);
  }
  return set;
}

function field(option, rule, prefix) {
  if (rule.type === "array" && rule.items?.enum) return checkboxes(option, rule);
  const label = document.createElement("label");
  const id = `${prefix}-${option}`;
  label.htmlFor = id;
  label.textContent = option.replaceAll("_", " ");
  const admitted = choices(rule);
  const control = document.createElement(admitted ? "select" : "input");
  control.id = id;
  control.dataset.option = option;
  control.dataset.type = typeOf(rule);
  if (admitted) {
    const usual = rule.default === undefined || rule.default === null ? "default" : `default: ${shown(rule.default)}`;
    control.add(new Option(usual, ""));
    for (const value of admitted) control.add(new Option(shown(value), JSON.stringify(value)));
  }
  else {
    control.placeholder = rule.default === undefined || rule.default === null ? "default" : shown(rule.default);
    if (["integer", "number"].includes(control.dataset.type)) control.inputMode = "decimal";
  }
  label.append(control);
  if (rule.description) { const words = document.createElement("small"); words.textContent = rule.description; label.append(words); }
  return label;
}

function fill(details, schema, prefix) {
  const properties = Object.entries(schema?.properties ?? {});
  details.hidden = properties.length === 0;
  details.querySelector(".fields").replaceChildren(...properties.map(([option, rule]) => field(option, rule, prefix)));
}

function given(details) {
  const values = {};
  for (const control of details.querySelectorAll("[data-option]")) {
    const text = control.value.trim();
    if (text === "") continue;
    if (control.dataset.type === "array" && !text.startsWith("[")) values[control.dataset.option] = text.split(",").map((each) => each.trim());
    else if (control.tagName !== "SELECT" && control.dataset.type === "string") values[control.dataset.option] = text;
    else try { values[control.dataset.option] = JSON.parse(text); } catch { values[control.dataset.option] = text; }
  }
  for (const set of details.querySelectorAll("[data-list]")) {
    const chosen = [...set.querySelectorAll(":checked")].map((box) => box.value);
    if (chosen.length) values[set.dataset.list] = chosen;
  }
  return values;
}

const architectureOptions = document.getElementById("architecture-options");
const targetOptions = document.getElementById("target-options");
const target = () => form.querySelector("[name=target]:checked").value;
const showTarget = () => fill(targetOptions, schemas[target()], "target");
for (const each of form.querySelectorAll("[name=target]")) each.addEventListener("change", () => { showTarget(); propose(); });
showTarget();

// --- the architecture ----------------------------------------------------------------------------------------------

let searching = 0;
async function search() {
  const turn = ++searching;
  const answer = await fetch(`/v1/architectures?limit=40&query=${encodeURIComponent(name.value.replaceAll("/", " "))}`);
  if (turn !== searching || !answer.ok) return;
  names.replaceChildren(...(await answer.json()).items.map((item) => new Option(item.summary, item.name)));
}

async function describe() {
  const asked = name.value.trim();
  if (asked === "" || described === asked) return;
  described = asked;
  const answer = await fetch(`/v1/architectures/${asked.split("/").map(encodeURIComponent).join("/")}`);
  const told = await answer.json();
  if (described !== asked) return;
  known = answer.ok;
  summary.textContent = answer.ok ? told.summary : told.detail;
  fill(architectureOptions, answer.ok ? told.options_schema : null, "architecture");
  propose();
}

let pause;
name.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(search, 150); });
name.addEventListener("change", describe);
name.value = new URLSearchParams(location.search).get("architecture") ?? name.value;
describe();

// --- the file ------------------------------------------------------------------------------------------------------

function choose() {
  const picked = file.files[0];
  if (!picked) return;
  const heading = document.createElement("b");
  heading.textContent = picked.name;
  chosen.replaceChildren(heading, ` (${(picked.size / 1e6).toFixed(1)} MB)`);
  look(picked);
}

const LISTED = 300;
const counted = (number) => number.toLocaleString("en").replaceAll(",", "\u202f");
let header = null; // of the chosen file: what readHeader gave

// What is in the file, read here before anything is sent.
async function look(picked) {
  header = null;
  found.hidden = true;
  propose();
  let told = null;
  try { told = await readHeader(picked); } catch { /* the service says what is wrong with it */ }
  if (file.files[0] !== picked) return;
  header = told;
  if (!told) return;
  const tensors = [...told.tensors];
  const elements = tensors.reduce((sum, [, { shape }]) => sum + shape.reduce((size, each) => size * each, 1), 0);
  const types = [...new Set(tensors.map(([, { dtype }]) => dtype))].join(", ");
  const line = document.createElement("p");
  line.textContent = `It holds ${counted(tensors.length)} tensors with ${counted(elements)} numbers (${types})${told.path.length ? `, under ${told.path.join(" → ")}` : ""}.`;
  const details = document.createElement("details"), summaryOf = document.createElement("summary"), list = document.createElement("pre");
  summaryOf.textContent = "Names and shapes";
  list.tabIndex = 0;
  list.textContent = tensors.slice(0, LISTED).map(([name, { dtype, shape }]) => `${name}  ${dtype} [${shape.join(", ")}]`).join("\n") + (tensors.length > LISTED ? `\n… ${tensors.length - LISTED} more` : "");
  details.append(summaryOf, list);
  found.replaceChildren(line, details);
  found.hidden = false;
  propose();
}

// --- what the service makes of it ------------------------------------------------------------------------------------

const proposal = document.getElementById("proposal");
let proposing = 0;

async function propose() {
  const turn = ++proposing;
  proposal.hidden = true;
  if (!header) return;
  const told = await preflight(header, file.files[0].name, known ? name.value.trim() : "", given(architectureOptions));
  if (told && turn === proposing) showProposal(proposal, told, target(), take);
}

async function take(chosen) {
  name.value = chosen.architecture;
  await describe();
  for (const [option, value] of Object.entries(chosen.architecture_options)) put(architectureOptions, option, value);
  if (chosen.prefix !== null) put(targetOptions, "prefix", chosen.prefix);
  await propose();
  name.focus();
}

function put(details, option, value) {
  const control = details.querySelector(`[data-option="${CSS.escape(option)}"]`);
  if (!control) return;
  control.value = control.tagName === "SELECT" || typeof value !== "string" ? JSON.stringify(value) : value;
  details.open = true;
}

architectureOptions.addEventListener("change", propose);

file.addEventListener("change", choose);
for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
drop.addEventListener("drop", (event) => { file.files = event.dataTransfer.files; choose(); });

// --- sending -------------------------------------------------------------------------------------------------------

const LARGE = 64 << 20; // bytes from which a file is sent in parts, so that a broken connection costs no more than one

function sent(share) {
  upload.value = share;
  told.textContent = `${Math.round(100 * share)} % sent`;
}

async function sendLarge(asked, content) {
  try {
    const checkpoint = await sendInParts(content, sent);
    const answer = await fetch("/v1/conversions", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...asked, checkpoint }) });
    return { status: answer.status, answer: await answer.json() };
  } catch (error) {
    return { status: error.problem ? 400 : 0, answer: error.problem ?? {} };
  }
}

function send(asked, content) {
  const body = new FormData();
  for (const [member, value] of Object.entries(asked)) body.append(member, typeof value === "string" ? value : JSON.stringify(value));
  body.append("file", content);
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/conversions");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => sent(event.loaded / event.total));
    request.addEventListener("loadend", () => resolve({ status: request.status, answer: request.response ?? {} }));
    request.send(body);
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  const missing = [[file, file.files.length], [name, name.value.trim()]].find(([, has]) => !has)?.[0];
  if (missing) { told.textContent = missing === file ? "Choose a checkpoint first." : "Name its architecture."; missing.focus(); return; }
  const button = form.querySelector("button");
  button.disabled = true;
  upload.hidden = false;
  const asked = { architecture: name.value.trim(), target: target(), options: given(targetOptions), architecture_options: given(architectureOptions) };
  const { status, answer } = await (file.files[0].size > LARGE ? sendLarge(asked, file.files[0]) : send(asked, file.files[0]));
  button.disabled = false;
  upload.hidden = true;
  told.textContent = "";
  if (status >= 200 && status < 300) location.assign(`/conversions/${answer.id}`);
  else if (status === 0) show(problem, { title: "The service does not answer", detail: "The connection broke off; nothing is known to be stored." });
  else show(problem, answer);
});
