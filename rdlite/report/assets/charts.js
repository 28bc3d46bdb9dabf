"use strict";
/* The histogram of scores, and the chart of objects over time. */

const PLOT = { left: 34, right: 8, top: 8, bottom: 22, height: 190 };
const HISTOGRAM_HEIGHT = 64;
const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600];
const THUMB = 8; // pixels from the end of a slider to the middle of its handle

/** Draw how many objects have which score, those below the slider's value pale. */
function drawHistogram(canvas, histogram, least, chosen) {
  const width = canvas.parentElement.clientWidth;
  const context = openCanvas(canvas, width, HISTOGRAM_HEIGHT);
  const bins = histogram.subarray(least);
  const most = Math.max(1, ...bins);
  const step = (width - 2 * THUMB) / bins.length;
  const [strong, pale] = [token("--accent"), token("--line")];
  bins.forEach((number, place) => {
    const tall = number ? Math.max(1.5, (number / most) * (HISTOGRAM_HEIGHT - 4)) : 0;
    context.fillStyle = least + place >= chosen ? strong : pale;
    const gap = step > 3 ? 0.75 : 0;
    context.fillRect(THUMB + place * step, HISTOGRAM_HEIGHT - tall, Math.max(0.5, step - gap), tall);
  });
  canvas.setAttribute("aria-label", describeScores(histogram));
}

function describeScores(histogram) {
  const all = histogram.reduce((sum, number) => sum + number, 0);
  if (!all) return "Histogram of scores: no objects";
  let [below, bin] = [0, 0];
  while (2 * (below + histogram[bin]) < all) below += histogram[bin++];
  return `Histogram of the scores of ${count(all, "object")}; the median is about ${(bin / 100).toFixed(2)}`;
}

/** The stacked chart of objects per frame over time. */
class Timeline {
  constructor(data, { canvas, tip, legend, table, onPick }) {
    Object.assign(this, { data, canvas, tip, legend, table });
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("click", (event) => onPick(this.secondsAt(event)));
  }

  show(over) {
    this.over = over;
    this.draw();
    this.fillLegend();
    this.canvas.setAttribute("aria-label", this.describe());
  }

  name(number) {
    return number < 0 ? "others" : this.data.meta.names[number];
  }

  color(number) {
    return number < 0 ? token("--edge") : this.data.meta.colors[number];
  }

  describe() {
    const { series, begin, end } = this.over;
    const what = series.length ? series.map((number) => this.name(number)).join(", ") : "no objects";
    return `Objects per frame from ${clock(begin)} to ${clock(end)}: ${what}. The table below has the numbers.`;
  }

  draw(marked = -1) {
    if (!this.over) return;
    const width = this.canvas.parentElement.clientWidth;
    const context = openCanvas(this.canvas, width, PLOT.height);
    this.layout = { width: width - PLOT.left - PLOT.right, height: PLOT.height - PLOT.top - PLOT.bottom };
    const most = niceCeiling(Math.max(0, ...this.stack(this.over.series.length)));
    this.drawAxes(context, most);
    for (let place = this.over.series.length - 1; place >= 0; place--) this.drawArea(context, place, most);
    if (marked >= 0) this.drawMark(context, marked);
  }

  /** Return the objects per frame of the first so many series together, by bin. */
  stack(places) {
    const { values, frames, bins } = this.over;
    const sums = new Array(bins).fill(0);
    for (const row of values.slice(0, places)) row.forEach((number, bin) => { sums[bin] += number; });
    return sums.map((sum, bin) => (frames[bin] ? sum / frames[bin] : 0));
  }

