// Tables of results: sort by a heading, filter by a word, save as CSV. Without this script they are plain tables.
for (const table of document.querySelectorAll("details.results table")) {
  const head = table.tHead?.rows[0], body = table.tBodies[0];
  if (!head || !body) continue;
  const number = (text) => { const found = text.replaceAll(",", "").match(/-?\d+(\.\d+)?/); return found ? Number(found[0]) : -Infinity; };
  [...head.cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") !== "descending";
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent;
      const order = column ? (a, b) => number(key(b)) - number(key(a)) : (a, b) => key(b).localeCompare(key(a));
      body.append(...[...body.rows].sort((a, b) => (down ? 1 : -1) * (order(a, b) || 0)));
    });
  });
  const frame = document.createElement("div"), tools = document.createElement("div");
  frame.className = "results-frame";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  const title = table.closest("details").querySelector("summary").textContent;
  frame.setAttribute("aria-label", title);
  table.before(tools, frame);
  frame.append(table);
  tools.className = "results-tools";
  if (body.rows.length > 6) {
    const filter = document.createElement("input");
    filter.type = "search";
    filter.placeholder = "show rows with ...";
    filter.setAttribute("aria-label", `Show rows of "${title}" with`);
    filter.addEventListener("input", () => {
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(filter.value.toLowerCase());
    });
    tools.append(filter);
  }
  const save = document.createElement("button");
  save.type = "button";
  save.textContent = "save as CSV";
  save.addEventListener("click", () => {
    const quoted = (cell) => { const text = cell.textContent.trim(); return `"${(/^([=@]|[+-](?!\d|$))/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`; };
    const text = [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(quoted).join(",")).join("\r\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text + "\r\n"], {type: "text/csv"}));
    link.download = `${title.replace(/\d+ rows?$/, "").trim().replace(/\W+/g, "-").toLowerCase()}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  tools.append(save);
}
