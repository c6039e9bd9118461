// Beside every figure and under every table, a link to its data: the file of the picture, or the cells as CSV.
document.addEventListener("DOMContentLoaded", () => {
  // Without a server a page may not read others: the search then shows titles alone, in place of an error for each.
  if (location.protocol === "file:") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
    document.getElementById("search-results")?.before("Read from a file, the search shows titles without excerpts, which need a server.");
  }

  const page = location.pathname.split("/").pop().replace(/\.html$/, "") || "index";
  const link = (text, href, name) =>
    Object.assign(document.createElement("a"), { textContent: text, href, download: name });

  document.querySelectorAll("article figure").forEach((figure, number) => {
    const image = figure.querySelector("img"), caption = figure.querySelector("figcaption p:last-of-type");
    if (!image || !caption) return;
    const ending = image.src.split(".").pop();
    const sentence = Object.assign(document.createElement("span"), { className: "download-figure" });
    sentence.append(" ", link(`Figure as ${ending.toUpperCase()}`, image.src, `${page}-figure-${number + 1}.${ending}`), ".");
    caption.append(sentence);
  });

  // The corners that pandas leaves empty head nothing: without this a screen reader announces them as headers.
  for (const header of document.querySelectorAll("article table.dataframe th")) {
    if (header.textContent.trim()) continue;
    const cell = document.createElement("td");
    for (const { name, value } of header.attributes) cell.setAttribute(name, value);
    header.replaceWith(cell);
  }

  // A citation shows its reference under the pointer and when it has the focus.
  for (const citation of document.querySelectorAll('article a.reference[href*="references.html#"][title]')) {
    citation.dataset.reference = citation.title;
    citation.setAttribute("aria-description", citation.title);
    citation.removeAttribute("title");
  }

  // The roles of the list of references are those of a former standard.
  for (const entry of document.querySelectorAll(".citation-list > *")) entry.setAttribute("role", "listitem");

  // A signature with a line for each argument is a list of them, which Sphinx writes as definitions without terms.
  for (const list of document.querySelectorAll("article dt.sig dl")) {
    const items = [...list.children].map(item => Object.assign(document.createElement("div"), { innerHTML: item.innerHTML, role: "listitem" }));
    const written = Object.assign(document.createElement("div"), { className: "sig-arguments", role: "list" });
    written.append(...items);
    list.replaceWith(written);
  }

  // The cells of a table by row and column: one that spans rows or columns stands in each of them.
  const grid = table => {
    const rows = [...table.rows].map(() => []);
    [...table.rows].forEach((row, y) => {
      let x = 0;
      for (const cell of row.cells) {
        while (rows[y][x] !== undefined) x++;
        for (let down = 0; down < cell.rowSpan; down++)
          for (let right = 0; right < cell.colSpan; right++) rows[y + down][x + right] = cell;
        x += cell.colSpan;
      }
    });
    return rows;
  };
  const textOf = cell => cell.textContent.trim().replace(/\s+/g, " ");

  // Numbers stand right, one under the other, and the name of their column above them. Where a column has words, a phone
  // shows each row as a card, in which every cell begins with the name of its column.
  const tables = document.querySelectorAll("article table.dataframe, article .pst-scrollable-table-container > table");
  for (const table of tables) {
    const rows = grid(table), heads = table.tHead?.rows.length ?? 0;
    let words = false;
    rows[0].forEach((_, x) => {
      const column = rows.slice(heads).map(row => row[x]).filter(cell => cell.tagName === "TD");
      const numbers = column.filter(cell => /^([-−]?[\d.,]+(e[-+]\d+)?[x%]?|–)$/.test(textOf(cell)));
      if (2 * numbers.length <= column.length) words ||= x > 0 && column.some(cell => textOf(cell).length > 20);
      else for (const row of rows) if (row[x].tagName === "TD" || row[x].colSpan === 1) row[x].classList.add("number");
    });
    const simple = heads === 1 && rows[0].length > 2 && rows.length < 40 && [...table.querySelectorAll("td, th")].every(cell => cell.colSpan * cell.rowSpan === 1);
    if (!words || !simple || table.matches(".claims")) continue;
    table.classList.add("cards");
    for (const row of rows.slice(1)) row.slice(1).forEach((cell, x) => { if (textOf(cell)) cell.dataset.head = textOf(rows[0][x + 1]); });
  }

  // The laboratory's small form, in a page that has a place for it, is loaded when the place has come up from the foot of
  // the screen. It arrives as a script, because a page that is read from a file may load nothing else.
  addEventListener("load", () => {
    for (const place of document.querySelectorAll(".laboratory-here")) new IntersectionObserver((entries, observer) => {
      if (!entries.some(entry => entry.isIntersecting)) return;
      observer.disconnect();
      window.laboratoryArrives = text => place.append(document.createRange().createContextualFragment(text));
      document.head.append(Object.assign(document.createElement("script"), { src: place.dataset.source }));
    }, { rootMargin: "0px 0px -30% 0px" }).observe(place);
  });

  const plain = text => (/^[-−]?\d{1,3}(,\d{3})+(\.\d+)?$/.test(text) ? text.replaceAll(",", "") : text);
  const quoted = text => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  tables.forEach((table, number) => {
    const shown = () => grid(table).map(row => row.map(textOf).map(plain).map(quoted).join(",") + "\r\n").join("");
    const csv = table.dataset.csv ?? shown();
    const paragraph = document.createElement("p");
    paragraph.className = "download-table";
    const name = `${page}-table-${number + 1}.csv`;
    paragraph.append(link("Table as CSV", `data:text/csv;charset=utf-8,${encodeURIComponent(csv)}`, name));
    (table.closest(".output, .pst-scrollable-table-container") ?? table).after(paragraph);
  });
});
