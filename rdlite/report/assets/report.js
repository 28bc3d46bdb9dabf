"use strict";
/* Puts the parts together. */

const byId = (id) => document.getElementById(id);

const KEYS = [
  ["/", "go to the search field"],
  ["?", "show this help"],
  ["← → ↑ ↓", "move through the gallery; in a large frame, ← → go to its neighbours"],
  ["Home End PgUp PgDn", "move far through the gallery"],
  ["Enter", "open a frame"],
  ["Esc", "close a frame or this help; empty the search field"],
];

class Report {
  constructor(data) {
    this.data = data;
    this.filter = openFilter();
    this.filter.score = data.meta.least;
    this.order = "place";
    data.pictures = new Pictures(data.meta.pictures, (frame) => this.pictureLoaded(frame));
    this.mode = data.pictures.size > 0 && data.pictures.size < data.length ? "pictures" : "matching";
    this.gallery = new Gallery(data, byId("grid"), (place) => this.viewer.open(place));
    this.viewer = new Viewer(data, this.gallery, byId);
    this.update = atNextFrame(() => this.apply());
    fillHead(data);
    this.makeTimeline();
    this.makeFilters();
    this.makeKeys();
    this.apply();
    this.watch();
  }

  pictureLoaded(frame) {
    this.gallery.drawFrame(frame);
    if (this.viewer.dialog.open && this.viewer.frame === frame) this.viewer.draw();
  }

  makeTimeline() {
    if (!this.data.meta.range) return;
    byId("time").hidden = false;
    this.timeline = new Timeline(this.data, {
      canvas: byId("timeline"), tip: byId("tip"), legend: byId("legend"), table: byId("time-table"),
      onPick: (seconds) => this.gallery.goTo(seconds),
    });
    byId("time-details").addEventListener("toggle", () => this.timeline.fillTable());
  }

  makeFilters() {
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    this.makeSearch();
    this.makeScore();
    this.makeClasses();
    this.makeShow();
    byId("order").addEventListener("change", (event) => { this.order = event.target.value; this.update(); });
  }

