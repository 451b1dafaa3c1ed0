// What the service makes of the keys of a file, before it is sent: POST /v1/preflight. Null where it does not tell.
const DURATION = (seconds) => seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
const made = (tag, text, parts = {}) => Object.assign(document.createElement(tag), { textContent: text, ...parts });

export async function preflight(body) {
  const asked = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch("/v1/preflight", asked).catch(() => null); // the form works without it
  return answer?.ok ? answer.json() : null;
}

// Shows it in ``element``; ``take`` is called with the proposal that a person chooses.
export function showProposal(element, told, target, take) {
  const asked = told.asked || !told.proposals.length;
  const [words, colour] = { loads: ["It fits", "ok"], does_not_load: ["It does not fit", "no"], unknown: ["Not known yet", "plain"] }[told.verdict];
  const parts = [made("p", asked ? words : "It looks like", { className: `chip ${asked ? colour : "plain"}` }), made("p", told.detail)];
  const lists = [["Missing", "missing_keys", "missing"], ["Unexpected", "unexpected_keys", "unexpected"], ["Of another shape", "shape_mismatches", "mismatched"]];
  for (const [words, list, count] of told.asked && !told.asked.fits ? lists : []) {
    if (!told.asked[count]) continue;
    const details = document.createElement("details");
    details.append(made("summary", `${words}: ${told.asked[count]}`), made("pre", told.asked[list].join("\n"), { tabIndex: 0 }));
    parts.push(details);
  }
  const choices = made("div", "", { className: "actions" });
  for (const proposal of told.proposals) {
    const options = Object.entries(proposal.architecture_options).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(", ");
    const button = made("button", `Use ${proposal.architecture}${options ? ` with ${options}` : ""}`, { type: "button" });
    button.addEventListener("click", () => take(proposal));
    choices.append(button);
  }
  if (told.proposals.length) parts.push(choices);
  const estimate = told.targets[target];
  if (estimate) parts.push(made("p", `Converting takes about ${DURATION(estimate.seconds)}${estimate.template ? ": the graph is there already" : ""}, in ${(told.memory_bytes / 1e9).toFixed(1)} GB of memory.`, { className: "soft" }));
  element.replaceChildren(...parts);
  element.hidden = false;
}
