"""How the report looks, on a light and on a dark screen."""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f7f9; --line: #dfe3e8;
  --ink: #1c2127; --soft: #69717b; --mark: #fff3d6; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181c; --card: #1d2127; --line: #323841; --ink: #e6e9ec; --soft: #98a1ab;
    --mark: #40361c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 40px 28px 72px; max-width: 1180px; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: 26px; font-weight: 600; overflow-wrap: anywhere; }
h2 { margin: 44px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--line);
  font-size: 18px; font-weight: 600; }
h3 { margin: 0 0 6px; font-size: 14px; font-weight: 600; overflow-wrap: anywhere; }
header p, .note, .key, figcaption { margin: 0; color: var(--soft); font-size: 13px; }
.run { min-width: 0; margin-top: 20px; }
.tiles, .plots, .columns, .pictures { display: grid; gap: 14px; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); }
.plots { grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); }
.pictures { grid-template-columns: repeat(3, 1fr); margin-bottom: 16px; }
.columns { grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 24px; }
.tile, .plot, details { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
.tile { padding: 12px 14px; }
.tile p { margin: 0; overflow-wrap: anywhere; }
.tile .value { font-size: 22px; line-height: 1.35; font-weight: 600; }
.plot { min-width: 0; padding: 12px 8px 4px 12px; }
.plot h3 { height: 20px; margin: 0 70px 0 4px; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.plotly-graph-div { margin-top: -24px; } /* its buttons stand beside the title */
.key { margin-bottom: 12px; }
.key span { margin-right: 18px; white-space: nowrap; }
.swatch { display: inline-block; width: 20px; height: 4px; margin-right: 7px; border-radius: 2px;
  vertical-align: middle; }
figure { margin: 0; }
img { display: block; width: 100%; border: 1px solid var(--line); border-radius: 6px;
  image-rendering: pixelated; }
table { width: 100%; border-collapse: collapse; font-size: 13px; }
th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { width: 190px; color: var(--soft); font-weight: 400; }
thead th { color: var(--ink); font-weight: 600; }
td, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 12.5px; }
tr.differs { background: var(--mark); }
tr.differs th { color: var(--ink); }
tr.differs th::after { content: " \\2260"; }
.of-1 { columns: 420px 2; column-gap: 28px; }
details { margin-bottom: 8px; padding: 7px 14px; font-size: 13px; }
summary { cursor: pointer; }
details table { margin: 6px 0; }
pre { max-height: 420px; margin: 8px 0; padding: 10px; overflow: auto; background: var(--page);
  border: 1px solid var(--line); border-radius: 6px; }
"""
