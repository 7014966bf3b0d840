// Builds timar_ros/evaluation/report/report_assets from these sources. Run `npm ci && npm run build` after a change.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = new URL("../timar_ros/evaluation/report/report_assets/", import.meta.url);
mkdirSync(out, { recursive: true });

// The hash says which sources a bundle was made of; test/test_evaluation_report.py compares it without node.
const hash = createHash("sha256");
for (const name of [...readdirSync("src").sort().map((n) => `src/${n}`), "package-lock.json"]) {
  hash.update(`${name}\0`).update(readFileSync(name)).update("\0");
}
// A closing tag inside a script element would end it.
const embed = (text) => text.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
const common = { bundle: true, minify: true, legalComments: "none", write: false };
// The report's page and that of `timar live`.
for (const [name, page, script, style] of [["report", "page", "main", "style"], ["live", "live", "live", "live"]]) {
  const made = await build({ ...common, entryPoints: [`src/${script}.ts`], format: "iife", target: "es2021" });
  const css = await build({ ...common, entryPoints: [`src/${style}.css`] });
  writeFileSync(new URL(`${name}.js`, out), embed(made.outputFiles[0].text.trim()));
  writeFileSync(new URL(`${name}.css`, out), css.outputFiles[0].text.trim());
  writeFileSync(new URL(`${page}.html`, out), readFileSync(`src/${page}.html`, "utf8"));
}
writeFileSync(new URL("plotly.js", out), embed(readFileSync("node_modules/plotly.js-basic-dist-min/plotly-basic.min.js", "utf8")));
const licences = ["three", "plotly.js-basic-dist-min"].map((name) => {
  const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  return `${name} ${version} (${license})\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
});
writeFileSync(new URL("LICENSES.txt", out), `The report page contains:\n\n${licences.join("\n\n")}`);
writeFileSync(new URL("SOURCES.sha256", out), `${hash.digest("hex")}\n`);
