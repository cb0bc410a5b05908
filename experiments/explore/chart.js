"use strict";
// Charts as SVG in pixels of the page, so that letters keep their size on a phone and a projector.
const chart = (() => {
  const SHAPES = {  // outlines of about the same area around a point, r its size
    circle: (x, y, r) =>
      `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
    square: (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    triangle: (x, y, r) => `M${x},${y - 1.2 * r}l${1.2 * r},${2.1 * r}h${-2.4 * r}z`,
    cross: (x, y, r) => `M${x - r},${y - r}l${2 * r},${2 * r}m0,${-2 * r}l${-2 * r},${2 * r}`,
  };

  function element(parent, name, attributes, text) {
    const made = document.createElementNS(parent.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  // Empties the picture and draws its axes. An axis is {from, to, log, ticks: [[value, text]],
  // title}. Returns [a group cut off at the axes, x -> pixel, y -> pixel, size of a letter].
  function axes(svg, x, y) {
    svg.replaceChildren();
    const width = svg.clientWidth, height = svg.clientHeight;
    const letter = parseFloat(getComputedStyle(svg).fontSize);
    const longest = Math.max(...y.ticks.map(([, text]) => text.length));
    const left = (0.6 * longest + 2.4) * letter, right = width - 1.8 * letter;
    const top = 0.6 * letter, bottom = height - 3.2 * letter;
    const scale = ({ from, to, log }, low, high) => {
      const at = log ? Math.log : Number;
      return (value) => low + ((high - low) * (at(value) - at(from))) / (at(to) - at(from));
    };
    const toX = scale(x, left, right), toY = scale(y, bottom, top);
    let free = 0;  // from here on there is room for the next label
    for (const [value, text] of x.ticks) {
      const at = toX(value), half = 0.4 * letter * text.length;
      element(svg, "path", { class: "grid", d: `M${at},${top}V${bottom}` });
      if (at - half < free) continue;
      free = at + half;
      const place = { x: at, y: bottom + 1.2 * letter, "text-anchor": "middle" };
      element(svg, "text", place, text);
    }
    for (const [value, text] of y.ticks) {
      const at = toY(value);
      element(svg, "path", { class: "grid", d: `M${left},${at}H${right}` });
      const place = { x: left - 0.5 * letter, y: at + 0.35 * letter, "text-anchor": "end" };
      element(svg, "text", place, text);
    }
    element(svg, "path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` });
    const middle = { x: (left + right) / 2, y: height - 0.5 * letter, "text-anchor": "middle" };
    element(svg, "text", middle, x.title);
    const turned = `translate(${letter},${(top + bottom) / 2}) rotate(-90)`;
    element(svg, "text", { transform: turned, "text-anchor": "middle" }, y.title);
    const id = `${svg.id}-inside`, clip = element(svg, "clipPath", { id });
    // Wide enough for whole marks at the ends of the x axis.
    const sides = { x: left - letter, width: right - left + 2 * letter };
    element(clip, "rect", { ...sides, y: top, height: bottom - top });
    return [element(svg, "g", { "clip-path": `url(#${id})` }), toX, toY, letter];
  }

  // A line through points, broken where one is not finite or cannot be shown on a log axis.
  function line(inside, toX, toY, name, points) {
    let d = "", pen = "M";
    for (const [x, y] of points) {
      const at = toY(y);
      if (!Number.isFinite(at)) pen = "M";
      else {
        // Far outside of the picture coordinates would lose their digits.
        d += `${pen}${toX(x).toFixed(2)},${Math.max(-1e5, Math.min(1e5, at)).toFixed(2)}`;
        pen = "L";
      }
    }
    element(inside, "path", { class: `line ${name}`, d });
  }

  function area(inside, toX, toY, name, points) {
    const to = (x, y) => `${toX(x).toFixed(2)},${toY(y).toFixed(2)}`;
    const upper = points.map(([x, , high]) => to(x, high));
    const lower = points.map(([x, low]) => to(x, low)).reverse();
    element(inside, "path", { class: `area ${name}`, d: `M${[...upper, ...lower].join("L")}z` });
  }

  // A point, with the ends of its interval where it has one; what is not above 0 on a log axis is
  // left out, and its interval goes down to the axis.
  function mark(inside, toX, toY, letter, name, shape, x, y, interval) {
    const at = toX(x), size = 0.36 * letter;
    if (interval) {
      const [low, high] = interval.map((end) => Math.max(-1e5, Math.min(1e5, toY(end))));
      if (Number.isFinite(high)) {
        const bottom = Number.isFinite(low) ? low : 1e5;
        element(inside, "path", { class: `line ${name}`, d: `M${at},${high}V${bottom}` });
      }
    }
    if (Number.isFinite(toY(y))) {
      element(inside, "path", { class: `mark ${name}`, d: SHAPES[shape](at, toY(y), size) });
    }
  }

  // Round numbers between two, about `count` of them.
  function round(from, to, count) {
    const rough = (to - from) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), ticks = [];
    for (let i = Math.ceil(from / step); i * step <= to; i++) {
      const text = (i * step).toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−");
      ticks.push([i * step, text]);
    }
    return ticks;
  }

  return { area, axes, element, line, mark, round };
})();
