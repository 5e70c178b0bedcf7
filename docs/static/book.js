// Learning curves to explore. Without this script, the static picture before them stays.

const COLORS = ["#4477aa", "#ee6677", "#228833", "#ccaa22", "#44bbdd", "#aa3377", "#0099aa", "#ee8833", "#88aa22", "#8866cc"];
const DASHES = ["solid", "dash", "dot"];
const TITLES = { steps: "environment steps", seconds: "seconds from the command" };
const POINTS = 60;
const RESAMPLES = 400;

/** The value of a curve at x, by linear interpolation. */
function at(curve, unit, x) {
  const xs = curve[unit];
  const next = xs.findIndex((value) => value >= x);
  if (next <= 0) return curve.returns[next === 0 ? 0 : xs.length - 1];
  const part = (x - xs[next - 1]) / (xs[next] - xs[next - 1] || 1);
  return curve.returns[next - 1] + part * (curve.returns[next] - curve.returns[next - 1]);
}

/** A generator of equal random numbers on each call of the page (mulberry32). */
function generator(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Mean over curves on a grid, with its 95 % bootstrap interval over seeds. */
function summarize(curves, unit) {
  const start = Math.max(...curves.map((curve) => curve[unit][0]));
  const ends = curves.map((curve) => curve[unit].at(-1)).sort((a, b) => a - b);
  const end = ends[Math.floor((ends.length - 1) / 2)];
  const x = Array.from({ length: POINTS }, (_, k) => start + ((end - start) * k) / (POINTS - 1));
  const values = curves.map((curve) => x.map((one) => at(curve, unit, one)));
  const random = generator(0);
  const mean = [], low = [], high = [];
  for (let k = 0; k < POINTS; k += 1) {
    const column = values.map((row) => row[k]);
    const average = (numbers) => numbers.reduce((a, b) => a + b) / numbers.length;
    mean.push(average(column));
    const means = Array.from({ length: RESAMPLES }, () => average(column.map(() => column[Math.floor(random() * column.length)])));
    means.sort((a, b) => a - b);
    low.push(means[Math.floor(0.025 * RESAMPLES)]);
    high.push(means[Math.floor(0.975 * RESAMPLES)]);
  }
  return { x, mean, low, high };
}

/** The traces of a script: the mean over chosen seeds and its band; of a script on its own, a thin line per seed too. */
function traces(script, unit, chosen, alone) {
  const k = script.look;
  const seeds = Object.keys(script.seeds).filter((seed) => chosen.has(seed));
  if (!seeds.length) return [];
  const color = COLORS[k % COLORS.length];
  const look = { color, dash: DASHES[Math.floor(k / COLORS.length)] };
  const { x, mean, low, high } = summarize(seeds.map((seed) => script.seeds[seed]), unit);
  const band = { x: [...x, ...x.toReversed()], y: [...high, ...low.toReversed()], fill: "toself", fillcolor: color + "33", line: { width: 0 }, hoverinfo: "skip", showlegend: false, mode: "lines" };
  const thin = !alone ? [] : seeds.map((seed) => ({
    x: script.seeds[seed][unit], y: script.seeds[seed].returns, mode: "lines", line: { color, width: 0.8 }, opacity: 0.55, showlegend: false,
    hovertemplate: `${script.name}, seed ${seed}<br>%{x:,.0f} ${unit}<br>return %{y:.1f}<extra></extra>`,
  }));
  const bold = { x, y: mean, mode: "lines", line: { ...look, width: 3 }, name: script.name, hovertemplate: `${script.name}, mean of ${seeds.length}<br>%{x:,.0f} ${unit}<br>return %{y:.1f}<extra></extra>` };
  return seeds.length > 1 ? [band, ...thin, bold] : [bold];
}

/** A group of radio buttons or checkboxes. */
function choice(form, title, type, name, values, checked, folded = false) {
  const set = document.createElement("fieldset");
  set.innerHTML = `<legend>${title}</legend>`;
  for (const value of values) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type, name, value, checked: checked(value) });
    label.append(input, ` ${value}`);
    set.append(label);
  }
  if (folded) {
    const details = document.createElement("details");
    details.innerHTML = `<summary>choose ${title}</summary>`;
    details.append(set);
    form.append(details);
  } else {
    form.append(set);
  }
}

let plotly; // the library, loaded once, when the first curves come into view
function library() {
  plotly ??= new Promise((resolve, reject) => {
    const root = document.documentElement.dataset.content_root ?? "";
    const script = Object.assign(document.createElement("script"), { src: `${root}_static/plotly.min.js`, onload: () => resolve(window.Plotly), onerror: reject });
    document.head.append(script);
  });
  return plotly;
}

