// Makes and revokes keys, and makes projects.
import { show } from "/static/problem.js";

const [problem, told, made] = ["problem", "told", "made"].map((id) => document.getElementById(id));

async function ask(path, method, body) {
  problem.hidden = true;
  const answer = await fetch(path, { method, ...(body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }) });
  if (answer.ok) return answer.status === 204 ? {} : answer.json();
  show(problem, await answer.json());
  return null;
}

document.getElementById("new-key").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = new FormData(event.target);
  const until = given.get("until");
  const key = await ask("/v1/keys", "POST", {
    name: given.get("name"), project: given.get("project"), scopes: given.getAll("scope"),
    ...(until && { expires_at: `${until}T23:59:59Z` }),
  });
  if (!key) return;
  document.getElementById("secret").textContent = key.key;
  made.hidden = false;
  event.target.reset();
  made.scrollIntoView();
});

document.getElementById("new-project")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name, ...limits } = Object.fromEntries(new FormData(event.target));
  const numbers = Object.entries(limits).filter(([, text]) => text !== "").map(([limit, text]) => [limit, Number(text)]);
  if (await ask("/v1/projects", "POST", { name, limits: Object.fromEntries(numbers) })) location.reload();
});

for (const button of document.querySelectorAll("[data-revoke]"))
  button.addEventListener("click", async () => {
    if (!confirm("Revoke this key? Whoever uses it is refused from now on.")) return;
    if (await ask(`/v1/keys/${button.dataset.revoke}`, "DELETE")) { told.textContent = "Revoked."; location.reload(); }
  });
