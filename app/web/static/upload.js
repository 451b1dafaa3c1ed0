// Resumable upload of a large file (tus 1.0, /v1/uploads): in pieces, going on after a broken connection or a reload.
const VERSION = { "Tus-Resumable": "1.0.0" };
const PIECE = 32 << 20;
const TRIES = 8;
const LONGEST_PAUSE = 30_000;

const nameOf = (file) => `upload:${file.name}:${file.size}:${file.lastModified}`;
const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
const encoded = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

class Refused extends Error {
  constructor(problem) { super(problem.detail); this.problem = problem; }
}

// A request that is repeated while the service cannot be reached or says that it is overloaded.
async function asked(path, options) {
  for (let attempt = 0; ; attempt++) {
    let answer = null;
    try { answer = await fetch(path, options); } catch { /* the connection broke off */ }
    if (answer && answer.status < 500 && answer.status !== 429) return answer;
    if (attempt >= TRIES) { if (answer) return answer; throw new Refused({ title: "The service does not answer", detail: "What arrived is kept: choose the file again to go on." }); }
    await pause(Math.min(LONGEST_PAUSE, 500 * 2 ** attempt));
  }
}

const refusal = async (answer) => new Refused(await answer.json().catch(() => ({ title: "The upload failed", detail: `Status ${answer.status}` })));

// Where an earlier upload of this very file stands; null where there is none.
async function kept(file) {
  const path = localStorage.getItem(nameOf(file));
  if (!path) return null;
  const answer = await asked(path, { method: "HEAD", headers: VERSION });
  return answer.ok && Number(answer.headers.get("Upload-Length")) === file.size ? { path, offset: Number(answer.headers.get("Upload-Offset")) } : null;
}

async function begun(file) {
  const headers = { ...VERSION, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${encoded(file.name)}` };
  const answer = await asked("/v1/uploads", { method: "POST", headers });
  if (!answer.ok) throw await refusal(answer);
  const path = answer.headers.get("Location");
  localStorage.setItem(nameOf(file), path);
  return { path, offset: 0 };
}

// Resolves to the sha256 that names the uploaded checkpoint. ``progress`` is told the share that has arrived.
// Throws an error whose ``problem`` says why not.
export async function upload(file, progress) {
  let { path, offset } = (await kept(file)) ?? (await begun(file));
  while (offset < file.size) {
    progress(offset / file.size);
    const headers = { ...VERSION, "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" };
    const answer = await asked(path, { method: "PATCH", headers, body: file.slice(offset, offset + PIECE) });
    if (answer.ok) offset = Number(answer.headers.get("Upload-Offset"));
    else if (answer.status === 409) offset = Number((await answer.json()).upload_offset);
    else { localStorage.removeItem(nameOf(file)); throw await refusal(answer); }
  }
  progress(1);
  const answer = await asked(path, { headers: { Prefer: "wait=60" } });
  const told = await answer.json();
  localStorage.removeItem(nameOf(file));
  if (!answer.ok) throw new Refused(told);
  if (!told.checkpoint) throw new Refused(told.problem ?? { title: "The upload was not taken", detail: "Choose the file again." });
  return told.checkpoint;
}