class Curves {
  constructor(element) {
    this.panels = JSON.parse(element.querySelector("script").textContent);
    this.form = document.createElement("form");
    this.plot = Object.assign(document.createElement("div"), { className: "plot" });
    this.plot.setAttribute("role", "figure");
    this.group = `curves-${[...document.querySelectorAll(".curves")].indexOf(element)}`;
    element.append(this.form, this.plot);
    const picture = element.previousElementSibling?.querySelector("img") ?? element.previousElementSibling;
    this.picture = picture?.closest("p, figure, a") ?? picture;
    this.env = this.panels[0].env;
    this.unit = "steps";
    this.form.addEventListener("change", (event) => this.changed(event.target));
    this.controls();
  }

  get panel() {
    return this.panels.find((panel) => panel.env === this.env);
  }

  controls() {
    this.form.replaceChildren();
    if (this.panels.length > 1) {
      const label = Object.assign(document.createElement("label"), { innerHTML: "<strong>environment</strong> " });
      const select = Object.assign(document.createElement("select"), { name: "env" });
      select.append(...this.panels.map((panel) => new Option(panel.env, panel.env, false, panel.env === this.env)));
      label.append(select);
      this.form.append(label);
    }
    choice(this.form, "over", "radio", `${this.group}-unit`, ["steps", "seconds"], (unit) => unit === this.unit);
    const { scripts } = this.panel;
    if (scripts.length > 1) choice(this.form, "scripts", "checkbox", "script", scripts.map((one) => one.name), () => true);
    const seeds = [...new Set(scripts.flatMap((one) => Object.keys(one.seeds)))].sort((a, b) => a - b);
    if (seeds.length > 1) choice(this.form, "seeds", "checkbox", "seed", seeds, () => true, true);
  }

  changed(input) {
    if (input.name === "env") {
      this.env = input.value;
      this.controls();
      this.form.querySelector("select").focus();
    }
    if (input.type === "radio") this.unit = input.value;
    this.draw();
  }

  chosen(name) {
    const boxes = [...this.form.querySelectorAll(`input[name=${name}]`)];
    return boxes.length ? new Set(boxes.filter((box) => box.checked).map((box) => box.value)) : null;
  }

  async draw() {
    const library_ = await library();
    const { env, threshold, scripts } = this.panel;
    const names = this.chosen("script") ?? new Set(scripts.map((one) => one.name));
    const seeds = this.chosen("seed") ?? new Set(scripts.flatMap((one) => Object.keys(one.seeds)));
    const all = scripts.flatMap((script) => (names.has(script.name) ? traces(script, this.unit, seeds, names.size === 1) : []));
    const style = getComputedStyle(document.body);
    const [ink, faint] = ["--color-foreground-primary", "--color-background-border"].map((name) => style.getPropertyValue(name).trim());
    const axis = { gridcolor: faint, zeroline: false, automargin: true };
    const solved = threshold === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: threshold, y1: threshold, line: { color: ink, dash: "dash", width: 1 } }];
    const layout = {
      title: { text: env, font: { size: 15 } }, font: { color: ink, family: style.fontFamily }, hovermode: "closest", shapes: solved,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 10, t: 40, b: 40 },
      xaxis: { ...axis, type: names.size > 1 ? "log" : "linear", title: { text: TITLES[this.unit] } }, yaxis: { ...axis, title: { text: "training return" } },
      legend: { orientation: "h", y: -0.25 }, showlegend: scripts.length > 1,
    };
    this.plot.setAttribute("aria-label", `Learning curves on ${env} over ${TITLES[this.unit]}: ${[...names].join(", ")}`);
    await library_.react(this.plot, all, layout, { responsive: true, displaylogo: false, displayModeBar: false });
    if (this.picture) this.picture.hidden = true;
  }
}

/** Put a button below an animation that stops and starts it. It stands still if the reader prefers less motion. */
function pausable(image) {
  const button = Object.assign(document.createElement("button"), { className: "pause", type: "button" });
  const moving = image.src;
  const still = () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
    canvas.getContext("2d").drawImage(image, 0, 0); // the first frame
    return canvas.toDataURL();
  };
  const show = (playing) => {
    image.src = playing ? moving : still();
    button.textContent = playing ? "pause" : "play";
    button.setAttribute("aria-label", `${button.textContent}: ${image.alt}`);
  };
  button.addEventListener("click", () => show(image.src !== moving));
  image.after(button);
  image.decode().then(() => show(!matchMedia("(prefers-reduced-motion: reduce)").matches));
}

function start() {
  document.querySelectorAll("img[src$='.gif']").forEach(pausable);
  const all = [...document.querySelectorAll(".curves")].map((element) => [element, new Curves(element)]);
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      all.find(([element]) => element === entry.target)[1].draw();
    }
  }, { rootMargin: "300px" });
  for (const [element] of all) seen.observe(element);
  const redraw = () => all.filter(([, curves]) => curves.plot.data).forEach(([, curves]) => curves.draw());
  new MutationObserver(redraw).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Regions that scroll can be reached with the keyboard; the theme's captions are headings without a level.
  for (const region of document.querySelectorAll("div.highlight > pre, .table-wrapper")) region.tabIndex = 0;
  for (const caption of document.querySelectorAll("[role=heading]:not([aria-level])")) caption.setAttribute("aria-level", "2");
}

start();
