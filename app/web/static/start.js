import { show } from "/static/problem.js";

const form = document.getElementById("convert");
const [file, drop, chosen] = ["file", "drop", "chosen"].map((id) => document.getElementById(id));
const [name, names, summary] = ["architecture", "names", "summary"].map((id) => document.getElementById(id));
const [upload, told, problem] = ["upload", "told", "problem"].map((id) => document.getElementById(id));
const schemas = JSON.parse(document.getElementById("schemas").textContent);
let described = null;

// --- forms made from JSON Schema ---------------------------------------------------------------------------------

const typeOf = (rule) => rule.type ?? (rule.anyOf ?? []).map((each) => each.type ?? (each.enum || each.const ? "enum" : null)).find((type) => type && type !== "null") ?? "json";

function choices(rule) {
  if (rule.enum) return rule.enum;
  if (rule.type === "boolean") return [true, false];
  return null;
}

function field(option, rule, prefix) {
  const label = document.createElement("label");
  const id = `${prefix}-${option}`;
  label.htmlFor = id;
  label.textContent = option.replaceAll("_", " ");
  const admitted = choices(rule);
  const control = document.createElement(admitted ? "select" : "input");
  control.id = id;
  control.dataset.option = option;
  control.dataset.type = typeOf(rule);
  if (admitted) for (const value of ["", ...admitted]) control.add(new Option(value === "" ? "default" : String(value), value === "" ? "" : JSON.stringify(value)));
  else {
    control.placeholder = rule.default === undefined || rule.default === null ? "default" : JSON.stringify(rule.default).replace(/^"|"$/g, "");
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
    if (control.tagName !== "SELECT" && control.dataset.type === "string") values[control.dataset.option] = text;
    else try { values[control.dataset.option] = JSON.parse(text); } catch { values[control.dataset.option] = text; }
  }
  return values;
}

const architectureOptions = document.getElementById("architecture-options");
const targetOptions = document.getElementById("target-options");
const target = () => form.querySelector("[name=target]:checked").value;
const showTarget = () => fill(targetOptions, schemas[target()], "target");
for (const each of form.querySelectorAll("[name=target]")) each.addEventListener("change", showTarget);
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
  summary.textContent = answer.ok ? told.summary : told.detail;
  fill(architectureOptions, answer.ok ? told.options_schema : null, "architecture");
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
}

file.addEventListener("change", choose);
for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
drop.addEventListener("drop", (event) => { file.files = event.dataTransfer.files; choose(); });

// --- sending -------------------------------------------------------------------------------------------------------

function send(body) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/conversions");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      upload.value = event.loaded / event.total;
      told.textContent = `${Math.round(100 * upload.value)} % sent`;
    });
    request.addEventListener("loadend", () => resolve({ status: request.status, answer: request.response ?? {} }));
    request.send(body);
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  const missing = [[file, file.files.length], [name, name.value.trim()]].find(([, has]) => !has)?.[0];
  if (missing) { told.textContent = missing === file ? "Choose a checkpoint first." : "Name its architecture."; missing.focus(); return; }
  const body = new FormData();
  body.append("architecture", name.value.trim());
  body.append("target", target());
  body.append("options", JSON.stringify(given(targetOptions)));
  body.append("architecture_options", JSON.stringify(given(architectureOptions)));
  body.append("file", file.files[0]);
  const button = form.querySelector("button");
  button.disabled = true;
  upload.hidden = false;
  const { status, answer } = await send(body);
  button.disabled = false;
  upload.hidden = true;
  told.textContent = "";
  if (status >= 200 && status < 300) location.assign(`/conversions/${answer.id}`);
  else if (status === 0) show(problem, { title: "The service does not answer", detail: "The connection broke off; nothing is known to be stored." });
  else show(problem, answer);
});
