// Mode, menu, folding of code, and what is on the page: no library, nothing from a network.
(function () {
  const one = (what) => document.querySelector(what);

  one(".mode").addEventListener("click", () => {
    const dark = !document.body.classList.contains("quarto-dark");
    document.body.classList.toggle("quarto-dark", dark);
    document.body.classList.toggle("quarto-light", !dark);
    try { localStorage.setItem("smellkit-mode", dark ? "dark" : "light"); } catch (why) { /* private window */ }
  });

  const menu = one(".menu");
  menu.addEventListener("click", () => menu.setAttribute("aria-expanded", document.body.classList.toggle("open")));

  document.querySelectorAll("main :is(h2, h3)[id]").forEach((heading) => {
    const line = document.createElement("li"), link = document.createElement("a");
    line.className = heading.localName;
    link.href = `#${heading.id}`;
    link.textContent = heading.textContent;
    line.append(link);
    one(".toc ul").append(line);
  });

  const fold = one(".fold");
  if (fold) fold.addEventListener("click", () => {
    const hide = fold.textContent === "Hide code";
    document.querySelectorAll("details.code").forEach((part) => { part.open = !hide; });
    fold.textContent = hide ? "Show code" : "Hide code";
  });
})();
