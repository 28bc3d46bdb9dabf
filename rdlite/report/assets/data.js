"use strict";
/* What the page carries: the frames and their objects as typed arrays. */

const SCORE_STEPS = 10000;

/** Return the text of a data block. */
function blockText(id) {
  return document.getElementById(id).textContent;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f8: Float64Array };

/** Put the bytes of each number together: all first ones come first, then all second ones. */
function gather(bytes, type, length) {
  const size = type.BYTES_PER_ELEMENT;
  const values = new Uint8Array(length * size);
  for (let place = 0; place < size; place++) {
    const from = place * length;
    for (let i = 0; i < length; i++) values[i * size + place] = bytes[from + i];
  }
  return new type(values.buffer);
}

function readSections(bytes, sections) {
  const arrays = {};
  let at = 0;
  for (const { name, type, length } of sections) {
    const size = type === "text" ? 1 : TYPES[type].BYTES_PER_ELEMENT;
    const part = bytes.subarray(at, at + length * size);
    arrays[name] = type === "text" ? new TextDecoder().decode(part) : gather(part, TYPES[type], length);
    at += length * size;
  }
  return arrays;
}

/** Where the objects of each frame begin; one more entry says where the last ones end. */
function runningSum(counts) {
  const starts = new Uint32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) starts[i + 1] = starts[i] + counts[i];
  return starts;
}

/** Read the page's blocks: its `meta` and, by frame or by object, its arrays. */
async function loadData() {
  const meta = JSON.parse(blockText("meta"));
  const arrays = readSections(await inflate(fromBase64(blockText("data"))), meta.sections);
  const length = arrays.counts.length;
  const names = arrays.names.split("\0");
  return {
    ...arrays,
    meta,
    length,
    starts: runningSum(arrays.counts),
    names,
    short: shortNames(names),
    sought: meta.video ? [] : names.map((name) => name.toLowerCase()),
  };
}

/** Whether a frame is one of a video. */
function isFrame(data, frame) {
  return data.index[frame] !== 0xffffffff;
}

/** Return for each name the shortest end of its path that no other one has. */
function shortNames(names) {
  const short = new Map();
  let left = [...new Set(names)];
  for (let parts = 1; left.length; parts++) {
    const ends = left.map((name) => pathEnd(name, parts));
    const times = new Map();
    for (const end of ends) times.set(end, (times.get(end) || 0) + 1);
    left.forEach((name, place) => { if (times.get(ends[place]) === 1) short.set(name, ends[place]); });
    left = left.filter((name, place) => times.get(ends[place]) > 1);
  }
  return short;
}

/** Return the last so many parts of a path; folders end in a slash, or a backslash. */
function pathEnd(name, parts) {
  let at = name.length;
  for (let part = 0; part < parts && at >= 0; part++) {
    do at--; while (at >= 0 && name[at] !== "/" && name[at] !== "\\");
  }
  return name.slice(at + 1);
}

/** Return what a frame is called: an image's name, a video's time; `short` as far as names differ. */
function frameName(data, frame, short = false) {
  const name = short ? data.short.get(data.names[frame]) : data.names[frame];
  if (!isFrame(data, frame)) return name;
  const time = Number.isNaN(data.seconds[frame]) ? "" : `${clock(data.seconds[frame], 2)} · `;
  const place = `${time}frame ${data.index[frame].toLocaleString("en")}`;
  return data.meta.video ? place : `${name} · ${place}`;
}

/** Return seconds as 1:02:03.45. */
function clock(seconds, digits = 0) {
  if (seconds < 0) return `-${clock(-seconds, digits)}`;
  const unit = 10 ** digits;
  const whole = Math.round(seconds * unit);
  const [hours, minutes] = [Math.floor(whole / unit / 3600), Math.floor(whole / unit / 60) % 60];
  const rest = ((whole / unit) % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Return the seconds that "1:02:03.5", "62:03" or "83" mean; NaN for anything else. */
function parseClock(text) {
  const parts = text.trim().split(":");
  const good = parts.length <= 3 && parts.every((part) => /^\d+(\.\d*)?$/.test(part));
  return good ? parts.reduce((sum, part) => sum * 60 + Number(part), 0) : NaN;
}

/** Return "1 object", "2,345 objects". */
function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
