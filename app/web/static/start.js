import { readHeader } from "/static/header.js";
import { fill, given, put } from "/static/options.js";
import { show } from "/static/problem.js";
import { preflight, showProposal } from "/static/proposal.js";
import { upload as sendInParts } from "/static/upload.js";

const form = document.getElementById("convert");
const [file, drop, chosen, found] = ["file", "drop", "chosen", "found"].map((id) => document.getElementById(id));
const [name, names, summary] = ["architecture", "names", "summary"].map((id) => document.getElementById(id));
const [upload, told, problem] = ["upload", "told", "problem"].map((id) => document.getElementById(id));
const schemas = JSON.parse(document.getElementById("schemas").textContent);
const wanted = new URLSearchParams(location.search); // what a link to this page asks for
let uploaded = form.dataset.checkpoint ?? null; // sha256 of a file that the service has, in the place of one to choose
let described = null, known = false;

// --- options ---------------------------------------------------------------------------------------------------------

const architectureOptions = document.getElementById("architecture-options");
const targetOptions = document.getElementById("target-options");
const target = () => form.querySelector("[name=target]:checked").value;
const showTarget = () => fill(targetOptions, schemas[target()], "target");
for (const each of form.querySelectorAll("[name=target]")) each.addEventListener("change", () => { showTarget(); propose(); });
const objectOf = (text) => { try { return Object.entries(JSON.parse(text ?? "{}")); } catch { return []; } };
const linked = form.querySelector(`[name=target][value="${CSS.escape(wanted.get("target") ?? "")}"]`);
if (linked) linked.checked = true;
showTarget();
for (const [option, value] of objectOf(wanted.get("options"))) put(targetOptions, option, value);

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
  offer(answer.ok ? told.targets : null);
  propose();
}

// Leaves those targets to choose from that an architecture can become; null: all.
function offer(targets) {
  const radios = [...form.querySelectorAll("[name=target]")];
  for (const each of radios) each.disabled = targets !== null && !targets.includes(each.value);
  if (!radios.some((each) => each.checked && each.disabled)) return;
  radios.find((each) => !each.disabled).checked = true;
  showTarget();
}

let pause;
name.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(search, 150); });
name.addEventListener("change", describe);
name.value = wanted.get("architecture") ?? name.value;
describe().then(() => {
  for (const [option, value] of objectOf(wanted.get("architecture_options"))) put(architectureOptions, option, value);
  propose();
});

// --- the file ------------------------------------------------------------------------------------------------------

function choose() {
  const picked = file.files[0];
  if (!picked) return;
  uploaded = null;
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
  if (!header && !uploaded) { proposal.hidden = true; return; }
  const about = uploaded ? { checkpoint: uploaded } : { manifest: Object.fromEntries(header.tensors), filename: file.files[0].name };
  const told = await preflight({ ...about, ...(known && { architecture: name.value.trim(), architecture_options: given(architectureOptions) }) });
  if (turn !== proposing) return;
  if (told) showProposal(proposal, told, target(), take);
  else proposal.hidden = true;
}

async function take(chosen) {
  name.value = chosen.architecture;
  await describe();
  for (const [option, value] of Object.entries(chosen.architecture_options)) put(architectureOptions, option, value);
  if (chosen.prefix !== null) put(targetOptions, "prefix", chosen.prefix);
  await propose();
  name.focus();
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

async function askFor(asked, checkpoint) {
  const answer = await fetch("/v1/conversions", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...asked, checkpoint }) });
  return { status: answer.status, answer: await answer.json() };
}

async function sendLarge(asked, content) {
  try {
    return await askFor(asked, await sendInParts(content, sent));
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
  const missing = [[file, uploaded || file.files.length], [name, name.value.trim()]].find(([, has]) => !has)?.[0];
  if (missing) { told.textContent = missing === file ? "Choose a checkpoint first." : "Name its architecture."; missing.focus(); return; }
  const button = form.querySelector("button");
  button.disabled = true;
  upload.hidden = Boolean(uploaded);
  const asked = { architecture: name.value.trim(), target: target(), options: given(targetOptions), architecture_options: given(architectureOptions) };
  const content = file.files[0];
  const { status, answer } = await (uploaded ? askFor(asked, uploaded).catch(() => ({ status: 0, answer: {} })) : content.size > LARGE ? sendLarge(asked, content) : send(asked, content));
  button.disabled = false;
  upload.hidden = true;
  told.textContent = "";
  if (status >= 200 && status < 300) location.assign(`/conversions/${answer.id}`);
  else if (status === 0) show(problem, { title: "The service does not answer", detail: "The connection broke off; nothing is known to be stored." });
  else show(problem, answer);
});
