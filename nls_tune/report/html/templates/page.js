"use strict";
(() => {
  const library = document.createElement("script");
  library.textContent = unpack("plotly"); // runs as soon as it stands in the page
  document.head.append(library);
  const { figures, palettes, templates } = JSON.parse(unpack("payload"));
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const printMedia = matchMedia("print");
  const PRINT_WIDTH = 680;
  const charts = [...document.querySelectorAll(".chart")];
  let printing = false;

  // ---- theme

  const themeButton = document.getElementById("theme");
  const theme = () => root.dataset.theme || (prefersDark.matches ? "dark" : "light");

  function showTheme() {
    const other = theme() === "dark" ? "Light" : "Dark";
    themeButton.textContent = other;
    themeButton.setAttribute("aria-label", `Switch to the ${other.toLowerCase()} theme`);
    charts.filter((chart) => chart.dataset.drawn).forEach(draw);
  }

  themeButton.addEventListener("click", () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("nls-tune-theme", root.dataset.theme);
    } catch {
      // Some browsers keep nothing for files.
    }
    showTheme();
  });
  prefersDark.addEventListener("change", showTheme);

  // ---- plots

  // Colours have names ("@negative") that the theme resolves; they stand under keys that say color, texts never do.
  function resolve(value, colours, isColour) {
    if (Array.isArray(value)) return value.map((part) => resolve(part, colours, isColour));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, colours, k.includes("color"))]));
    }
    return isColour && typeof value === "string" && value.startsWith("@") ? colours[value.slice(1)] : value;
  }

  // Plotly cuts the titles of axes that are longer than the axis: on a narrow screen they take two lines.
  function wrapTitles(layout, width) {
    for (const axis of Object.keys(layout).filter((key) => key.startsWith("xaxis"))) {
      const title = layout[axis].title;
      if (!title || title.text.length * 7.5 < width - 150) continue;
      const space = title.text.indexOf(" ", title.text.length / 2);
      if (space < 0) continue;
      title.text = `${title.text.slice(0, space)}<br>${title.text.slice(space + 1)}`;
      layout.margin.b += 16;
    }
  }

  function draw(chart) {
    const name = printing ? "light" : theme();
    const figure = resolve(figures[chart.id], palettes[name], false);
    figure.layout.template = templates[name];
    figure.layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    wrapTitles(figure.layout, chart.clientWidth || PRINT_WIDTH);
    if (printing) {
      // Levels that are not chosen have no size yet that plotly could measure.
      Object.assign(figure.layout, { width: PRINT_WIDTH, height: parseInt(chart.style.height, 10), autosize: false });
    }
    if (chart.dataset.drawn) {
      chart.data.forEach((trace, i) => { figure.data[i].visible = trace.visible; });
    }
    const first = !chart.dataset.drawn;
    chart.dataset.drawn = "true";
    const config = { displayModeBar: false, displaylogo: false, responsive: true, showTips: false };
    const drawn = Plotly.react(chart, figure.data, figure.layout, config);
    if (first) {
      addCurves(chart);
      chart.on("plotly_restyle", () => showVisible(chart));
    }
    return drawn;
  }

  const isShown = (chart) => chart.offsetParent !== null;

  // One after another, so that the page can be read and scrolled from the start.
  function drawNext() {
    const next = charts.find((chart) => !chart.dataset.drawn && isShown(chart));
    if (!next) {
      root.dataset.ready = "true";
      return;
    }
    draw(next);
    setTimeout(drawNext, 0);
  }

  // ---- curves: the legend's clicks for the keyboard

  const plain = (text) => new DOMParser().parseFromString(text, "text/html").documentElement.textContent;

  function addCurves(chart) {
    const details = document.querySelector(`.tools[data-for="${chart.id}"] .curves`);
    const groups = new Map();
    chart.data.forEach((trace, i) => {
      const key = trace.legendgroup || (trace.name ? `trace ${i}` : "");
      if (!key) return;
      if (!groups.has(key)) groups.set(key, { name: "", traces: [] });
      groups.get(key).traces.push(i);
      if (trace.showlegend !== false && trace.name && trace.type !== "heatmap") groups.get(key).name = trace.name;
    });
    const named = [...groups.values()].filter((group) => group.name);
    if (named.length < 2 || chart.layout.showlegend === false) {
      details.remove();
      return;
    }
    for (const group of named) {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.dataset.traces = group.traces.join(" ");
      box.addEventListener("change", () => {
        Plotly.restyle(chart, { visible: box.checked ? true : "legendonly" }, group.traces);
      });
      label.append(box, ` ${plain(group.name)}`);
      details.querySelector("div").append(label);
    }
  }

  function showVisible(chart) {
    for (const box of document.querySelectorAll(`.tools[data-for="${chart.id}"] .curves input`)) {
      box.checked = box.dataset.traces.split(" ").some((i) => chart.data[i].visible !== "legendonly");
    }
  }

  for (const tools of document.querySelectorAll(".tools")) {
    const chart = document.getElementById(tools.dataset.for);
    tools.querySelector('[data-do="reset"]').addEventListener("click", () => {
      if (!chart.dataset.drawn) return;
      Plotly.react(chart, [], {});
      delete chart.dataset.drawn;
      const curves = tools.querySelector(".curves div");
      if (curves) curves.replaceChildren();
      draw(chart);
    });
    tools.querySelector('[data-do="save"]').addEventListener("click", () => {
      if (chart.dataset.drawn) Plotly.downloadImage(chart, { format: "png", scale: 2, filename: `nls_tune-${chart.id}` });
    });
  }

  // ---- noise levels: one panel at a time

  for (const radio of document.querySelectorAll(".chooser input")) {
    radio.addEventListener("change", () => {
      for (const other of radio.closest(".chooser").querySelectorAll("input")) {
        document.getElementById(other.value).hidden = other !== radio;
      }
      for (const chart of document.getElementById(radio.value).querySelectorAll(".chart")) {
        if (chart.dataset.drawn) Plotly.Plots.resize(chart);
        else draw(chart);
      }
    });
  }

  // ---- tables

  const NUMBER = /[-+]?[\d,]*\.?\d+(e[-+]?\d+)?/i;
  function sortKey(text, kind) {
    if (kind !== "number") return text;
    const match = NUMBER.exec(text.replaceAll("−", "-"));
    return match ? Number(match[0].replaceAll(",", "")) : NaN;
  }

  function sortBy(table, index, direction, kind) {
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [sortKey(row.cells[index].textContent, kind), row]);
    keyed.sort(([a], [b]) => {
      if (kind !== "number") return direction * a.localeCompare(b, "en", { numeric: true });
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return direction * (a - b);
    });
    body.append(...keyed.map(([, row]) => row));
  }

  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table");
    const headers = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows];
    const numbers = headers.flatMap((header, i) => (header.dataset.kind === "number" ? [i] : []));
    for (const row of rows) for (const i of numbers) row.cells[i].className = "number";
    headers.forEach((header, index) => {
      header.querySelector("button").addEventListener("click", () => {
        const next = header.ariaSort === "ascending" ? "descending" : "ascending";
        for (const other of headers) other.ariaSort = "none";
        header.ariaSort = next;
        sortBy(table, index, next === "ascending" ? 1 : -1, header.dataset.kind);
      });
    });
    const filter = box.querySelector("input[type=search]");
    if (!filter) continue;  // a table of a few rows
    const texts = new Map(rows.map((row) => [row, [...row.cells].map((c) => c.textContent).join("\n").toLowerCase()]));
    filter.addEventListener("input", () => {
      const words = filter.value.trim().toLowerCase().replaceAll("-", "−").split(/\s+/);
      let shown = 0;
      for (const [row, text] of texts) {
        const normal = text.replaceAll("-", "−");
        row.hidden = !words.every((word) => normal.includes(word));
        shown += !row.hidden;
      }
      box.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
    });
  }

  // ---- copying

  for (const button of document.querySelectorAll("[data-copy]")) {
    const label = [...button.childNodes];
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      let done = false;
      try {
        await navigator.clipboard.writeText(source.textContent);
        done = true;
      } catch {
        getSelection().selectAllChildren(source);
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Press Ctrl+C";
      setTimeout(() => button.replaceChildren(...label), 2000);
    });
  }

  // ---- print: light, and the levels that are not chosen as well

  function setPrinting(now) {
    if (printing === now) return;
    printing = now;
    if (now) {
      for (const chart of charts) draw(chart);
    } else {
      for (const chart of charts) {
        draw(chart);
        if (isShown(chart)) Plotly.Plots.resize(chart);
      }
    }
  }
  addEventListener("beforeprint", () => setPrinting(true));
  addEventListener("afterprint", () => setPrinting(false));
  printMedia.addEventListener("change", (event) => setPrinting(event.matches));

  showTheme();
  drawNext();
})();
