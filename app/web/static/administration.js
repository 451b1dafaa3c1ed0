// Makes and revokes keys, makes projects, and makes, tries and deletes webhooks.
import { show } from "/static/problem.js";

const [problem, told, made] = ["problem", "told", "made"].map((id) => document.getElementById(id));

async function ask(path, method, body) {
  problem.hidden = true;
  const answer = await fetch(path, { method, ...(body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }) });
  if (answer.ok) return answer.status === 204 ? {} : answer.json();
  show(problem, await answer.json());
  problem.scrollIntoView({ block: "center" });
  return null;
}

function onSubmit(form, act) {
  document.getElementById(form)?.addEventListener("submit", (event) => { event.preventDefault(); act(new FormData(event.target), event.target); });
}

// A secret that is told this once.
function reveal(what, secret, form) {
  document.getElementById("made-what").textContent = `${what}, shown this once`;
  document.getElementById("secret").textContent = secret;
  made.hidden = false;
  form.reset();
  made.scrollIntoView({ block: "center" });
}

onSubmit("new-key", async (given, form) => {
  const until = given.get("until");
  const key = await ask("/v1/keys", "POST", {
    name: given.get("name"), project: given.get("project"), scopes: given.getAll("scope"),
    ...(until && { expires_at: `${until}T23:59:59Z` }),
  });
  if (key) reveal("The new key", key.key, form);
});

onSubmit("new-project", async (given) => {
  const { name, ...limits } = Object.fromEntries(given);
  const numbers = Object.entries(limits).filter(([, text]) => text !== "").map(([limit, text]) => [limit, Number(text)]);
  if (await ask("/v1/projects", "POST", { name, limits: Object.fromEntries(numbers) })) location.reload();
});

onSubmit("new-webhook", async (given, form) => {
  const events = given.getAll("event"), name = given.get("name");
  const hook = await ask("/v1/webhooks", "POST", { url: given.get("url"), ...(name && { name }), ...(events.length && { events }) });
  if (hook) reveal("The secret that its messages are signed with", hook.secret, form);
});

const acts = {
  revoke: { question: "Revoke this key? Whoever uses it is refused from now on.", path: (id) => `/v1/keys/${id}`, method: "DELETE", done: "Revoked." },
  remove: { question: "Delete this webhook? What waits to be sent to it is not sent.", path: (id) => `/v1/webhooks/${id}`, method: "DELETE", done: "Deleted." },
  ping: { path: (id) => `/v1/webhooks/${id}/ping`, method: "POST", done: "A message is on its way." },
};
for (const [name, act] of Object.entries(acts))
  for (const button of document.querySelectorAll(`[data-${name}]`))
    button.addEventListener("click", async () => {
      if (act.question && !confirm(act.question)) return;
      if (!(await ask(act.path(button.dataset[name]), act.method))) return;
      sessionStorage.setItem("told", act.done);
      location.reload();
    });
told.textContent = sessionStorage.getItem("told") ?? "";
sessionStorage.removeItem("told");
