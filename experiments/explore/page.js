"use strict";
// The page: sliders set a state, from which everything shown is made anew.
{
  const byId = (id) => document.getElementById(id);
  const runs = JSON.parse(byId("runs").textContent);
  const SD = Math.sqrt(gaussian.S);  // of the posterior
  const LARGEST = 2 ** 14;  // of K in the curves, and of M K
  const COUNTS = Array.from({ length: 29 }, (_, i) => Math.round(2 ** (i / 2)));
  const MOST_BARS = 256;  // of several groups

  // What a slider stands for, the words beside it, and the inverse.
  const SLIDERS = {
    K: { value: (at) => 2 ** at, at: Math.log2, text: (K) => `${K}` },
    M: { value: (at) => 2 ** at, at: Math.log2, text: (M) => `${M}` },
    distance: {
      value: (at) => 24 * (at / 120) ** 2,
      at: (distance) => 120 * Math.sqrt(distance / 24),
      text: (distance) => `${number(distance)} sd`,
    },
    v: { value: (at) => at / 60, at: (v) => 60 * v, text: (v) => v.toFixed(3) },
    D: { value: (at) => at, at: (D) => D, text: (D) => `${D}` },
    alpha: { value: (at) => at / 100, at: (alpha) => 100 * alpha, text: (a) => a.toFixed(2) },
  };
  const state = { K: 64, M: 1, dreg: true, seed: 1, run: null };

  function number(x, digits = 3) {
    if (!Number.isFinite(x)) return "–";
    const size = Math.abs(x), plain = size >= 1e-3 && size < 1e5;
    if (x === 0) return "0";
    let [text, power] = (plain ? x.toPrecision(digits) : x.toExponential(digits - 1)).split("e");
    if (plain && power) text = String(Math.round(x));
    text = text.replace("-", "−");
    if (plain) return text;
    const raised = Array.from(power, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)] ?? "");
    return `${text} · 10${raised.join("")}`;
  }

  // Of a bound, without what rounding leaves where it is tight.
  const below = (logP, bound) => (Math.abs(logP - bound) < 1e-10 ? 0 : logP - bound);

  // A run brings its own vectors; sliders spread the distance evenly over coordinates.
  function setting() {
    const { D, distance, v, alpha, run } = state;
    if (run) return { delta: run.delta, offset: run.offset, v, alpha };
    const each = (distance * SD) / Math.sqrt(D);
    return { delta: Array(D).fill(each), offset: Array(D).fill(Math.SQRT2), v, alpha };
  }

  function start(run) {
    const distance = Math.hypot(...run.delta) / SD;
    Object.assign(state, { run, M: 1, D: run.delta.length, v: run.variance, alpha: 0, distance });
    update();
  }

  // --- what is shown ----------------------------------------------------------------------------

  function update() {
    for (const [name, slider] of Object.entries(SLIDERS)) {
      const input = byId(name), text = slider.text(state[name]);
      input.value = slider.at(state[name]);
      input.setAttribute("aria-valuetext", text);
      byId(`${name}-value`).value = text;
    }
    for (const button of document.querySelectorAll("[data-run]")) {
      button.setAttribute("aria-pressed", String(state.run === runs[button.dataset.run]));
    }
    const at = setting(), transforms = gaussian.transforms(at);
    const all = new Map();  // K -> exact answers, each computed once
    const exact = (K) => all.get(K) ?? all.set(K, gaussian.finite(transforms, K)).get(K);
    for (const [name, shown] of [
      ["of-alpha", state.alpha > 0 && state.alpha < 1], ["of-dreg", state.dreg],
      ["of-run", state.run && state.M === 1], ["of-groups", state.M > 1],
    ]) {
      for (const part of document.getElementsByClassName(name)) part.hidden = !shown;
    }
    drawBounds(at, exact);
    drawRatios(at, exact);
    drawWeights(at, exact);
    fillTables(at, exact);
    summarize(at, exact);
  }

  const logTicks = (from, to) => {
    const ticks = [];
    for (let power = Math.round(Math.log10(from)); 10 ** power <= to * 1.001; power++) {
      ticks.push([10 ** power, `${+(10 ** power).toPrecision(1)}`]);
    }
    return ticks;
  };
  const samples = () => ({
    from: 1, to: LARGEST, log: true, title: "samples K",
    ticks: [1, 4, 16, 64, 256, 1024, 4096, 16384].map((K) => [K, `${K}`]),
  });
  const curve = (of) => COUNTS.map((K) => [K, of(K)]);

  function drawBounds(at, exact) {
    const logP = gaussian.logLikelihood(at), elbo = logP - gaussian.elboGap(at);
    const room = Math.max(0.5 * (logP - elbo), 0.02);
    const y = { from: elbo - room, to: logP + room, title: "nats" };
    y.ticks = chart.round(y.from, y.to, 5);
    const [inside, toX, toY, letter] = chart.axes(byId("bounds"), samples(), y);
    const flat = (name, value) => chart.line(inside, toX, toY, name, curve(() => value));
    const root = Math.sqrt(state.M);
    chart.area(inside, toX, toY, "bound", COUNTS.map((K) => {
      const { bound, deviation } = exact(K);
      return [K, bound - deviation / root, bound + deviation / root];
    }));
    flat("elbo", elbo);
    if (state.alpha > 0 && state.alpha < 1) flat("limit", gaussian.limit(at));
    const leading = curve((K) => gaussian.leadingOrder(at, K).bound);
    chart.line(inside, toX, toY, "bound leading", leading);
    chart.line(inside, toX, toY, "bound", curve((K) => exact(K).bound));
    flat("truth", logP);
    const put = (K, name) =>
      chart.mark(inside, toX, toY, 1.4 * letter, `bound ${name}`, "circle", K, exact(K).bound);
    if (state.M > 1) put(state.M * state.K, "hollow");
    put(state.K, "now");
  }

  function series() {
    const all = [["theta", "circle"], ["phi", "square"], ["dreg", "triangle"]];
    return all.slice(0, state.dreg ? 3 : 2);
  }

  function drawRatios(at, exact) {
    const { M, K, run } = state, root = Math.sqrt(M), shown = run && M === 1 ? run.series : {};
    const lines = series().map(([name]) => curve((count) => root * exact(count)[name]));
    const replicates = (run ?? runs[0]).replicates, floor = Math.sqrt(2 / (Math.PI * replicates));
    const heights = lines.flat().map(([, y]) => y).concat(floor).filter((y) => y > 1e-9);
    const y = {
      from: 10 ** Math.floor(Math.log10(Math.min(...heights)) - 0.05),
      to: 10 ** Math.ceil(Math.log10(Math.max(...heights)) + 0.05),
      log: true, title: "|mean| / standard deviation",
    };
    y.ticks = logTicks(y.from, y.to);
    const [inside, toX, toY, letter] = chart.axes(byId("snr"), samples(), y);
    chart.line(inside, toX, toY, "floor", curve(() => floor));
    series().forEach(([name], i) => {
      const leading = curve((count) => root * gaussian.leadingOrder(at, count)[name]);
      chart.line(inside, toX, toY, `${name} leading`, leading);
      chart.line(inside, toX, toY, name, lines[i]);
    });
    for (const [name, shape] of series()) {
      if (M > 1) {
        const value = exact(M * K)[name];
        chart.mark(inside, toX, toY, 1.4 * letter, `${name} hollow`, shape, M * K, value);
      }
      chart.mark(inside, toX, toY, 1.4 * letter, `${name} now`, shape, K, root * exact(K)[name]);
    }
    for (const [name, shape] of [["plain", "cross"], ...series()]) {
      for (const [count, value, low, high] of shown[name] ?? []) {
        const color = name === "plain" ? "phi cross" : name;
        chart.mark(inside, toX, toY, letter, `${color} interval`, shape, count, value, [low, high]);
      }
    }
    byId("replicates").textContent = replicates.toLocaleString("en").replace(",", " ");
  }

  // --- draws ------------------------------------------------------------------------------------

  // Uniform in (0, 1), a function of (seed, k) and of how many were drawn before: mulberry32.
  function uniforms(seed, k) {
    let a = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(k + 1, 0x85ebca6b)) >>> 0;
    return () => {
      a = (a + 0x6d2b79f5) | 0;
      let t = Math.imul(a ^ (a >>> 15), 1 | a);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
    };
  }

  // log w of samples first .. first + count - 1, each with noise of its own: sample k has the same
  // in every setting.
  function logWeights({ delta, offset, v }, seed, first, count) {
    const logP = gaussian.logLikelihood({ offset }), sd = Math.sqrt(v);
    return Array.from({ length: count }, (_, i) => {
      const uniform = uniforms(seed, first + i);
      let log = logP + 0.5 * delta.length * Math.log(v / gaussian.S);
      for (const d of delta) {
        const noise = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
        log += 0.5 * noise * noise - (0.5 * (d + sd * noise) ** 2) / gaussian.S;
      }
      return log;
    });
  }

  // Normalised weights of one group, and its estimate of the bound.
  function weigh(logs, alpha) {
    const t = 1 - alpha, top = Math.max(...logs);
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    const parts = logs.map((log) => Math.exp(t * (log - top))), total = sum(parts);
    const bound = t === 0 ? sum(logs) / logs.length : top + Math.log(total / logs.length) / t;
    return { weights: parts.map((part) => part / total), bound };
  }

  function drawWeights(at, exact) {
    const { K, M, alpha, seed } = state, groups = Math.min(M, Math.max(1, MOST_BARS / K));
    const draw = (_, group) => weigh(logWeights(at, seed, group * K, K), alpha);
    const drawn = Array.from({ length: groups }, draw);
    const ofDreg = (weight) => alpha * weight + (1 - alpha) * weight * weight;
    const largest = Math.max(...drawn.flatMap((group) => group.weights));
    const x = { from: 0, to: groups * (K + 1) + 1, title: "samples", ticks: [] };
    const y = { from: 0, to: Math.max(1.05 * largest, 1.5 / K), title: "weight" };
    y.ticks = chart.round(0, y.to, 3);
    const [inside, toX, toY] = chart.axes(byId("weights"), x, y);
    const width = toX(1) - toX(0), gap = width > 4 ? 0.12 : 0;
    const bars = (of, share) => drawn.flatMap(({ weights }, group) => weights.map((weight, k) => {
      const left = toX(1 + group * (K + 1) + k + 0.5 * (1 - share + gap)).toFixed(2);
      const across = (width * (share - gap)).toFixed(2), height = toY(of(weight)).toFixed(2);
      return `M${left},${toY(0)}V${height}h${across}V${toY(0)}z`;
    })).join("");
    chart.element(inside, "path", { class: "bars bar", d: bars((weight) => weight, 1) });
    if (state.dreg) chart.element(inside, "path", { class: "bars dreg", d: bars(ofDreg, 0.6) });
    chart.line(inside, toX, toY, "floor", [[0, 1 / K], [x.to, 1 / K]]);
    const { weights, bound } = drawn[0], ess = 1 / weights.reduce((a, w) => a + w * w, 0);
    const limit = K * Math.exp(-gaussian.log1pChiSquare(at));
    const which = `${groups < M ? `The first ${groups} of ` : ""}${M} groups of ${K}; in the first`;
    byId("weights-text").textContent =
      `${M > 1 ? which : "In this draw"} the largest weight is ${number(Math.max(...weights))}, ` +
      `the effective sample size ${number(ess)} of ${K} (at large K: K/(1 + χ²), here ` +
      `${number(limit)}), and the estimate of the bound ${number(bound, 5)} nats, whose ` +
      `expectation is ${number(exact(K).bound, 5)}.`;
  }

  // --- words and tables -------------------------------------------------------------------------

  const nameOf = (alpha) => (alpha === 0 ? "IWAE" : alpha === 1 ? "ELBO" : "VR-IWAE");

  function table(id, heads, rows) {
    const line = (cells, tag) => {
      const row = document.createElement("tr");
      cells.forEach((text, i) => {
        const cell = document.createElement(i ? tag : "th");
        if (cell.tagName === "TH") cell.scope = tag === "th" ? "col" : "row";
        cell.textContent = text;
        row.append(cell);
      });
      return row;
    };
    const head = document.createElement("thead"), body = document.createElement("tbody");
    head.append(line(heads, "th"));
    body.append(...rows.map((cells) => line(cells, "td")));
    byId(id).replaceChildren(head, body);
  }

  function fillTables(at, exact) {
    const { K, M, alpha } = state, root = Math.sqrt(M), logP = gaussian.logLikelihood(at);
    const counts = COUNTS.filter((_, i) => i % 4 === 0);
    table("bounds-table", ["K", "bound, nats", "below log p(x)", "± one estimate", "to order 1/K"],
      counts.map((count) => {
        const { bound, deviation } = exact(count);
        const leading = gaussian.leadingOrder(at, count).bound;
        const numbers = [below(logP, bound), deviation / root].map((x) => number(x));
        return [count, number(bound, 6), ...numbers, number(leading, 6)];
      }));
    const words = { theta: "θ", phi: "φ, pathwise", dreg: "φ, DReG" };
    const names = series().map(([name]) => name);
    const heads = names.flatMap((name) => [words[name], "leading order"]);
    table("snr-table", ["K", ...heads], counts.map((count) => {
      const leading = gaussian.leadingOrder(at, count);
      const ratios = names.flatMap((name) => [exact(count)[name], leading[name]]);
      return [count, ...ratios.map((x) => number(root * x))];
    }));
    const row = (name, count, groups) => {
      const { bound, deviation, ...ratios } = exact(count), factor = Math.sqrt(groups);
      const numbers = names.map((n) => factor * ratios[n]);
      numbers.unshift(below(logP, bound), deviation / factor);
      return [name, number(bound, 6), ...numbers.map((x) => number(x))];
    };
    const name = nameOf(alpha), rows = [row(`${name}, K = ${K}`, K, 1)];
    if (M > 1) {
      rows.push(row(`mean of ${M} such groups`, K, M), row(`one group, K = ${M * K}`, M * K, 1));
    }
    const ratios = names.map((n) => `SNR ${words[n]}`);
    table("now", ["", "bound, nats", "below log p(x)", "± one estimate", ...ratios], rows);
  }

  // After the last of a row of changes, so that a screen reader says one sentence.
  let waiting = 0;
  function summarize(at, exact) {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const { K, M, alpha } = state, now = exact(K), root = Math.sqrt(M);
      const logP = gaussian.logLikelihood(at);
      // Where q is the posterior, every gradient of DReG is 0.
      const ratio = (name) => (Number.isNaN(now[name]) ? "0/0" : number(root * now[name]));
      byId("summary").textContent =
        `log p(x) is ${number(logP, 5)} nats. ${M > 1 ? `${M} groups of ` : ""}${nameOf(alpha)} ` +
        `with K = ${K}: ${number(below(logP, now.bound))} nats below it in expectation (the ` +
        `ELBO: ${number(gaussian.elboGap(at))}). Signal-to-noise ratio: θ ${ratio("theta")}, ` +
        `φ ${ratio("phi")}${state.dreg ? `, φ by DReG ${ratio("dreg")}` : ""}.`;
    }, 150);
  }

  // --- what the reader does ---------------------------------------------------------------------

  let due = false;
  function soon() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      update();
    });
  }
  for (const [name, slider] of Object.entries(SLIDERS)) {
    byId(name).addEventListener("input", (event) => {
      state[name] = slider.value(Number(event.target.value));
      if (name !== "K" && name !== "M") state.run = null;
      soon();
    });
  }
  byId("dreg").addEventListener("change", (event) => {
    state.dreg = event.target.checked;
    soon();
  });
  byId("draw").addEventListener("click", () => {
    state.seed++;
    soon();
  });
  byId("equal").addEventListener("click", () => {
    Object.assign(state, { run: null, distance: 0, v: gaussian.S });
    soon();
  });
  for (const button of document.querySelectorAll("[data-run]")) {
    button.addEventListener("click", () => start(runs[button.dataset.run]));
  }
  addEventListener("resize", soon);
  start(runs[0]);
}
