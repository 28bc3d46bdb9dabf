// The page of a comparison: numbers of all pictures, and those that differ most, side by side.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 20;  // pictures
  const STATES = ["agreed", "alone", "unknown"];
  const ALONE = 1;
  const [SCORE, CLASS, STATE] = [4, 5, 6];
  const $ = (id) => document.getElementById(id);
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

  // Text only ever gets into the page as text.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function svg(tag, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function row(head, ...cells) {
    const made = cells.map((cell) => typeof cell === "string" ? element("td", {}, cell)
      : element("td", {class: "number"}, Number.isInteger(cell)
        ? cell.toLocaleString("en") : cell.toFixed(1)));
    return element("tr", {}, element("th", {scope: "row"}, head), ...made);
  }

  // Summary

  function total(model) {
    return Object.values(model.objects).reduce((sum, n) => sum + n, 0);
  }

  function showSummary() {
    $("title").textContent = document.title;
    const shown = data.pictures.length;
    $("what").textContent = `${count(data.images, "picture")} compared` +
      (shown < data.images ? `; the ${shown} that differ most are in this page` : "") +
      `. Two boxes of one class with an IoU of ${data.iou} or more are the same object. ` +
      `Scores from ${data.options.conf}. Milliseconds are without decoding.`;
    for (const model of data.models) {
      $("models").tBodies[0].append(
        row(model.name, model.arithmetic, total(model), model.ms));
    }
    $("notes").append(...data.notes.map((note) => element("li", {}, note)));
    if (data.failed.length) {
      $("failed").hidden = false;
      $("failed").querySelector("h2").textContent =
        `Not compared: ${count(data.failed.length, "unreadable file")}`;
      $("failed").querySelector("ul").append(
        ...data.failed.map((one) => element("li", {}, one.error)));
    }
  }

  // Agreement of the first model with each of the others

  const PARTS = [["both", "both"], ["only_first", "first"], ["only_other", "other"]];

  function agreementCard(one) {
    const labels = ["both", `${one.first} alone`, `${one.other} alone`];
    const all = PARTS.reduce((sum, [key]) => sum + one[key], 0);
    const bar = element("div", {class: "shares", "aria-hidden": "true"});
    for (const [key, kind] of PARTS) {
      const part = element("div", {class: kind});
      part.style.flexGrow = one[key];
      if (one[key]) bar.append(part);
    }
    const heads = labels.map((label, n) =>
      element("th", {scope: "col", class: "number"}, element("i", {class: PARTS[n][1]}), label));
    const table = element("table", {},
      element("caption", {class: "unseen"}, `Boxes of ${one.first} and ${one.other} by class`),
      element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "class"), ...heads)),
      element("tbody", {},
        row("all", ...PARTS.map(([key]) => one[key])),
        ...Object.entries(one.per_class).map(([name, counts]) =>
          row(name, ...PARTS.map(([key]) => counts[key])))));
    const left = element("div", {},
      element("h2", {}, `${one.first} and ${one.other}: ` +
        `${one.both.toLocaleString("en")} of ${count(all, "object")} found by both`), bar,
      element("details", {open: ""}, element("summary", {}, "boxes by class"), table));
    return element("article", {class: "card agreement"}, left, scatter(one));
  }

  function scatter(one) {
    const [size, left, top] = [220, 46, 10];
    const cell = size / data.bins;
    const most = Math.max(1, ...one.scores.map(([, , n]) => n));
    const near = one.scores.filter(([a, b]) => Math.abs(a - b) <= 1)
      .reduce((sum, [, , n]) => sum + n, 0);
    const label = `Scores of the ${count(one.both, "object")} found by both: ` +
      `${near} of them lie at most one step of ${1 / data.bins} apart`;
    const dots = one.scores.map(([a, b, n]) => svg("circle", {
      cx: left + (a + 0.5) * cell, cy: top + size - (b + 0.5) * cell,
      r: Math.max(1, 0.7 * cell * Math.sqrt(n / most)),
    }, svg("title", {}, `${n}: ${one.first} ${range(a)}, ${one.other} ${range(b)}`)));
    const text = (content, attributes) => svg("text", {"text-anchor": "middle", ...attributes},
      content);
    const low = top + size;
    return svg("svg", {class: "scatter", role: "img", "aria-label": label,
      viewBox: `0 0 ${left + size + 12} ${low + 38}`},
      svg("rect", {class: "frame", x: left, y: top, width: size, height: size}),
      svg("line", {class: "diagonal", x1: left, y1: low, x2: left + size, y2: top}),
      ...dots,
      ...[0, 0.5, 1].flatMap((value) => [
        text(value, {x: left + value * size, y: low + 14}),
        text(value, {x: left - 14, y: low - value * size + 4}),
      ]),
      text(`score by ${short(one.first)}`, {x: left + size / 2, y: low + 30}),
      text(`score by ${short(one.other)}`,
        {transform: `translate(12 ${top + size / 2}) rotate(-90)`}));
  }

  const short = (name) => name.length > 28 ? `…${name.slice(-27)}` : name;
  const range = (bin) => `${(bin / data.bins).toFixed(2)} to ${((bin + 1) / data.bins).toFixed(2)}`;

  // Pictures

  let shown = [];
  let place = 0;

  function visible(box) {
    const wanted = $("class").value;
    return box[SCORE] >= Number($("score").value) && (wanted === "" || box[CLASS] === Number(wanted));
  }

  function aloneIn(picture) {
    return picture.boxes.flat().filter((box) => box[STATE] === ALONE && visible(box)).length;
  }

  const ORDERS = {
    difference: (a, b) => b.difference - a.difference,
    alone: (a, b) => aloneIn(b) - aloneIn(a),
    number: (a, b) => a.number - b.number,
  };

  function choose() {
    const text = $("search").value.toLowerCase();
    const wanted = $("class").value;
    shown = data.pictures.filter((picture) =>
      picture.name.toLowerCase().includes(text) &&
      (wanted === "" || picture.boxes.flat().some(visible)) &&
      (!$("differing").checked || aloneIn(picture) > 0));
    shown.sort(ORDERS[$("order").value]);
    $("score-value").textContent = Number($("score").value).toFixed(2);
    show(0);
  }

  function show(first) {
    place = first;
    const some = shown.slice(first, first + PAGE);
    $("pictures").replaceChildren(...some.map(pictureRow));
    $("count").textContent = `${shown.length} of ${count(data.pictures.length, "picture")} shown`;
    $("place").textContent = shown.length
      ? `${first + 1} to ${first + some.length} of ${shown.length}` : "";
    $("previous").disabled = first === 0;
    $("next").disabled = first + PAGE >= shown.length;
  }

  function pictureRow(picture) {
    const figures = picture.boxes.map((boxes, n) => figure(picture, boxes.filter(visible), n));
    return element("li", {tabindex: "-1"},
      element("h3", {}, picture.name),
      element("p", {class: "small muted"},
        `difference ${picture.difference.toFixed(2)}, ` +
        `${count(aloneIn(picture), "object")} that one model has alone`),
      element("div", {class: "models"}, ...figures));
  }

  function figure(picture, boxes, n) {
    const model = data.models[n].name;
    const named = boxes.map((box) =>
      `${data.classes[box[CLASS]]} ${box[SCORE].toFixed(2)}${box[STATE] === ALONE ? " (alone)" : ""}`);
    const image = element("img", {
      src: `data:image/jpeg;base64,${picture.jpeg}`, loading: "lazy",
      width: picture.width, height: picture.height,
      alt: `${picture.name} as ${model} sees it: ${named.join(", ") || "nothing"}`,
    });
    const alone = boxes.filter((box) => box[STATE] === ALONE);
    const last = [...boxes.filter((box) => box[STATE] !== ALONE).reverse(), ...alone.reverse()];
    return element("figure", {},
      element("figcaption", {}, element("b", {}, model),
        `: ${count(boxes.length, "object")}, ${alone.length} alone`),
      // The last is on top: the best of those that differ.
      element("div", {class: "view"}, image, ...last.map((box) => boxElement(picture, box))));
  }

  function boxElement(picture, box) {
    const [x1, y1, x2, y2] = box;
    const made = element("div", {class: `box ${STATES[box[STATE]]}`, "aria-hidden": "true"},
      element("span", {}, `${data.classes[box[CLASS]]} ${box[SCORE].toFixed(2)}`));
    const percent = (value, whole) => `${100 * value / whole}%`;
    made.style.left = percent(x1, picture.width);
    made.style.top = percent(y1, picture.height);
    made.style.width = percent(x2 - x1, picture.width);
    made.style.height = percent(y2 - y1, picture.height);
    return made;
  }

  // Controls

  function fillControls() {
    const tally = new Array(data.classes.length).fill(0);
    for (const picture of data.pictures) {
      for (const box of picture.boxes.flat()) tally[box[CLASS]] += 1;
    }
    const order = [...tally.keys()].sort((a, b) => tally[b] - tally[a]);
    $("class").append(element("option", {value: ""}, "all"), ...order.map((n) =>
      element("option", {value: n}, `${data.classes[n]} (${tally[n]})`)));
    // Whole hundredths: scores in the page are rounded, and must not fall below the slider's end.
    $("score").min = $("score").value = Math.floor(data.options.conf * 100 + 1e-9) / 100;
  }

  function step(by) {
    const rows = [...$("pictures").children];
    const at = rows.findIndex((one) => one.contains(document.activeElement));
    const next = rows[at < 0 ? 0 : at + by];
    if (next) {
      next.focus({preventScroll: true});
      next.scrollIntoView({block: "start"});
    } else if (rows.length) {
      turn(by, by > 0 ? 0 : PAGE - 1);
    }
  }

  function turn(by, row = 0) {
    const first = place + by * PAGE;
    if (first < 0 || first >= shown.length) return;
    show(first);
    const target = $("pictures").children[Math.min(row, $("pictures").children.length - 1)];
    target.focus({preventScroll: true});
    target.scrollIntoView({block: "start"});
  }

  const KEYS = {
    j: () => step(1),
    k: () => step(-1),
    n: () => turn(1),
    p: () => turn(-1),
    "/": () => $("search").focus(),
  };

  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!$("shortcuts").checked || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  $("controls").addEventListener("input", choose);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));

  showSummary();
  $("agreements").append(...data.agreements.map(agreementCard));
  fillControls();
  choose();
})();
