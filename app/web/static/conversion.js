// A conversion's page: follows it while it runs, and asks to cancel it or to try it again.
const live = document.getElementById("live");
const told = document.getElementById("told");

async function post(path) {
  const answer = await fetch(path, { method: "POST" });
  if (answer.ok) return true;
  if (told) told.textContent = (await answer.json()).detail;
  return false;
}

if (live) {
  const progress = document.getElementById("progress");
  const state = document.getElementById("state");
  const stages = [...live.querySelectorAll("[data-stage]")];
  const final = ["succeeded", "failed", "canceled", "timed_out"];
  const follow = async (event) => {
    const now = JSON.parse(event.data);
    if (final.includes(now.state)) {
      const present = await (await fetch(live.dataset.self)).json(); // the event may be of an attempt before a retry
      if (final.includes(present.state)) { source.close(); location.reload(); }
      return;
    }
    state.textContent = now.state[0].toUpperCase() + now.state.slice(1);
    progress.value = now.progress ?? progress.value;
    const at = stages.findIndex((each) => each.dataset.stage === now.stage);
    stages.forEach((each, place) => {
      each.classList.toggle("done", at > place);
      each.classList.toggle("now", at === place);
    });
  };
  const source = new EventSource(live.dataset.events);
  for (const kind of ["state", "progress"]) source.addEventListener(kind, follow);
  document.getElementById("cancel").addEventListener("click", async (event) => {
    event.target.disabled = true;
    told.textContent = "Asked to cancel.";
    if (!(await post(live.dataset.cancel))) event.target.disabled = false;
  });
}

document.getElementById("retry")?.addEventListener("click", async (event) => {
  event.target.disabled = true;
  if (await post(event.target.dataset.retry)) location.reload();
});

// The log: as it grows while the conversion runs, whole once it has ended.
const log = document.getElementById("log");
async function readLog() {
  const shown = log.querySelector("pre");
  if (live) {
    shown.textContent = "";
    const lines = new EventSource(log.dataset.log);
    const say = (event) => shown.append(JSON.parse(event.data));
    lines.addEventListener("log", say);
    lines.addEventListener("end", (event) => { say(event); lines.close(); });
    return;
  }
  const answer = await fetch(log.dataset.log);
  shown.textContent = answer.ok ? (await answer.text()) || "Nothing." : (await answer.json()).detail;
}
if (log?.open) readLog();
else log?.addEventListener("toggle", readLog, { once: true });