  makeSearch() {
    const search = byId("search");
    const timed = Boolean(this.data.meta.range);
    byId("search-label").textContent = timed ? "Go to a time" : "File name contains";
    search.placeholder = timed ? "1:23 or 83.5, then Enter" : "";
    if (!timed) {
      search.addEventListener("input", () => { this.filter.text = search.value.trim(); this.update(); });
      return;
    }
    search.addEventListener("input", () => { byId("search-note").textContent = ""; });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // or it opens the frame that gets the focus
      this.goTo(search.value);
    });
  }

  goTo(text) {
    const seconds = parseClock(text);
    const note = Number.isNaN(seconds) ? "A time is written 83.5, 1:23 or 1:02:03." : "";
    byId("search-note").textContent = note;
    if (!note) this.gallery.goTo(seconds);
  }

  makeScore() {
    const slider = byId("score");
    slider.min = this.data.meta.least;
    slider.value = this.data.meta.least;
    slider.addEventListener("input", () => { this.filter.score = Number(slider.value); this.update(); });
  }

  makeClasses() {
    this.rows = this.data.meta.classes.map((number) => new ClassRow(this.data, number, (on) => {
      if (on) this.filter.classes.add(number);
      else this.filter.classes.delete(number);
      this.update();
    }));
    byId("classes").append(...this.rows.map((row) => row.item));
    byId("all-classes").addEventListener("click", () => {
      this.filter.classes.clear();
      for (const row of this.rows) row.box.checked = false;
      this.rows[0].box.focus(); // the button is about to be switched off
      this.update();
    });
  }

  makeShow() {
    const modes = [["matching", "Matching"], ["others", "Not matching"]];
    if (this.data.pictures.size) modes.unshift(["pictures", "With picture"]);
    this.modes = modes.map(([mode, text]) => {
      const radio = element("input", { type: "radio", name: "show", value: mode, id: `show-${mode}` });
      const number = element("span", { class: "count" });
      radio.checked = mode === this.mode;
      radio.addEventListener("change", () => { this.mode = mode; this.update(); });
      byId("show").append(radio, element("label", { for: `show-${mode}` }, `${text} `, number));
      return { mode, number };
    });
  }

  /** Count anew and show everything. */
  apply() {
    const { data, filter } = this;
    const result = this.result = countMatches(data, filter);
    const percent = `${(filter.score / 100).toFixed(2)}`;
    byId("score-value").textContent = percent;
    byId("score").setAttribute("aria-valuetext", percent);
    byId("all-classes").disabled = filter.classes.size === 0;
    const most = Math.max(1, ...result.byClass);
    for (const row of this.rows) row.show(result.byClass[row.number], most);
    this.showStatus(result);
    this.showGallery(result);
    this.drawCharts();
  }

  showStatus({ objects, frames }) {
    const { kept, noun, objects: all } = this.data.meta;
    const of = (number, whole, word) => `${number.toLocaleString("en")} of ${count(whole, word)}`;
    byId("status").textContent = `${of(objects, all, "object")} in ${of(frames, kept, noun)}`;
  }

  showGallery(result) {
    const { data, filter } = this;
    const frames = chooseFrames(data, result, this.mode, this.order);
    const named = result.named.reduce((sum, one) => sum + one, 0);
    const counts = { matching: result.frames, others: named - result.frames };
    for (const { mode, number } of this.modes) {
      if (mode === "pictures") counts.pictures = countPictures(data, result);
      number.textContent = counts[mode].toLocaleString("en");
    }
    byId("nothing").hidden = frames.length > 0;
    byId("nothing").textContent = data.length
      ? `No ${data.meta.noun} to show here: choose other frames above, or loosen the filters.`
      : "The file has no frames and no images.";
    this.gallery.show(frames, result.matches, wanted(data, filter));
  }

  drawCharts() {
    const { data, filter, result } = this;
    drawHistogram(byId("histogram"), result.histogram, data.meta.least, filter.score);
    if (!this.timeline) return;
    const series = chooseSeries(data, filter, result.byClass);
    this.timeline.show(countOverTime(data, filter, series));
    if (byId("time-details").open) this.timeline.fillTable();
  }

  makeKeys() {
    const rows = KEYS.flatMap(([keys, text]) => [
      element("dt", {}, ...keys.split(" ").map((key) => element("kbd", {}, key))),
      element("dd", {}, text),
    ]);
    byId("keys").append(...rows);
    byId("help-open").addEventListener("click", () => byId("help").showModal());
    byId("help-close").addEventListener("click", () => byId("help").close());
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    const typing = event.target.matches("input[type=search], select");
    if (event.key === "Escape" && event.target === byId("search")) this.emptySearch();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !byId("shortcuts").checked) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "?") byId("help").showModal();
    if (event.key === "/") {
      event.preventDefault();
      byId("search").focus();
    }
  }

  emptySearch() {
    byId("search").value = "";
    byId("search").dispatchEvent(new Event("input"));
  }

  /** Draw anew what depends on the size of the window and on the colour scheme. */
  watch() {
    const charts = atNextFrame(() => this.drawCharts());
    new ResizeObserver(charts).observe(byId("filters"));
    const narrow = matchMedia("(max-width: 900px)"); // where report.css puts all in one column
    const fold = () => { byId("fold").open = !narrow.matches; };
    narrow.addEventListener("change", fold);
    fold();
    if (this.timeline) new ResizeObserver(charts).observe(byId("time"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.update);
  }
}

/** A class in the list: a box to choose it, and a bar as long as it is frequent. */
class ClassRow {
  constructor(data, number, onChange) {
    this.number = number;
    this.box = element("input", { type: "checkbox", value: number });
    this.count = element("span", { class: "count" });
    this.bar = element("span", { class: "bar", "aria-hidden": "true" });
    this.bar.style.backgroundColor = data.meta.colors[number];
    const name = element("span", { class: "name" }, data.meta.names[number]);
    this.box.addEventListener("change", () => onChange(this.box.checked));
    const track = element("span", { class: "track", "aria-hidden": "true" }, this.bar);
    this.item = element("li", {}, element("label", {}, this.box, name, this.count, track));
  }

  show(number, most) {
    this.count.textContent = number.toLocaleString("en");
    this.bar.style.width = `${(100 * number) / most}%`;
  }
}

function countPictures(data, result) {
  return data.meta.pictures.filter((frame) => result.matches[frame] > 0).length;
}

function fillHead({ meta }) {
  byId("kind").textContent = meta.kind;
  byId("title").textContent = meta.title;
  const pairs = (rows) => rows.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]);
  const figures = meta.figures.map((row) => element("div", { class: "card" }, ...pairs([row])));
  byId("figures").append(...figures);
  byId("facts").append(...pairs(meta.facts));
  if (!meta.warnings.length) return;
  byId("warnings").hidden = false;
  byId("warnings").querySelector("h2").textContent = "Please note";
  byId("warnings").querySelector("ul").append(...meta.warnings.map((text) => element("li", {}, text)));
}

loadData().then((data) => new Report(data)).then(
  () => performance.mark("ready"),
  (error) => {
    byId("failure").hidden = false;
    byId("failure").textContent = `The page cannot show its data: ${error.message}. It needs a browser of 2023 or newer.`;
    throw error;
  },
);
