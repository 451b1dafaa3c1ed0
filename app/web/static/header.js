// What a checkpoint holds, read in the browser before anything is sent: the header of safetensors, or the directory of a
// zip and the names in its pickle. No weights are read. What cannot be read here is left to the service.
import { Tensor, unpickle } from "/static/pickle.js";

const MOST_HEADER = 100_000_000;
const NOT_WEIGHTS = /^(optim|opt_state|last_optimizer|scheduler|lr_sched|scaler|grad_scaler|rng|loops|callbacks)/i;
const MAX_DEPTH = 16;
const SAFETENSORS = {
  F64: "float64", F32: "float32", F16: "float16", BF16: "bfloat16", I64: "int64", I32: "int32", I16: "int16", I8: "int8",
  U8: "uint8", BOOL: "bool", F8_E4M3: "float8_e4m3fn", F8_E5M2: "float8_e5m2",
};

const bytesOf = async (file, start, end) => new Uint8Array(await file.slice(start, end).arrayBuffer());
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

// {format, path, tensors: Map of name to {dtype, shape}}; null where the file is of another kind. Throws for broken ones.
export async function readHeader(file) {
  const head = await bytesOf(file, 0, 8);
  if (head.length < 8) return null;
  if (head[0] === 0x50 && head[1] === 0x4b) return fromZip(file);
  const length = Number(viewOf(head).getBigUint64(0, true));
  if (length >= 2 && length <= Math.min(MOST_HEADER, file.size - 8) && (await bytesOf(file, 8, 9))[0] === 0x7b)
    return { format: "safetensors", path: [], tensors: await safetensors(file) };
  return null;
}

async function safetensors(file) {
  const length = Number(viewOf(await bytesOf(file, 0, 8)).getBigUint64(0, true));
  const told = JSON.parse(new TextDecoder().decode(await bytesOf(file, 8, 8 + length)));
  const tensors = new Map();
  for (const [name, entry] of Object.entries(told))
    if (name !== "__metadata__") tensors.set(name, { dtype: SAFETENSORS[entry.dtype] ?? entry.dtype, shape: entry.shape });
  return tensors;
}

// --- zip -----------------------------------------------------------------------------------------------------------

async function fromZip(file) {
  const members = await directory(file);
  const pickle = members.find((member) => /(^|\/)data\.pkl$/.test(member.name));
  if (pickle) {
    if (pickle.size > MOST_HEADER) return null;
    const found = stateDicts(unpickle(await content(file, pickle)));
    if (found.length !== 1) return null; // which one is asked for, the service tells
    return { format: "torch-zip", ...found[0] };
  }
  const shards = members.filter((member) => member.name.endsWith(".safetensors") && member.method === 0);
  if (!shards.length) return null;
  const tensors = new Map();
  for (const shard of shards) {
    const start = await contentStart(file, shard);
    for (const [name, told] of await safetensors(file.slice(start, start + shard.stored))) tensors.set(name, told);
  }
  return { format: "sharded", path: [], tensors };
}

async function directory(file) {
  const tailStart = Math.max(0, file.size - 65_557);
  const tail = await bytesOf(file, tailStart, file.size);
  let end = tail.length - 22;
  while (end >= 0 && !(tail[end] === 0x50 && tail[end + 1] === 0x4b && tail[end + 2] === 5 && tail[end + 3] === 6)) end--;
  if (end < 0) throw new Error("the zip has no directory");
  const view = viewOf(tail);
  let size = view.getUint32(end + 12, true), start = view.getUint32(end + 16, true);
  if (start === 0xffffffff || size === 0xffffffff) {
    if (end < 20) throw new Error("the zip has no directory");
    const place = Number(view.getBigUint64(end - 20 + 8, true));
    const large = viewOf(await bytesOf(file, place, place + 56));
    size = Number(large.getBigUint64(40, true));
    start = Number(large.getBigUint64(48, true));
  }
  if (size > MOST_HEADER) throw new Error("the zip has too large a directory");
  return entries(await bytesOf(file, start, start + size));
}

function entries(bytes) {
  const view = viewOf(bytes), found = [];
  for (let at = 0; at + 46 <= bytes.length && view.getUint32(at, true) === 0x02014b50;) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const member = {
      name: new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength)),
      method: view.getUint16(at + 10, true),
      stored: view.getUint32(at + 20, true), size: view.getUint32(at + 24, true), offset: view.getUint32(at + 42, true),
    };
    enlarge(member, view, at + 46 + nameLength, extraLength);
    found.push(member);
    at += 46 + nameLength + extraLength + commentLength;
  }
  return found;
}

function enlarge(member, view, start, length) { // zip64's extra field: sizes and offset that do not fit 32 bits
  for (let at = start; at + 4 <= start + length; at += 4 + view.getUint16(at + 2, true)) {
    if (view.getUint16(at, true) !== 1) continue;
    let place = at + 4;
    for (const part of ["size", "stored", "offset"])
      if (member[part] === 0xffffffff) { member[part] = Number(view.getBigUint64(place, true)); place += 8; }
  }
}

async function contentStart(file, member) {
  const head = viewOf(await bytesOf(file, member.offset, member.offset + 30));
  return member.offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
}

async function content(file, member) {
  const start = await contentStart(file, member);
  const stored = file.slice(start, start + member.stored);
  if (member.method === 0) return new Uint8Array(await stored.arrayBuffer());
  if (member.method !== 8) throw new Error("the zip is compressed in an unknown way");
  const inflated = new Uint8Array(await new Response(stored.stream().pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer());
  if (inflated.length > MOST_HEADER) throw new Error("the pickle is too large");
  return inflated;
}

// --- state dicts, as app/conversion/checkpoint/unwrap.py finds them ------------------------------------------------

function stateDicts(loaded) {
  const found = new Map();
  for (const one of walk(loaded, [], new Set())) {
    const same = JSON.stringify([...one.tensors].map(([name, told]) => [name, told.shape]));
    if (!found.has(same)) found.set(same, one);
  }
  const distinct = [...found.values()];
  const top = distinct.length ? null : stateDict(loaded, [], true);
  return top ? [top] : distinct;
}

function walk(node, path, above) {
  if (!(node instanceof Map) || above.has(node) || path.length > MAX_DEPTH || (node.has("param_groups") && node.has("state"))) return [];
  const whole = stateDict(node, path, false);
  if (whole) return [whole];
  const within = new Set([...above, node]);
  const nested = [...node].flatMap(([key, value]) => typeof key === "string" && !NOT_WEIGHTS.test(key) ? walk(value, [...path, key], within) : []);
  const mixed = nested.length || !path.length ? null : stateDict(node, path, true);
  return mixed ? [mixed] : nested;
}

function stateDict(node, path, mixed) {
  if (!(node instanceof Map)) return null;
  const tensors = new Map([...node].filter(([key, value]) => typeof key === "string" && value instanceof Tensor).map(([key, { dtype, shape }]) => [key, { dtype, shape }]));
  const others = [...node.keys()].filter((key) => !tensors.has(key));
  if (!tensors.size || (!mixed && others.some((key) => !String(key).endsWith("_extra_state")))) return null;
  return { path, tensors };
}
