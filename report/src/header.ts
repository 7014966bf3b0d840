// The page's words and tables.
import { Report, Table } from "./payload";

export function find<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function element(tag: string, text: string, className = ""): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function fillWords(report: Report): void {
  document.title = report.title;
  find("title").textContent = report.title;
  find("subtitle").textContent = report.subtitle;
  for (const { label, value, tone, help } of report.chips) {
    const chip = element("li", "", `chip ${tone}`);
    chip.title = help;
    chip.append(element("span", label), element("b", value));
    find("chips").append(chip);
  }
  find("explanation").textContent = report.explanation ?? "";
  for (const note of report.notes ?? []) find("warnings").append(element("p", note, "note"));
  for (const warning of report.warnings) find("warnings").append(element("p", warning));
  find("footer").textContent = report.footer;
}

export function fillTables(tables: Table[]): void {
  find("tables-title").hidden = !tables.length;
  find("tables").append(...tables.map(fillTable));
}

function fillTable(table: Table): HTMLElement {
  const section = element("section", "", "panel table");
  const heading = element("header", "");
  heading.append(element("h3", table.title), element("p", table.note));
  const grid = document.createElement("table");
  grid.className = table.columns.length > 2 ? "wide" : "";
  const head = grid.createTHead().insertRow();
  for (const name of table.columns) {
    const cell = element("th", name) as HTMLTableCellElement;
    cell.scope = "col";
    head.append(cell);
  }
  const body = grid.createTBody();
  for (const row of table.rows) {
    const line = body.insertRow();
    for (const text of row) line.insertCell().textContent = text;
  }
  const scroll = element("div", "", "scroll");
  scroll.append(grid);
  section.append(heading, scroll);
  return section;
}
