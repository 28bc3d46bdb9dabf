"use strict";
/* Which objects are wanted, and how many there are. */

const SERIES = 6; // classes with a colour of their own in the chart over time
const TIME_BINS = 160;

/** Return the filter that lets everything through. */
function openFilter() {
  return { classes: new Set(), score: 0, text: "" };
}

/** Return a function that says whether an object is wanted; the text is about frames. */
function wanted(data, filter) {
  const on = enabledClasses(data, filter);
  const least = filter.score * (SCORE_STEPS / 100);
  return (object) => data.scores[object] >= least && on[data.classes[object]] === 1;
}

function enabledClasses(data, filter) {
  const on = new Uint8Array(data.meta.names.length).fill(filter.classes.size ? 0 : 1);
  for (const number of filter.classes) on[number] = 1;
  return on;
}

/**
 * Count what a filter lets through.
 *
 * `matches` has the wanted objects of each frame, `named` which frames have the text in their
 * name. The count of a class ignores which classes are chosen, the histogram (a bin for each
 * hundredth) ignores the score: they say what choosing otherwise would show.
 */
function countMatches(data, filter) {
  const { starts, scores, classes, length } = data;
  const on = enabledClasses(data, filter);
  const least = filter.score * (SCORE_STEPS / 100);
  const named = matchNames(data, filter.text);
  const matches = new Uint32Array(length);
  const byClass = new Uint32Array(on.length);
  const histogram = new Uint32Array(100);
  for (let frame = 0; frame < length; frame++) {
    if (!named[frame]) continue;
    for (let i = starts[frame]; i < starts[frame + 1]; i++) {
      const [score, number] = [scores[i], classes[i]];
      if (on[number]) histogram[Math.min(99, Math.floor(score / 100))]++;
      if (score < least) continue;
      byClass[number]++;
      matches[frame] += on[number];
    }
  }
  return { matches, named, byClass, histogram, ...totals(matches) };
}

function matchNames(data, text) {
  const named = new Uint8Array(data.length).fill(1);
  if (text && !data.meta.video) {
    const sought = text.toLowerCase();
    for (let i = 0; i < data.length; i++) named[i] = data.sought[i].includes(sought) ? 1 : 0;
  }
  return named;
}

function totals(matches) {
  let [objects, frames] = [0, 0];
  for (const number of matches) {
    objects += number;
    if (number) frames++;
  }
  return { objects, frames };
}

/** Return the classes to draw, most frequent first; all others share one series, -1. */
function chooseSeries(data, filter, byClass) {
  const on = enabledClasses(data, filter);
  const present = [...byClass.keys()].filter((number) => on[number] && byClass[number]);
  present.sort((a, b) => byClass[b] - byClass[a]);
  return present.length > SERIES ? [...present.slice(0, SERIES), -1] : present;
}

/** Return the wanted objects over time: `frames` by bin, and `values` by series and bin. */
function countOverTime(data, filter, series) {
  const { starts, classes, seconds, length } = data;
  const [begin, end] = data.meta.range;
  const want = wanted(data, filter);
  const bins = Math.max(1, Math.ceil(length / Math.ceil(length / TIME_BINS))); // as many frames in each
  const slot = new Int16Array(data.meta.names.length).fill(series.indexOf(-1));
  series.forEach((number, place) => { if (number >= 0) slot[number] = place; });
  const frames = new Uint32Array(bins);
  const values = series.map(() => new Uint32Array(bins));
  for (let frame = 0; frame < length; frame++) {
    const share = (seconds[frame] - begin) / (end - begin || 1);
    const bin = Math.max(0, Math.min(bins - 1, Math.floor(share * bins)));
    frames[bin]++;
    for (let i = starts[frame]; i < starts[frame + 1]; i++) {
      if (want(i)) values[slot[classes[i]]][bin]++;
    }
  }
  return { series, frames, values, bins, begin, end };
}

/** Return the frames of the gallery, in its order. */
function chooseFrames(data, result, show, order) {
  const { matches, named } = result;
  const pick = {
    matching: (frame) => matches[frame] > 0,
    pictures: (frame) => matches[frame] > 0 && data.pictures.has(frame),
    others: (frame) => named[frame] && matches[frame] === 0,
  }[show];
  const frames = [];
  for (let frame = 0; frame < data.length; frame++) if (pick(frame)) frames.push(frame);
  if (order === "objects") frames.sort((a, b) => matches[b] - matches[a] || a - b);
  return frames;
}
