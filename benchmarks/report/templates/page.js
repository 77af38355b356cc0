// Sorts a table of results by a column; without it the page only lacks that.
for (const table of document.querySelectorAll("table.results")) {
  const rows = [...table.tBodies[0].rows];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "sort";
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") !== "descending";
      const value = (row) => Number(row.cells[column].dataset.value ?? NaN);
      const order = column === 0 ? rows : [...rows].sort((a, b) => {
        const [first, second] = [value(a), value(b)];
        if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second);
        return descending ? second - first : first - second;
      });
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      if (column > 0) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      table.tBodies[0].append(...order);
    });
  });
}
