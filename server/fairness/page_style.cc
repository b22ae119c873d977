#include "server/fairness/page.h"

namespace isoscan {

// Blue and vermillion of docs/references.md#okabe2008, which colour-blind readers tell apart; every
// difference in colour is also one of shape, line or text.
std::string PageStyle() {
  return R"css(:root {
  color-scheme: light dark;
  --paper: #fffefb; --ink: #1d1f22; --soft: #5c6068; --rule: #d9d7d0; --faint: #b9b8b2;
  --blue: #0072b2; --blue-wash: #0072b21f; --red: #c24e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --ink: #e8e6e1; --soft: #a2a6ad; --rule: #34383e; --faint: #575c64;
    --blue: #56b4e9; --blue-wash: #56b4e926; --red: #f28e3c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif 4",
    "Source Serif Pro", "Noto Serif", "DejaVu Serif", Georgia, serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
p, ul { max-width: 44rem; }
.kicker, .state, .legend, .view, .note, figcaption, th, td, dt, dd, summary, text, small {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
    "Liberation Sans", Arial, sans-serif;
}
.kicker {
  margin: 0; font-size: 0.75rem; letter-spacing: 0.09em; text-transform: uppercase;
  color: var(--soft);
}
h1 { margin: 0.15rem 0 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere; }
h2 { margin: 0 0 0.6rem; font-size: 1.25rem; font-weight: 600; }
.lede { margin: 0.3rem 0 0; color: var(--soft); overflow-wrap: anywhere; }
.state { margin: 0.4rem 0 0; font-size: 0.85rem; color: var(--soft); }
.headline {
  margin: 2rem 0 0.8rem; max-width: 50rem; overflow-wrap: anywhere;
  font-size: clamp(1.35rem, 1rem + 1.9vw, 1.95rem); line-height: 1.3; text-wrap: balance;
}
.headline b { font-weight: 600; color: var(--blue); }
.headline b + b { color: var(--red); }
.caveat { margin: 0 0 1.8rem; color: var(--soft); }
section { margin-top: 3rem; padding-top: 1.1rem; border-top: 1px solid var(--rule); }
section > p { margin: 0 0 1rem; }
figure { margin: 0; }
figcaption { margin-top: 0.4rem; font-size: 0.82rem; color: var(--soft); }

.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--blue); outline-offset: 3px; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
.note { margin-bottom: 0.7rem; font-size: 0.82rem; line-height: 1.5; color: var(--soft); }
th, td { padding: 0.42rem 0.6rem; text-align: right; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; }
td { vertical-align: baseline; white-space: nowrap; }
thead th { font-weight: 500; color: var(--soft); border-bottom: 1px solid var(--ink); line-height: 1.25; }
tbody th { font-weight: 500; vertical-align: baseline; min-width: 8rem; overflow-wrap: anywhere; }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
td.strong { font-weight: 650; }
td small { color: var(--soft); }
td.strong small { display: block; font-weight: 400; }
td.bar { min-width: 7.5rem; text-align: left; white-space: normal; vertical-align: top; }
td.bar small { display: block; line-height: 1.35; }
td.bar span::after {
  content: ""; display: block; height: 4px; margin: 0.2rem 0 0.3rem;
  background: linear-gradient(to right, var(--blue) var(--filled), var(--rule) var(--filled));
}
.flag {
  padding: 0 0.35rem; border: 1px solid currentColor; border-radius: 3px; font-weight: 400;
  font-size: 0.72rem; color: var(--red); white-space: nowrap;
}
td.took { padding: 0.42rem 0.3rem; text-align: center; min-width: 1.7rem; }
.participation th { padding-left: 0.3rem; padding-right: 0.3rem; }
.participation th:first-child { padding-left: 0; }
.participation thead th:nth-child(n + 4) { text-align: center; }
td.yes { color: var(--blue); }
td.no { color: var(--red); font-weight: 700; }
td.none { color: var(--soft); }
.scroll + p, figure + .note { margin-top: 1rem; }
.labels th { text-align: left; }
.labels th, .labels td { padding-left: 0; padding-right: 1.2rem; }
.reasons, .limits { padding-left: 1.1rem; }
.limits li { margin-bottom: 0.55rem; }

.legend {
  display: flex; flex-wrap: wrap; gap: 0.2rem 1.3rem; max-width: none; margin: 0 0 0.6rem;
  padding: 0; list-style: none; font-size: 0.82rem; color: var(--soft);
}
.legend li { display: flex; align-items: center; gap: 0.35rem; }
.legend svg { width: 16px; height: 16px; }
.legend i { width: 18px; height: 10px; }
.panels { display: grid; align-items: end; gap: 1.6rem 1.4rem; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); }
.panel { max-width: 22rem; break-inside: avoid; }
.panel figcaption { margin: 0 0 0.2rem; color: var(--ink); font-weight: 500; overflow-wrap: anywhere; }
.view { margin: 0.4rem 0 0; font-size: 0.75rem; color: var(--soft); }

