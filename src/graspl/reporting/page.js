"use strict";
// Filters the articles of a page by what is chosen and typed; without scripts all of them are shown
(() => {
  const tools = document.querySelector("[data-tools]");
  if (!tools) return;
  const articles = [...document.querySelectorAll("article[data-suite]")];
  const search = tools.querySelector("input");
  const suite = tools.querySelector("select");
  const count = tools.querySelector("output");
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
    count.value = `${shown} of ${articles.length}`;
  };
  search.addEventListener("input", show);
  suite.addEventListener("change", show);
  tools.hidden = false;
  show();
})();
