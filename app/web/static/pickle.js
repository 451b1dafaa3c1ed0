// A small inert reader of the pickles that torch.save writes (protocols 2 to 5): it calls nothing and makes no objects.
// Globals stay names, calls become values that only tell what was to be called; of tensors the type and shape are kept.

const MOST_STEPS = 20_000_000;
const DTYPES = {
  FloatStorage: "float32", DoubleStorage: "float64", HalfStorage: "float16", BFloat16Storage: "bfloat16",
  LongStorage: "int64", IntStorage: "int32", ShortStorage: "int16", CharStorage: "int8", ByteStorage: "uint8",
  BoolStorage: "bool", ComplexFloatStorage: "complex64", ComplexDoubleStorage: "complex128", UntypedStorage: "uint8",
};

export class Tensor {
  constructor(dtype, shape) { this.dtype = dtype; this.shape = shape; }
}

class Name {
  constructor(dotted) { this.dotted = dotted; }
}

class Made {
  constructor(by, parts) { this.by = by; this.parts = parts; }
}

const MARK = Symbol("mark");
const isShape = (value) => Array.isArray(value) && value.every((size) => Number.isInteger(size) && size >= 0);

function tensorOf(parts, dtype) {
  const [storage, , shape] = parts;
  if (!(storage instanceof Made) || storage.by !== "storage" || !isShape(shape)) throw new Error("a tensor of no storage");
  return new Tensor(dtype ?? storage.parts, shape);
}

// What the globals of such a file mean, as in app/conversion/checkpoint/torch_vocabulary.py.
function called(callable, parts) {
  const name = callable instanceof Name ? callable.dotted : "";
  switch (name) {
    case "torch._utils._rebuild_tensor":
    case "torch._utils._rebuild_tensor_v2": return tensorOf(parts);
    case "torch._utils._rebuild_tensor_v3": return tensorOf(parts, parts[6] instanceof Name ? parts[6].dotted.replace(/^torch\./, "") : undefined);
    case "torch._utils._rebuild_parameter":
    case "torch._utils._rebuild_parameter_with_state":
    case "torch._utils._rebuild_device_tensor_from_cpu_tensor": return parts[0];
    case "torch._tensor._rebuild_from_type_v2": return called(parts[0], parts[2]);
    case "collections.OrderedDict":
    case "collections.defaultdict": {
      const pairs = parts.find((part) => Array.isArray(part));
      return new Map(parts.find((part) => part instanceof Map) ?? (pairs ?? []).filter(Array.isArray));
    }
    case "torch.Size": return parts[0] ?? [];
    default: return new Made(name, parts);
  }
}

function stored(id) {
  if (!Array.isArray(id) || id[0] !== "storage" || !(id[1] instanceof Name)) throw new Error("a persistent id of no storage");
  const dtype = DTYPES[id[1].dotted.split(".").pop()];
  if (!dtype) throw new Error(`a storage of type ${id[1].dotted}`);
  return new Made("storage", dtype);
}