  drawAxes(context, most) {
    const { width, height } = this.layout;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let part = 0; part <= 2; part++) {
      const y = Math.round(PLOT.top + height - (part / 2) * height) + 0.5;
      context.fillStyle = token("--line");
      context.fillRect(PLOT.left, y, width, 1);
      context.fillStyle = token("--muted");
      context.textAlign = "right";
      context.fillText(Number(((most * part) / 2).toPrecision(2)), PLOT.left - 8, y);
    }
    this.drawTimes(context);
  }

  drawTimes(context) {
    const { begin, end } = this.over;
    const { width } = this.layout;
    const step = TIME_STEPS.find((seconds) => (end - begin) / seconds <= width / 80) || 86400;
    context.textAlign = "center";
    for (let time = Math.ceil(begin / step) * step; time <= end; time += step) {
      const x = PLOT.left + (width * (time - begin)) / (end - begin || 1);
      if (x > PLOT.left + width - 16) break;
      context.fillText(clock(time, step < 1 ? 1 : 0), x, PLOT.height - 9);
    }
  }

  drawArea(context, place, most) {
    const { width, height } = this.layout;
    const edge = (bin) => PLOT.left + Math.round((bin * width) / this.over.bins);
    const level = (value) => PLOT.top + height - (value / most) * height;
    context.fillStyle = this.color(this.over.series[place]);
    this.stack(place + 1).forEach((value, bin) => {
      const y = level(value);
      context.fillRect(edge(bin), y, edge(bin + 1) - edge(bin), PLOT.top + height - y);
    });
  }

  drawMark(context, bin) {
    const { width, height } = this.layout;
    context.fillStyle = token("--text");
    context.fillRect(PLOT.left + ((bin + 0.5) / this.over.bins) * width - 0.75, PLOT.top, 1.5, height);
  }

  share(event) {
    const x = event.clientX - this.canvas.getBoundingClientRect().left - PLOT.left;
    return Math.max(0, Math.min(1, x / this.layout.width));
  }

  secondsAt(event) {
    return this.over.begin + this.share(event) * (this.over.end - this.over.begin);
  }

  point(event) {
    const bin = Math.min(this.over.bins - 1, Math.floor(this.share(event) * this.over.bins));
    this.draw(bin);
    this.tip.replaceChildren(...this.tipLines(bin));
    this.tip.hidden = false;
    const x = PLOT.left + ((bin + 0.5) / this.over.bins) * this.layout.width;
    const right = x > this.canvas.clientWidth / 2;
    this.tip.style.left = right ? "" : `${x + 12}px`;
    this.tip.style.right = right ? `${this.canvas.clientWidth - x + 12}px` : "";
  }

  tipLines(bin) {
    const { series, values, frames, begin, end, bins } = this.over;
    const head = element("strong", {}, clock(begin + ((end - begin) * bin) / bins, 1));
    const rows = series.map((number, place) => {
      const mean = frames[bin] ? values[place][bin] / frames[bin] : 0;
      return element("div", {}, this.swatch(number), `${this.name(number)} ${mean.toFixed(2)}`);
    });
    return [head, ...rows];
  }

  leave() {
    this.tip.hidden = true;
    this.draw();
  }

  swatch(number) {
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = this.color(number);
    return swatch;
  }

  fillLegend() {
    const items = this.over.series.map((number) => element("li", {}, this.swatch(number), this.name(number)));
    this.legend.replaceChildren(...items);
  }

  /** Write the chart's numbers into the table, in at most twelve stretches of time. */
  fillTable() {
    const { series, bins, begin, end } = this.over;
    const rows = Math.min(12, bins);
    const head = ["From", ...series.map((number) => this.name(number))];
    const body = Array.from({ length: rows }, (_, row) => {
      const [first, last] = [row, row + 1].map((edge) => Math.round((edge * bins) / rows));
      const cells = series.map((_, place) => element("td", { class: "number" }, this.mean(place, first, last)));
      const from = clock(begin + ((end - begin) * first) / bins, 1);
      return element("tr", {}, element("th", { scope: "row" }, from), ...cells);
    });
    const titles = head.map((text) => element("th", { scope: "col" }, text));
    this.table.replaceChildren(
      element("thead", {}, element("tr", {}, ...titles)), element("tbody", {}, ...body));
  }

  mean(place, first, last) {
    const sum = (values) => values.subarray(first, last).reduce((total, value) => total + value, 0);
    const frames = sum(this.over.frames);
    return frames ? (sum(this.over.values[place]) / frames).toFixed(2) : "0.00";
  }
}

/** Return the next of 1, 2, 5, 10, 20 ... that is not below a value. */
function niceCeiling(value) {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((factor) => factor * unit >= value) * unit;
}
