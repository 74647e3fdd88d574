// Mode, menu, folding and copying of code, the table of contents, and search: no library, nothing from a network.
(function () {
  const root = document.currentScript.dataset.root;
  const one = (what) => document.querySelector(what);
  const all = (what) => [...document.querySelectorAll(what)];

  one(".mode").addEventListener("click", () => {
    const dark = !document.body.classList.contains("quarto-dark");
    document.body.classList.toggle("quarto-dark", dark);
    document.body.classList.toggle("quarto-light", !dark);
    try { localStorage.setItem("smellkit-mode", dark ? "dark" : "light"); } catch (why) { /* private window */ }
  });

  const menu = one(".menu");
  menu.addEventListener("click", () => menu.setAttribute("aria-expanded", document.body.classList.toggle("open")));

  const fold = one(".fold");
  if (fold) fold.addEventListener("click", () => {
    const hide = fold.textContent === "Hide code";
    all("details.code").forEach((part) => { part.open = !hide; });
    fold.textContent = hide ? "Show code" : "Hide code";
  });
  all("details.code").forEach((part) => {
    if (!navigator.clipboard) return;
    const button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(part.querySelector("pre").innerText);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    part.append(button);
  });

  const lines = new Map(all(".toc a").map((line) => [decodeURIComponent(line.hash.slice(1)), line]));
  const watch = new IntersectionObserver((seen) => seen.forEach((entry) => {
    if (!entry.isIntersecting) return;
    lines.forEach((line) => line.classList.remove("here"));
    lines.get(entry.target.id).classList.add("here");
  }), { rootMargin: "-70px 0px -70% 0px" });
  lines.forEach((_, name) => watch.observe(document.getElementById(name)));

  const input = one(".find input"), hits = one(".hits");
  const close = () => { hits.hidden = true; hits.replaceChildren(); };
  const show = (page, part, around) => {
    const item = document.createElement("li"), link = document.createElement("a");
    const title = document.createElement("b"), small = document.createElement("small");
    link.href = root + page.href + (part ? "#" + part.id : "");
    title.textContent = page.title;
    small.textContent = part ? part.text : around;
    link.append(title, small);
    item.append(link);
    hits.append(item);
  };
  input.addEventListener("input", () => {
    const query = input.value.trim().toLowerCase();
    close();
    if (query.length < 2) return;
    for (const page of window.PAGES) {
      const part = page.parts.find((one) => one.text.toLowerCase().includes(query));
      const at = page.text.toLowerCase().indexOf(query);
      if (page.title.toLowerCase().includes(query)) show(page, null, page.text.slice(0, 90) + "…");
      else if (part) show(page, part, "");
      else if (at >= 0) show(page, null, "…" + page.text.slice(Math.max(0, at - 40), at + 70) + "…");
    }
    if (!hits.children.length) {
      const none = document.createElement("li");
      none.className = "none";
      none.textContent = "Nothing found";
      hits.append(none);
    }
    hits.hidden = false;
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { input.value = ""; close(); }
    const first = hits.querySelector("a");
    if (event.key === "Enter" && first) location.href = first.href;
  });
  document.addEventListener("click", (event) => { if (!event.target.closest(".find")) close(); });
})();
