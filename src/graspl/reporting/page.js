"use strict";
// Without scripts the page shows every plot as a picture, and all answers

// Filters the articles by what is chosen and typed
(() => {
  const filter = document.querySelector("[data-filter]");
  if (!filter) return;
  const articles = [...document.querySelectorAll("article[data-suite]")];
  const [search, suite, count] = ["input", "select", "output"].map((name) => filter.querySelector(name));
  const more = document.querySelector("[data-more]");
  const texts = new Map(articles.map((each) => [each, each.textContent.toLowerCase()]));
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const each of articles) {
      const fits = (!suite.value || each.dataset.suite === suite.value)
        && words.every((word) => texts.get(each).includes(word));
      each.hidden = !fits;
      shown += fits;
    }
    if (more && (suite.value || words.length)) more.open = true;
    count.value = `${shown} of ${articles.length}`;
  };
  search.addEventListener("input", show);
  suite.addEventListener("change", show);
  filter.hidden = false;
  show();
})();

// Draws the plots with plotly.js, each when it is first seen
(async () => {
  const packed = document.getElementById("library");
  if (!packed || !window.DecompressionStream) return;
  const bytes = Uint8Array.from(atob(packed.textContent), (each) => each.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
  if (!window.Plotly) return;

  const button = (text, label, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (label) made.setAttribute("aria-label", label);
    made.addEventListener("click", () => act(made));
    return made;
  };
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  // A spreadsheet would run a text that begins like a formula
  const cell = (value) => `"${String(value ?? "").replace(typeof value === "string" ? /^(?=[=+\-@])/ : /^$/, "'").replaceAll('"', '""')}"`;
  const csv = (rows) => {
    const columns = Object.values(rows);
    const lines = [Object.keys(rows), ...columns[0].map((_, place) => columns.map((each) => each[place]))];
    return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
  };
  const zoom = (live, by) => {
    const changed = {};
    for (const axis of ["xaxis", "yaxis"]) {
      const [low, high] = live.layout[axis].range;
      const [middle, half] = [(low + high) / 2, (high - low) / 2 * by];
      changed[`${axis}.range`] = [middle - half, middle + half];
    }
    Plotly.relayout(live, changed);
  };
  const picture = (live, told) => {
    const named = new Set();
    const data = live.data.map((each) => {
      const first = each.visible !== false && !named.has(each.meta);
      named.add(each.meta);
      return { ...each, showlegend: first };
    });
    const paper = { paper_bgcolor: "#fff", plot_bgcolor: "#fff", showlegend: true, title: { text: told.title } };
    const layout = { ...live.layout, ...paper, font: { ...live.layout.font, color: "#1d2126" }, margin: { ...live.layout.margin, t: 50 } };
    Plotly.downloadImage({ data, layout }, { format: "png", scale: 2, width: 900, height: 560, filename: `graspl-${told.name}` });
  };
  const draw = async (figure, hidden) => {
    const told = JSON.parse(figure.querySelector("script").textContent);
    const live = figure.querySelector(".live");
    figure.classList.add("drawn");
    // On a touch screen dragging scrolls the page
    const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    for (const each of told.data) each.visible = !hidden.has(each.meta);
    await Plotly.newPlot(live, told.data, { ...told.layout, dragmode }, { displayModeBar: false, responsive: true });
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", `Tools of ${told.title}`);
    bar.append(
      button("+", "Zoom in", () => zoom(live, 0.7)),
      button("\u2212", "Zoom out", () => zoom(live, 1 / 0.7)),
      button("Reset", "Reset the view", () => Plotly.relayout(live, { "xaxis.autorange": true, "yaxis.autorange": true })),
      button("Picture", "Download as a picture", () => picture(live, told)),
      button("CSV", "Download the data as CSV", () => save(`graspl-${told.name}.csv`, "text/csv", csv(told.rows))),
      button("JSON", "Download the data as JSON", () => save(`graspl-${told.name}.json`, "application/json", JSON.stringify(told.rows))),
    );
    figure.querySelector(".tools").append(bar);
  };
  for (const plots of document.querySelectorAll("[data-plots]")) {
    const figures = [...plots.querySelectorAll("figure")];
    const series = new Map();
    for (const each of figures) {
      for (const one of JSON.parse(each.querySelector("script").textContent).series) series.set(one.name, one);
    }
    const hidden = new Set([...series.values()].filter((one) => one.hidden).map((one) => one.name));
    for (const one of series.size > 1 ? series.values() : []) {
      const toggle = button(one.name, "", () => {
        hidden.has(one.name) ? hidden.delete(one.name) : hidden.add(one.name);
        toggle.setAttribute("aria-pressed", !hidden.has(one.name));
        for (const live of plots.querySelectorAll(".drawn .live")) {
          const places = live.data.flatMap((each, place) => (each.meta === one.name ? [place] : []));
          if (places.length) Plotly.restyle(live, { visible: !hidden.has(one.name) }, places);
        }
      });
      const swatch = document.createElement("i");
      swatch.style.setProperty("--swatch", one.color);
      toggle.prepend(swatch);
      toggle.setAttribute("aria-pressed", !one.hidden);
      plots.querySelector(".series").append(toggle);
    }
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) { seen.unobserve(target); draw(target, hidden); }
      }
    }, { rootMargin: "300px" });
    figures.forEach((each) => seen.observe(each));
  }
})();
