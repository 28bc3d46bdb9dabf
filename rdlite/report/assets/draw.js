"use strict";
/* Frames on canvases: the picture where the page has it, and boxes over it. */

/** Return the value of a CSS variable. */
function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Make a canvas as sharp as the screen, and return its context, scaled to CSS pixels. */
function openCanvas(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** The pictures that the page carries, decoded when they are first shown. */
class Pictures {
  constructor(frames, onLoad) {
    this.blocks = new Map(frames.map((frame, place) => [frame, `picture-${place}`]));
    this.images = new Map();
    this.onLoad = onLoad;
  }

  get size() {
    return this.blocks.size;
  }

  has(frame) {
    return this.blocks.has(frame);
  }

  /** Return the picture of a frame; null where there is none, or none yet. */
  get(frame) {
    if (!this.has(frame)) return null;
    if (!this.images.has(frame)) this.load(frame);
    const image = this.images.get(frame);
    return image.complete && image.naturalWidth ? image : null;
  }

  load(frame) {
    const image = new Image();
    image.addEventListener("load", () => this.onLoad(frame));
    image.src = `data:image/jpeg;base64,${blockText(this.blocks.get(frame))}`;
    this.images.set(frame, image);
  }
}

/** Return the largest place of a frame's shape in the middle of an area. */
function fit(data, frame, width, height) {
  const [w, h] = [data.sizes[2 * frame] || 1, data.sizes[2 * frame + 1] || 1];
  const scale = Math.min(width / w, height / h);
  const [x, y] = [(width - w * scale) / 2, (height - h * scale) / 2];
  return { x, y, width: w * scale, height: h * scale, scale };
}

/** Return an object's box in pixels of its frame: left, top, width, height. */
function boxPixels(data, object) {
  const edges = data.boxes.subarray(4 * object, 4 * object + 4);
  const [x1, y1, x2, y2] = Array.from(edges, (edge) => edge / data.meta.steps);
  return [x1, y1, x2 - x1, y2 - y1];
}

/** Return an object's box inside the place of its frame. */
function boxIn(data, object, place) {
  const [x, y, width, height] = boxPixels(data, object).map((length) => length * place.scale);
  return [place.x + x, place.y + y, width, height];
}

/** Return the wanted objects of a frame, best last. */
function objectsOf(data, frame, want) {
  const objects = [];
  for (let i = data.starts[frame]; i < data.starts[frame + 1]; i++) if (want(i)) objects.push(i);
  return objects.sort((a, b) => data.scores[a] - data.scores[b]);
}

/**
 * Draw a frame with its wanted objects.
 *
 * `labels` writes names and scores; `highlight` is the object to show alone, or -1.
 */
function drawFrame(canvas, data, frame, { width, height, want, labels = false, highlight = -1 }) {
  const context = openCanvas(canvas, width, height);
  const place = fit(data, frame, width, height);
  const picture = data.pictures.get(frame);
  context.fillStyle = token("--sunken");
  context.fillRect(place.x, place.y, place.width, place.height);
  if (picture) context.drawImage(picture, place.x, place.y, place.width, place.height);
  const objects = objectsOf(data, frame, want).filter((i) => highlight < 0 || i === highlight);
  for (const object of objects) drawBox(context, data, object, place, picture !== null, labels);
  if (labels) for (const object of objects) drawLabel(context, data, object, place);
}

function drawBox(context, data, object, place, onPicture, large) {
  const box = boxIn(data, object, place);
  const color = data.meta.colors[data.classes[object]];
  const line = large ? 2.5 : 1.75;
  context.lineJoin = "round";
  if (!onPicture) {
    context.fillStyle = `${color}2e`; // 18 % opaque
    context.fillRect(...box);
  }
  context.lineWidth = line + 1.5;
  context.strokeStyle = "rgb(0 0 0 / 0.5)"; // an edge that shows on any picture
  context.strokeRect(...box);
  context.lineWidth = line;
  context.strokeStyle = color;
  context.strokeRect(...box);
}

function drawLabel(context, data, object, place) {
  const [x, y] = boxIn(data, object, place);
  const number = data.classes[object];
  const text = `${data.meta.names[number]} ${score(data, object)}`;
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  const width = context.measureText(text).width + 10;
  const left = Math.max(place.x, Math.min(x - 1, place.x + place.width - width));
  const top = y - 19 >= place.y ? y - 19 : Math.max(y, place.y);
  context.fillStyle = data.meta.colors[number];
  context.fillRect(left, top, width, 18);
  context.fillStyle = luminance(data.meta.colors[number]) > 0.18 ? "#000" : "#fff";
  context.fillText(text, left + 5, top + 9.5);
}

/** Return an object's score with two decimals, rounded down as the slider counts it. */
function score(data, object) {
  return (Math.floor(data.scores[object] / 100) / 100).toFixed(2);
}

/** Relative luminance as WCAG 2 defines it, from 0 for black to 1 for white. */
function luminance(color) {
  const linear = [1, 3, 5].map((at) => {
    const value = parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}
