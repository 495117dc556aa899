"""The page's style sheet: two palettes, one column on a phone, tables that scroll on their own."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f7f8fa; --card: #ffffff; --ink: #1c222b; --soft: #5a6472; --rule: #dfe3e8;
  --blue: #1f5fa8; --band: #1f5fa833; --amber: #b45f06; --green: #1f7a5c; --red: #b3261e;
  --warn: #fdf0ee; --zebra: #f4f6f8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12151a; --card: #1a1f26; --ink: #e7eaef; --soft: #a3adba; --rule: #333b46;
    --blue: #79b0f0; --band: #79b0f033; --amber: #e6a455; --green: #5cc2a0; --red: #ff9a90;
    --warn: #2c1d1f; --zebra: #20262e;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2rem); }
header { padding-top: clamp(1.5rem, 5vw, 3rem); }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; margin: 0 0 .4rem; }
h1, h2, h3, summary, td, .finding { overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 0 0 .25rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
a { color: var(--blue); }
.soft, .none, figcaption { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1rem 0 0; font-size: .95rem; }
nav a { padding: .3rem 0; }
section {
  background: var(--card); border: 1px solid var(--rule); border-radius: .8rem;
  padding: clamp(1rem, 3.5vw, 1.75rem); margin: 1.25rem 0;
}
footer { padding-bottom: 3rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: .8rem;
  padding: .7rem .9rem; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.45rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.findings { list-style: none; padding: 0; margin: .75rem 0 0; display: grid; gap: .5rem; }
.findings li { padding: .55rem .8rem; border-left: 4px solid var(--blue); background: var(--zebra);
  border-radius: 0 .4rem .4rem 0; overflow-wrap: anywhere; }
.findings li.suspect { border-color: var(--red); background: var(--warn); }
.scroll { overflow-x: auto; max-width: 100%; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 3px solid var(--blue);
  outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: .35rem; }
th, td { padding: .42rem .7rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--card);
  background-clip: padding-box; z-index: 1; }
tbody th, td.value { max-width: 14rem; overflow: hidden; text-overflow: ellipsis; }
tbody tr:last-child > * { border-bottom: 0; }
.tag { font-size: .78rem; font-weight: 600; border: 1px solid var(--rule); border-radius: 1rem;
  padding: .05rem .55rem; color: var(--soft); white-space: nowrap; }
.tag.suspect { color: var(--red); border-color: var(--red); }
.share { display: inline-block; width: 6.5rem; height: .6rem; background: var(--rule);
  border-radius: .3rem; vertical-align: middle; overflow: hidden; }
.share i { display: block; height: 100%; background: var(--blue); }
.share.suspect i { background: var(--red); }
.interval { vertical-align: middle; }
figure { margin: .4rem 0 1rem; }
figcaption { margin-bottom: .4rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 0 2.25rem; }
.pair > * { min-width: 0; }
.chart { display: grid; grid-template: auto 1.5rem / 3.9rem minmax(0, 1fr); margin: .6rem 0; }
.chart svg { width: 100%; display: block; overflow: visible; }
.chart.rates { grid-template-rows: auto .6rem; }
.chart.rates svg { height: 10rem; }
.chart.bars svg { height: 5.5rem; }
.y, .x { position: relative; color: var(--soft); font-size: .78rem;
  font-variant-numeric: tabular-nums; }
.y span { position: absolute; right: .6rem; transform: translateY(-50%); white-space: nowrap; }
.x { grid-column: 2; }
.x span { position: absolute; top: .3rem; transform: translateX(-50%); white-space: nowrap; }
svg line, svg polyline { vector-effect: non-scaling-stroke; }
.grid { stroke: var(--rule); stroke-width: 1; }
.mean { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 2; }
.line { fill: none; stroke: var(--blue); stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--band); }
.whisker { stroke: var(--blue); stroke-width: 1.6; opacity: .55; }
.point { stroke: var(--blue); stroke-width: 7; stroke-linecap: round; }
.dot { fill: var(--blue); }
.bar, .train { fill: var(--blue); }
.valid { fill: var(--amber); }
.test { fill: var(--green); }
.hover { fill: transparent; }
.hover:hover { fill: var(--band); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .85rem; color: var(--soft);
  list-style: none; padding: 0; margin: 0; }
.legend svg { width: .75rem; height: .75rem; margin-right: .4rem; }
details { border-top: 1px solid var(--rule); }
details:last-of-type { border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; padding: .65rem .2rem; }
summary b { margin-right: .6rem; }
summary span { color: var(--soft); font-size: .9rem; }
details[open] > summary { background: var(--zebra); }
.inside { padding: .25rem .2rem 1rem; }
@media (max-width: 34rem) {
  th, td { padding: .4rem .45rem; }
  .share { width: 4.2rem; }
  .interval { width: 84px; height: 12px; }
}
@media print { section { break-inside: avoid; border: 0; } nav { display: none; } }
"""
