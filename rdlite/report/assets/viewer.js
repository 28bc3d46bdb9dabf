"use strict";
/* One frame, large, in a dialog, with the list of its objects. */

class Viewer {
  constructor(data, gallery, byId) {
    Object.assign(this, { data, gallery, byId, place: -1, highlight: -1 });
    this.dialog = byId("viewer");
    byId("viewer-previous").addEventListener("click", () => this.move(-1));
    byId("viewer-next").addEventListener("click", () => this.move(1));
    byId("viewer-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.gallery.focus(this.place));
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.dialog.addEventListener("click", (event) => this.closeOutside(event));
    window.addEventListener("resize", atNextFrame(() => this.draw()));
  }

  closeOutside(event) {
    if (event.target === this.dialog) this.dialog.close();
  }

  onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.move(step);
  }

  open(place) {
    this.place = place;
    if (!this.dialog.open) this.dialog.showModal();
    this.fill();
  }

  move(step) {
    const place = this.place + step;
    if (place >= 0 && place < this.gallery.frames.length) this.open(place);
  }

  get frame() {
    return this.gallery.frames[this.place];
  }

  fill() {
    const { byId, data, frame } = this;
    this.highlight = -1;
    byId("viewer-title").textContent = frameName(data, frame);
    this.enable(byId("viewer-previous"), this.place > 0);
    this.enable(byId("viewer-next"), this.place < this.gallery.frames.length - 1);
    this.fillLink();
    const shown = objectsOf(data, frame, this.gallery.want).reverse();
    byId("viewer-objects").replaceChildren(...shown.map((object) => this.row(object)));
    byId("viewer-note").textContent = this.note(shown.length);
    this.draw();
  }

  /** Switch a button on or off; a focus that it had stays in the dialog, for the keys to work. */
  enable(button, on) {
    const focused = document.activeElement === button;
    button.disabled = !on;
    if (focused && !on) this.byId("viewer-list").focus();
  }

  note(shown) {
    const hidden = this.data.counts[this.frame] - shown;
    const picture = this.data.pictures.has(this.frame) ? "" : " The page has no picture of it.";
    const rest = hidden ? `; the filters hide ${hidden.toLocaleString("en")} more` : "";
    return `${count(shown, "object")}${rest}.${picture}`;
  }

  fillLink() {
    const link = this.byId("viewer-link");
    const address = imageAddress(this.data, this.frame);
    link.hidden = address === null;
    if (address !== null) link.href = address;
  }

  row(object) {
    const { data } = this;
    const [x, y, width, height] = boxPixels(data, object);
    const box = [x, y, x + width, y + height].map((value) => Math.round(value)).join(" ");
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = data.meta.colors[data.classes[object]];
    const row = element(
      "tr", {},
      element("th", { scope: "row" }, swatch, data.meta.names[data.classes[object]]),
      element("td", { class: "number" }, score(data, object)),
      element("td", { class: "number" }, box),
    );
    row.addEventListener("pointerenter", () => this.mark(object));
    row.addEventListener("pointerleave", () => this.mark(-1));
    return row;
  }

  mark(object) {
    this.highlight = object;
    this.draw();
  }

  draw() {
    if (!this.dialog.open) return;
    const canvas = this.byId("viewer-canvas");
    const body = canvas.parentElement;
    const stacked = body.clientWidth < 760;
    const width = Math.floor(stacked ? body.clientWidth : body.clientWidth - 316);
    const [w, h] = [this.data.sizes[2 * this.frame] || 1, this.data.sizes[2 * this.frame + 1] || 1];
    const most = Math.max(160, window.innerHeight * (stacked ? 0.5 : 0.78));
    const height = Math.round(Math.min(most, (width * h) / w));
    const { frame, highlight } = this;
    drawFrame(canvas, this.data, frame, { width, height, want: this.gallery.want, labels: true, highlight });
    canvas.setAttribute("aria-label", `${frameName(this.data, frame)} with boxes around its objects`);
  }
}

/** Return the address of a local image beside the page; null where it is not known. */
function imageAddress(data, frame) {
  const { folder } = data.meta;
  const name = data.names[frame];
  if (folder === null || isFrame(data, frame) || name.startsWith("/")) return null;
  return folder + name.split("/").map(encodeURIComponent).join("/");
}
