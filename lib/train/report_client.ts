// What runs in the browser of a report: its style, and the script that draws the curves with uPlot.

export const STYLE = `
:root { --bg: #fff; --card: #f6f7f9; --text: #1b1f24; --muted: #5c6570; --line: #dfe3e8; --a: #1d63d8; --b: #d9630b; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14171b; --card: #1d2127; --text: #e7eaee; --muted: #9aa4b0; --line: #323942; --a: #6ea8ff; --b: #ffa25c; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 28px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 32px 0 10px; }
.from, .note { color: var(--muted); margin: 4px 0 0; overflow-wrap: anywhere; }
.from b { color: var(--text); font-weight: 500; }
.note { font-size: 13px; margin-top: 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 10px; margin: 20px 0; }
.tile { background: var(--card); border-radius: 8px; padding: 10px 14px; }
.tile span { display: block; color: var(--muted); font-size: 13px; }
.tile b { font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(380px, 100%), 1fr)); gap: 14px; }
.chart { background: var(--card); border-radius: 8px; padding: 12px 12px 8px; min-width: 0; }
.chart h3 { font-size: 14px; margin: 0 0 4px 4px; font-weight: 600; overflow-wrap: anywhere; }
.uplot, .u-legend { font: inherit; }
.u-legend { font-size: 12px; color: var(--muted); text-align: left; }
.u-legend th { font-weight: 400; }
.u-legend .u-value { color: var(--text); font-variant-numeric: tabular-nums; }
.u-inline.u-live th::after { color: inherit; }
.u-select { background: color-mix(in srgb, var(--a) 16%, transparent); }
.u-hz .u-cursor-x, .u-hz .u-cursor-y { border-color: var(--muted); }
.samples { display: grid; gap: 10px; max-height: 620px; overflow: auto; }
.samples article { background: var(--card); border-radius: 8px; padding: 10px 14px; }
.samples .step { float: right; color: var(--muted); font-size: 12px; }
.samples p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.samples .prompt { color: var(--muted); }
.samples .answer { border-left: 3px solid var(--a); padding-left: 10px; margin-top: 6px; min-height: 1.5em; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 0 28px; padding-bottom: 48px; align-items: start; }
table { border-collapse: collapse; width: 100%; }
.tables th, .tables td { text-align: left; padding: 4px 8px; border-bottom: 1px solid var(--line); vertical-align: top; font-size: 14px; }
.tables th { font-weight: 400; color: var(--muted); width: 45%; overflow-wrap: anywhere; }
.tables td { overflow-wrap: anywhere; white-space: pre-wrap; font-variant-numeric: tabular-nums; }
.none { color: var(--muted); }
@media print { .charts { grid-template-columns: 1fr 1fr; } .samples { max-height: none; } }
`;

export const CLIENT = `
"use strict";
(() => {
  const { steps, charts } = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("charts");
  if (!place) return;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const figure = (v) => {
    if (v == null) return "-";
    const size = Math.abs(v);
    if (v !== 0 && (size < 1e-3 || size >= 1e7)) return v.toExponential(2);
    return size >= 1000 ? Math.round(v).toLocaleString("en-US") : String(Number(v.toPrecision(4)));
  };
  const HEIGHT = 200;
  const plots = charts.map(({ title, series }) => {
    const box = document.createElement("div");
    box.className = "chart";
    const head = document.createElement("h3");
    head.textContent = title;
    box.append(head);
    place.append(box);
    const width = () => Math.max(200, box.clientWidth - 24);
    // Where nothing is pointed at, the legend shows the last value.
    const shown = (values) => (u, v, i, at) => figure(at == null ? values.findLast((one) => one !== null) : v);
    const points = (values) => values.filter((v) => v !== null).length < 40;
    const axis = (more) => ({
      stroke: () => css("--muted"), font: "12px system-ui, sans-serif",
      grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false }, ...more,
    });
    const plot = new uPlot({
      width: width(), height: HEIGHT,
      scales: {
        x: { time: false },
        y: { range: (u, min, max) => {
          if (min == null) return [0, 1];
          const pad = max > min ? (max - min) * 0.08 : Math.abs(max) * 0.1 || 0.1;
          return [min >= 0 && min - pad < 0 ? 0 : min - pad, max + pad];
        } },
      },
      cursor: { sync: { key: "steps" }, drag: { x: true, y: false } },
      legend: { live: true },
      axes: [
        axis({ space: 60, size: 28, values: (u, ticks) => ticks.map((v) => (Number.isInteger(v) ? v.toLocaleString("en-US") : "")) }),
        axis({ size: 58, space: 36, values: (u, ticks) => ticks.map(figure) }),
      ],
      series: [
        { label: "step", value: shown(steps) },
        ...series.map(({ key, values }, i) => ({
          label: key, stroke: () => css(i === 0 ? "--a" : "--b"), width: 1.75, spanGaps: true,
          points: { show: points(values), size: 5, fill: () => css(i === 0 ? "--a" : "--b") },
          value: shown(values),
        })),
      ],
    }, [steps, ...series.map(({ values }) => values)], box);
    new ResizeObserver(() => plot.setSize({ width: width(), height: HEIGHT })).observe(box);
    return plot;
  });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => plots.forEach((plot) => plot.redraw(false, true)));
})();
`;