export function unpickle(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = new TextDecoder("utf-8");
  const stack = [], memo = new Map();
  let at = 0, steps = 0;
  const take = (count) => {
    if (count < 0 || at + count > bytes.length) throw new Error("the pickle ends early");
    at += count;
    return bytes.subarray(at - count, at);
  };
  const number = (size, signed = false) => {
    const place = at;
    take(size);
    if (size === 1) return view.getUint8(place);
    if (size === 2) return view.getUint16(place, true);
    if (size === 4) return signed ? view.getInt32(place, true) : view.getUint32(place, true);
    return Number(view.getBigUint64(place, true));
  };
  const long = (count) => {
    const digits = take(count);
    let value = 0n;
    for (let place = digits.length - 1; place >= 0; place--) value = (value << 8n) | BigInt(digits[place]);
    if (digits.length && digits[digits.length - 1] & 0x80) value -= 1n << BigInt(8 * digits.length);
    return Number(value);
  };
  const line = () => {
    const end = bytes.indexOf(10, at);
    if (end < 0) throw new Error("the pickle ends early");
    const found = text.decode(bytes.subarray(at, end));
    at = end + 1;
    return found;
  };
  const pop = () => {
    if (!stack.length || stack[stack.length - 1] === MARK) throw new Error("the pickle takes more than it has");
    return stack.pop();
  };
  const marked = () => {
    const place = stack.lastIndexOf(MARK);
    if (place < 0) throw new Error("the pickle has no mark");
    const items = stack.splice(place);
    return items.slice(1);
  };
  const top = () => stack[stack.length - 1];
  const set = (items) => {
    const map = top();
    if (map instanceof Map) for (let place = 0; place + 1 < items.length; place += 2) map.set(items[place], items[place + 1]);
  };
  const append = (items) => { const list = top(); if (Array.isArray(list)) for (const item of items) list.push(item); };
  const call = (callable, parts) => stack.push(called(callable, Array.isArray(parts) ? parts : []));

  while (true) {
    if (++steps > MOST_STEPS) throw new Error("the pickle is too long");
    const code = String.fromCharCode(take(1)[0]);
    switch (code) {
      case ".": return pop();
      case "\x80": take(1); break; // PROTO
      case "\x95": take(8); break; // FRAME
      case "(": stack.push(MARK); break;
      case "0": stack.pop(); break;
      case "1": marked(); break;
      case "2": stack.push(top()); break;
      case "N": stack.push(null); break;
      case "\x88": stack.push(true); break;
      case "\x89": stack.push(false); break;
      case "I": { const told = line(); stack.push(told === "01" ? true : told === "00" ? false : Number(told)); break; }
      case "L": stack.push(Number(line().replace(/L$/, ""))); break;
      case "F": stack.push(Number(line())); break;
      case "K": stack.push(number(1)); break;
      case "M": stack.push(number(2)); break;
      case "J": stack.push(number(4, true)); break;
      case "\x8a": stack.push(long(number(1))); break;
      case "\x8b": stack.push(long(number(4))); break;
      case "G": { const place = at; take(8); stack.push(view.getFloat64(place, false)); break; }
      case "S": stack.push(line().replace(/^(['"])(.*)\1$/, "$2")); break;
      case "V": stack.push(line()); break;
      case "X": stack.push(text.decode(take(number(4)))); break;
      case "\x8c": stack.push(text.decode(take(number(1)))); break;
      case "\x8d": stack.push(text.decode(take(number(8)))); break;
      case "U": stack.push(text.decode(take(number(1)))); break;
      case "T": stack.push(text.decode(take(number(4)))); break;
      case "C": stack.push(new Made("bytes", take(number(1)).length)); break;
      case "B": stack.push(new Made("bytes", take(number(4)).length)); break;
      case "\x8e": case "\x96": stack.push(new Made("bytes", take(number(8)).length)); break;
      case ")": stack.push([]); break;
      case "]": stack.push([]); break;
      case "}": stack.push(new Map()); break;
      case "\x8f": stack.push([]); break; // EMPTY_SET
      case "t": case "l": case "\x91": stack.push(marked()); break;
      case "d": { const items = marked(); stack.push(new Map()); set(items); break; }
      case "\x85": stack.push([pop()]); break;
      case "\x86": { const second = pop(), first = pop(); stack.push([first, second]); break; }
      case "\x87": { const third = pop(), second = pop(), first = pop(); stack.push([first, second, third]); break; }
      case "a": { const item = pop(); append([item]); break; }
      case "e": case "\x90": { const items = marked(); append(items); break; }
      case "s": { const value = pop(), key = pop(); set([key, value]); break; }
      case "u": { const items = marked(); set(items); break; }
      case "c": stack.push(new Name(`${line()}.${line()}`)); break;
      case "\x93": { const name = pop(), module = pop(); stack.push(new Name(`${module}.${name}`)); break; }
      case "R": case "\x81": { const parts = pop(), callable = pop(); call(callable, parts); break; }
      case "\x92": { pop(); const parts = pop(), callable = pop(); call(callable, parts); break; }
      case "b": pop(); break; // BUILD: attributes are nobody's weights
      case "Q": stack.push(stored(pop())); break;
      case "q": memo.set(number(1), top()); break;
      case "r": memo.set(number(4), top()); break;
      case "p": memo.set(Number(line()), top()); break;
      case "\x94": memo.set(memo.size, top()); break;
      case "h": stack.push(memo.get(number(1))); break;
      case "j": stack.push(memo.get(number(4))); break;
      case "g": stack.push(memo.get(Number(line()))); break;
      default: throw new Error(`opcode 0x${code.charCodeAt(0).toString(16)}`);
    }
  }
}
