// Several conversions at once: cancel, try again, delete, or compare two.
const form = document.getElementById("chosen");
const told = document.getElementById("told");
const ATONCE = 4;

const boxes = () => [...form.querySelectorAll("[name=id]")];
const ids = () => boxes().filter((box) => box.checked).map((box) => box.value);
const requests = {
  cancel: (id) => fetch(`/v1/conversions/${id}/cancel`, { method: "POST" }),
  retry: (id) => fetch(`/v1/conversions/${id}/retry`, { method: "POST" }),
  delete: (id) => fetch(`/v1/conversions/${id}`, { method: "DELETE" }),
};

function show() {
  const chosen = ids().length;
  document.getElementById("count").textContent = chosen ? `${chosen} chosen` : "Choose conversions to act on several at once.";
  for (const button of form.querySelectorAll("[data-act]"))
    button.disabled = button.dataset.act === "compare" ? chosen !== 2 : chosen === 0;
}

async function all(act) {
  const waiting = ids(), refused = new Map();
  let done = 0;
  const work = async () => {
    for (let id = waiting.shift(); id; id = waiting.shift()) {
      const answer = await requests[act](id);
      if (answer.ok) done += 1;
      else { const { title } = await answer.json(); refused.set(title, (refused.get(title) ?? 0) + 1); }
    }
  };
  await Promise.all(Array.from({ length: ATONCE }, work));
  return [`${done} done`, ...[...refused].map(([title, count]) => `${count} refused: ${title}`)].join("; ");
}

if (form) {
  form.addEventListener("change", (event) => {
    if (event.target.id === "all") for (const box of boxes()) box.checked = event.target.checked;
    show();
  });
  for (const button of form.querySelectorAll("[data-act]"))
    button.addEventListener("click", async () => {
      const { act } = button.dataset;
      if (act === "compare") { const [first, second] = ids(); location.assign(`/compare?first=${second}&second=${first}`); return; }
      if (act === "delete" && !confirm(`Delete ${ids().length} conversions and their files?`)) return;
      for (const each of form.querySelectorAll("[data-act]")) each.disabled = true;
      told.textContent = "";
      sessionStorage.setItem("told", await all(act));
      location.reload();
    });
  show();
}

// Where all were deleted, the form is gone as well.
told.textContent = sessionStorage.getItem("told") ?? "";
sessionStorage.removeItem("told");
