// What Plotly is told of a panel: traces and layout, in the colours of the theme.
import { Panel } from "./payload";
import { Range, Series } from "./series";

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

export function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Minutes and seconds, with as many digits after the point as asked for. */
export function clock(time: number, digits = 1): string {
  const unit = 10 ** digits;
  const rounded = Math.round(time * unit) / unit;
  const minutes = Math.floor(rounded / 60);
  const seconds = (rounded - 60 * minutes).toFixed(digits);
  return `${minutes}:${seconds.padStart(digits ? digits + 3 : 2, "0")}`;
}

/** Round times within the range, about one in each 90 pixels. */
function ticks(range: Range, width: number): { tickvals: number[]; ticktext: string[] } {
  const most = Math.max(2, width / 90);
  const step = STEPS.find((s) => (range[1] - range[0]) / s <= most) ?? 7200;
  const tickvals: number[] = [];
  for (let k = Math.ceil(range[0] / step - 1e-9); k * step <= range[1] + 1e-9; k++) tickvals.push(k * step);
  return { tickvals, ticktext: tickvals.map((t) => clock(t, step < 1 ? 1 : 0)) };
}

export function traces(panel: Panel, series: Series[], range: Range | null): object[] {
  const made: object[] = [];
  for (const one of series) {
    const { trace } = one;
    const { x, y, low } = one.cut(panel.timed ? range : null);
    const color = css(`--${trace.color}`);
    const common = { name: trace.name, legendgroup: trace.name, visible: trace.hidden ? "legendonly" : true, x, y };
    const curve = { ...common, type: "scatter", mode: "lines" };
    if (trace.kind === "envelope") {
      const edge = { ...curve, hoverinfo: "skip", line: { width: 0.6, color } };
      made.push({ ...edge, y: low, showlegend: false }, { ...edge, fill: "tonexty", fillcolor: color });
    } else if (trace.kind === "bars") {
      made.push({ ...common, type: "bar", marker: { color } });
    } else if (trace.kind === "points") {
      const hovertemplate = trace.text ? "%{text}<extra></extra>" : undefined;
      const marker = { color, size: 6, opacity: 0.85 };
      made.push({ ...common, type: "scatter", mode: "markers", text: trace.text, hovertemplate, marker });
    } else {
      const line = { width: trace.dash ? 1.3 : 1.6, color, dash: trace.dash ? "dot" : "solid" };
      made.push({ ...curve, connectgaps: false, line });
    }
  }
  return made;
}

export function layout(panel: Panel, range: Range, width: number): object {
  const narrow = width < 420;
  const ink = css("--ink-soft");
  const grid = css("--grid");
  const axis = { color: ink, gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 11 } };
  const legend = panel.traces.filter((t) => t.name).length > 1;
  // The legend makes its own room. A unit stands in the heading of a plot over time.
  const margin = { l: narrow ? 46 : 56, r: narrow ? 8 : 14, t: 8, b: panel.timed ? 24 : 38 };
  const time = { range, ...ticks(range, width - margin.l - margin.r), ticksuffix: " s", hoverformat: ".2f" };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css("--font"), size: 12, color: ink },
    margin,
    hovermode: panel.timed ? "x unified" : "closest",
    hoverlabel: { bgcolor: css("--card"), bordercolor: grid, font: { color: css("--ink"), size: 12 } },
    dragmode: narrow ? false : "zoom",
    showlegend: legend,
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 11 }, bgcolor: "rgba(0,0,0,0)" },
    bargap: 0.06,
    // Curves that somebody has switched on or off stay so when the range or the theme changes.
    uirevision: "kept",
    xaxis: {
      ...axis,
      ...(panel.timed ? time : { tickvals: panel.xTicks?.at, ticktext: panel.xTicks?.text }),
      uirevision: `${range}`,
      title: panel.xTitle ? { text: panel.xTitle, font: { size: 11 } } : undefined,
      showgrid: panel.timed,
      zeroline: !panel.timed,
      fixedrange: !panel.timed,
    },
    yaxis: {
      ...axis,
      title: panel.unit && !panel.timed ? { text: panel.unit, font: { size: 11 }, standoff: 4 } : undefined,
      range: panel.yRange,
      tickvals: panel.yTicks?.at,
      ticktext: panel.yTicks?.text,
      fixedrange: true,
      nticks: 6,
    },
    shapes: [...bands(panel, range), ...panel.lines.map(level)],
    annotations: panel.lines
      .filter((line) => line.label)
      .map((line) => ({
        xref: "paper", x: 1, xanchor: "right", y: line.y, yanchor: "bottom", showarrow: false,
        text: line.label, font: { size: 10, color: css(`--${line.color}`) },
      })),
  };
}

function bands(panel: Panel, range: Range): object[] {
  return panel.bands
    .filter((band) => band.to >= range[0] && band.from <= range[1])
    .map((band) => ({
      type: "rect", layer: "below", xref: "x", yref: "paper", x0: band.from, x1: band.to,
      y0: band.lane?.[0] ?? 0, y1: band.lane?.[1] ?? 1,
      fillcolor: css(`--${band.color}`), opacity: 0.13, line: { width: 0 },
    }));
}

function level(line: Panel["lines"][number]): object {
  return {
    type: "line", xref: "paper", x0: 0, x1: 1, y0: line.y, y1: line.y,
    line: { width: 1.2, dash: "dash", color: css(`--${line.color}`) },
  };
}
