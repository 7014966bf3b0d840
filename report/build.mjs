// Builds timar_ros/evaluation/report_assets from these sources. Run `npm ci && npm run build` after a change.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = new URL("../timar_ros/evaluation/report_assets/", import.meta.url);
mkdirSync(out, { recursive: true });

// The hash says which sources a bundle was made of; test/test_report.py compares it without node.
const hash = createHash("sha256");
for (const name of [...readdirSync("src").sort().map((n) => `src/${n}`), "package-lock.json"]) {
  hash.update(`${name}\0`).update(readFileSync(name)).update("\0");
}
const result = await build({
  entryPoints: ["src/main.ts"], bundle: true, minify: true, format: "iife", target: "es2021", legalComments: "none", write: false,
});
const style = await build({ entryPoints: ["src/style.css"], minify: true, write: false });
// A closing tag inside a script element would end it.
const embed = (text) => text.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
writeFileSync(new URL("report.js", out), embed(result.outputFiles[0].text.trim()));
writeFileSync(new URL("report.css", out), style.outputFiles[0].text.trim());
writeFileSync(new URL("plotly.js", out), embed(readFileSync("node_modules/plotly.js-basic-dist-min/plotly-basic.min.js", "utf8")));
writeFileSync(new URL("page.html", out), readFileSync("src/page.html", "utf8"));
const licences = ["three", "plotly.js-basic-dist-min"].map((name) => {
  const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  return `${name} ${version} (${license})\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
});
writeFileSync(new URL("LICENSES.txt", out), `The report page contains:\n\n${licences.join("\n\n")}`);
writeFileSync(new URL("SOURCES.sha256", out), `${hash.digest("hex")}\n`);