svg { display: block; overflow: visible; }
.panel svg { width: 100%; height: auto; }
svg.shared { position: absolute; }
svg svg { overflow: visible; }
text { fill: var(--ink); font-size: 13px; font-variant-numeric: tabular-nums; }
text.tick { fill: var(--soft); font-size: 11px; }
text.site, text.number { stroke: var(--paper); stroke-width: 5px; stroke-linejoin: round; paint-order: stroke; }
text.site { font-weight: 500; }
text.site.worst { fill: var(--red); }
text.value { font-size: 12px; font-weight: 600; }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis, .track { stroke: var(--faint); stroke-width: 1; }
.track { stroke-dasharray: 1 3; }
.gap { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 4 3; opacity: 0.55; }
.gap.across { stroke-dasharray: none; opacity: 1; }
.path { stroke: var(--blue); stroke-width: 2; }
.path.worst { stroke: var(--red); }
.interval { stroke: var(--ink); stroke-width: 1.5; }
.case { fill: var(--soft); opacity: 0.55; }
.before { fill: var(--paper); stroke: var(--soft); stroke-width: 2; }
.after { fill: var(--blue); stroke: var(--paper); stroke-width: 1.5; }
.after.worst { fill: var(--red); }
.local { fill: var(--paper); stroke: var(--ink); stroke-width: 1.8; }
.curve { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.others { stroke: var(--faint); stroke-width: 1; opacity: 0.75; }
.own { stroke: var(--blue); stroke-width: 2; }
.own-area { fill: var(--blue-wash); }
.site-line { fill: none; stroke: var(--colour); stroke-width: 1.8; }
.site-line.l1 { stroke-dasharray: 6 3; }
.site-line.l2 { stroke-dasharray: 2 3; }
.site-mark { fill: var(--colour); stroke: var(--paper); stroke-width: 1; }
circle.site-mark.c3 { fill: var(--paper); stroke: var(--colour); stroke-width: 1.8; }
.c0 { --colour: var(--blue); }
.c1 { --colour: var(--red); }
.c2 { --colour: var(--ink); }
.c3 { --colour: var(--soft); }
.legend .wide svg { width: 32px; }
.training { fill: var(--blue); background: var(--blue); }
.scoring { fill: var(--red); background: var(--red); }
.aggregating { fill: var(--ink); background: var(--ink); }
.waiting { fill: var(--rule); background: var(--rule); }

dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: 0.35rem 1.4rem; margin: 0 0 1.2rem; font-size: 0.86rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 0.8rem; }
summary { font-size: 0.86rem; cursor: pointer; }
pre { padding: 0.8rem 1rem; overflow-x: auto; border: 1px solid var(--rule); border-radius: 4px; }

@media (max-width: 40rem) {
  main { padding: 1.6rem 1rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.6rem; }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --rule: #ccc; --faint: #999; --blue: #0072b2; --blue-wash: #0072b21f; --red: #c24e00; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section { margin-top: 1.4rem; }
  h2 { break-after: avoid; }
  tr, figure { break-inside: avoid; }
  .scroll { overflow: visible; }
  th, td { padding: 0.25rem 0.35rem; font-size: 8.5pt; }
}
)css";
}

}  // namespace isoscan
