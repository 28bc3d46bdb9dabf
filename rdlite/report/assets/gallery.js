"use strict";
/* The gallery: only the cards that can be seen exist, however many frames there are. */

const GAP = 12;
const CAPTION = 46; // pixels below a picture
const SPARE_ROWS = 2; // kept above and below what can be seen

/** Return a new element; attributes are set, children are elements or plain text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

class Gallery {
  /** `onOpen` is called with the place of a card in the gallery. */
  constructor(data, root, onOpen) {
    Object.assign(this, { data, root, onOpen, frames: [], active: 0, cards: new Map() });
    this.aspect = this.chooseAspect();
    this.redraw = atNextFrame(() => this.render());
    window.addEventListener("scroll", this.redraw, { passive: true });
    new ResizeObserver(() => { this.layout(); this.drawAll(); }).observe(root);
    root.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** All cards have one shape: that of the median frame, within reason. */
  chooseAspect() {
    const { sizes, length } = this.data;
    const shapes = [];
    for (let i = 0; i < length; i += Math.ceil(length / 999)) shapes.push(sizes[2 * i] / (sizes[2 * i + 1] || 1));
    shapes.sort((a, b) => a - b);
    return Math.max(0.8, Math.min(2.4, shapes[shapes.length >> 1] || 4 / 3));
  }

  /** Show these frames; `want` says which objects are drawn. */
  show(frames, matches, want) {
    Object.assign(this, { frames, matches, want });
    this.active = Math.min(this.active, Math.max(0, frames.length - 1));
    this.layout();
    this.drawAll();
  }

  layout() {
    const width = this.root.clientWidth;
    this.columns = Math.max(1, Math.floor((width + GAP) / ((width < 520 ? 170 : 220) + GAP)));
    this.width = Math.floor((width - GAP * (this.columns - 1)) / this.columns);
    this.height = Math.round(this.width / this.aspect);
    this.rowHeight = this.height + CAPTION + GAP;
    const rows = Math.ceil(this.frames.length / this.columns);
    this.root.style.height = `${Math.max(0, rows * this.rowHeight - GAP)}px`;
  }

  /** Draw all cards anew, because something about all of them has changed. */
  drawAll() {
    if (this.want === undefined) return;
    const focused = this.root.contains(document.activeElement);
    for (const card of this.cards.values()) card.remove();
    this.cards.clear();
    this.render();
    if (focused) this.cards.get(this.active)?.firstChild.focus({ preventScroll: true });
  }

  /** Draw the cards of one frame, whose picture has been decoded. */
  drawFrame(frame) {
    for (const [place, card] of this.cards) if (this.frames[place] === frame) this.paint(card, place);
  }

  visible() {
    const top = -this.root.getBoundingClientRect().top;
    const first = Math.floor(top / this.rowHeight) - SPARE_ROWS;
    const last = Math.ceil((top + window.innerHeight) / this.rowHeight) + SPARE_ROWS;
    const end = Math.min(this.frames.length, Math.max(0, last) * this.columns);
    return [Math.max(0, Math.min(first * this.columns, end)), end];
  }

  render() {
    if (this.want === undefined) return;
    const [first, end] = this.visible();
    const places = new Set();
    for (let place = first; place < end; place++) places.add(place);
    if (this.frames.length) places.add(this.active); // keeps its focus when it is scrolled away
    for (const [place, card] of this.cards) {
      if (places.has(place)) continue;
      card.remove();
      this.cards.delete(place);
    }
    this.insert([...places].sort((a, b) => a - b));
  }

  /** Add the cards that are missing, each before the next one, so that their order is right. */
  insert(places) {
    let next = null;
    for (const place of places.reverse()) {
      let card = this.cards.get(place);
      if (card === undefined) {
        card = this.makeCard(place);
        this.cards.set(place, card);
        this.root.insertBefore(card, next);
        this.paint(card, place);
      }
      next = card;
    }
  }

  makeCard(place) {
    const frame = this.frames[place];
    const text = element("bdi", { dir: "ltr" }, frameName(this.data, frame, true));
    const name = element("span", { class: "name" }, text);
    const found = element("span", { class: "muted" }, count(this.matches[frame], "object"));
    const canvas = element("canvas", { "aria-hidden": "true" });
    const caption = element("span", { class: "caption small" }, name, found);
    const button = element("button", { type: "button", class: "frame", "aria-haspopup": "dialog" }, canvas, caption);
    button.tabIndex = place === this.active ? 0 : -1;
    button.title = frameName(this.data, frame);
    button.addEventListener("click", () => { this.setActive(place); this.onOpen(place); });
    button.addEventListener("focus", () => this.setActive(place));
    const position = { "aria-setsize": this.frames.length, "aria-posinset": place + 1 };
    const card = element("li", position, button);
    card.style.width = `${this.width}px`;
    card.style.transform = `translate(${(place % this.columns) * (this.width + GAP)}px, ${
      Math.floor(place / this.columns) * this.rowHeight}px)`;
    return card;
  }

  paint(card, place) {
    const area = { width: this.width - 2, height: this.height, want: this.want };
    drawFrame(card.querySelector("canvas"), this.data, this.frames[place], area);
  }

  setActive(place) {
    const before = this.cards.get(this.active)?.firstChild;
    if (before) before.tabIndex = -1;
    this.active = place;
    const card = this.cards.get(place)?.firstChild;
    if (card) card.tabIndex = 0;
  }

  /** Move the focus to a card, scrolled to where it can be seen. */
  focus(place) {
    if (!this.frames.length) return;
    const target = Math.max(0, Math.min(place, this.frames.length - 1));
    this.setActive(target);
    this.reveal(target);
    this.render();
    this.cards.get(target).firstChild.focus({ preventScroll: true });
  }

  reveal(place) {
    const top = this.root.getBoundingClientRect().top + Math.floor(place / this.columns) * this.rowHeight;
    const over = top + this.rowHeight - window.innerHeight + GAP;
    if (top < 0) window.scrollBy({ top: top - GAP, behavior: "instant" });
    else if (over > 0) window.scrollBy({ top: over, behavior: "instant" });
  }

  /** Move to the frame whose time is nearest. */
  goTo(seconds) {
    let best = -1;
    let least = Infinity;
    this.frames.forEach((frame, place) => {
      const away = Math.abs(this.data.seconds[frame] - seconds);
      if (away < least) [best, least] = [place, away];
    });
    if (best >= 0) this.focus(best);
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(window.innerHeight / this.rowHeight)) * this.columns;
    const step = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity,
    }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.focus(this.active + step);
  }
}

/** Return a function that calls another one, once however often it is called before a repaint. */
function atNextFrame(act) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; act(); });
  };
}
