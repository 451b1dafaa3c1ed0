// Forms made from JSON Schema: options of an architecture and of a target.

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
  if (rule.description) { const words = document.createElement("small"); words.textContent = rule.description; set.append(words); }
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

// Fills ``details`` with a control for each property of a schema; their ids begin with ``prefix``.
export function fill(details, schema, prefix) {
  const properties = Object.entries(schema?.properties ?? {});
  details.hidden = properties.length === 0;
  details.querySelector(".fields").replaceChildren(...properties.map(([option, rule]) => field(option, rule, prefix)));
}

// What was given in them, as a request has it; what was left alone is left out.
export function given(details) {
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

// Give one of them a value.
export function put(details, option, value) {
  for (const box of details.querySelectorAll(`[data-list="${CSS.escape(option)}"] input`)) { box.checked = value.includes(box.value); details.open = true; }
  const control = details.querySelector(`[data-option="${CSS.escape(option)}"]`);
  if (!control) return;
  control.value = control.tagName === "SELECT" || typeof value !== "string" ? JSON.stringify(value) : value;
  details.open = true;
}
