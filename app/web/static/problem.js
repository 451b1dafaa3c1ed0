// Shows a problem document (RFC 9457) in an element: title, detail, what to do, and the page of its code.
export function show(element, problem) {
  const box = document.createElement("div");
  const line = (tag, text) => { const made = document.createElement(tag); made.textContent = text; box.append(made); return made; };
  line("strong", problem.title ?? "The request failed");
  line("p", problem.detail ?? "");
  if (problem.hint) line("p", `What to do: ${problem.hint}`);
  if (Array.isArray(problem.nearest) && problem.nearest.length) line("p", `Nearest: ${problem.nearest.join(", ")}`);
  if (problem.code) {
    const link = document.createElement("a");
    link.href = `/problems/${encodeURIComponent(problem.code)}`;
    link.textContent = `What ${problem.code} means`;
    line("p", "").append(link);
  }
  element.replaceChildren(box);
  element.hidden = false;
}
