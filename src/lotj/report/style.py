"""The report's style sheet: light and dark, wide and narrow, nothing loaded from elsewhere."""

CSS = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --paper: #ffffff; --ink: #131a24; --muted: #5b6675; --grid: #dfe3e9;
  --before: #94a0b0; --true: #2563eb; --judged: #d97706; --bad: #dc2626; --good: #15803d;
  --warn-paper: #fff4e0; --warn-ink: #7a4300; --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0c1016; --paper: #141a23; --ink: #e6ebf2; --muted: #97a3b4; --grid: #2a3341;
  --before: #667386; --true: #6ea3ff; --judged: #f5a83c; --bad: #f87171; --good: #4ade80;
  --warn-paper: #33240c; --warn-ink: #ffd591; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.2rem 1.1rem 4rem; }
h1 { font-size: clamp(1.6rem, 4.6vw, 2.4rem); line-height: 1.15; letter-spacing: -.02em; margin: .2rem 0 .5rem;
  text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.25; letter-spacing: -.01em; margin: 2.8rem 0 .3rem; }
h3 { font-size: 1rem; margin: 0 0 .15rem; }
p { margin: .3rem 0 .8rem; }
.lead, .note { color: var(--muted); }
.note { font-size: .875rem; line-height: 1.45; }
h2 + .note { max-width: 46rem; } .name { white-space: nowrap; }
.kicker { color: var(--muted); font-size: .8rem; font-weight: 600; letter-spacing: .07em; text-transform: uppercase; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 1rem;
  margin: 1rem 0; }
.card { background: var(--paper); border: 1px solid var(--grid); border-radius: 12px;
  padding: 1rem 1.15rem; min-width: 0; }
.card > .note:last-child { margin-bottom: 0; }
.card > svg { display: block; width: 100%; height: auto; margin: .4rem 0; }
.big { display: flex; align-items: baseline; flex-wrap: wrap; gap: 0 .7rem; font-variant-numeric: tabular-nums;
  font-size: clamp(1.9rem, 6.5vw, 2.7rem); font-weight: 680; letter-spacing: -.03em; line-height: 1.2; }
.big .was { color: var(--muted); font-weight: 500; } .big .arrow { color: var(--muted); font-weight: 400; }
.big .is { color: var(--true); } .diagnostic .big .is { color: var(--judged); }
.chip { display: inline-block; font-size: .76rem; font-weight: 650; border-radius: 99px; padding: .1rem .65rem;
  border: 1px solid currentColor; white-space: nowrap; }
.chip.improved { color: var(--good); } .chip.worse { color: var(--bad); } .chip.unchanged { color: var(--muted); }
.head { display: flex; justify-content: space-between; align-items: baseline; gap: .6rem; }
.interval { display: grid; grid-template-columns: 3.6rem 1fr 7.6rem; gap: .6rem; align-items: center; font-size: .84rem;
  color: var(--muted); font-variant-numeric: tabular-nums; }
.interval > span:last-child { text-align: right; white-space: nowrap; }
.track { position: relative; height: 8px; border-radius: 4px; background: var(--grid); }
.track i { position: absolute; top: 0; bottom: 0; border-radius: 4px; background: currentColor; opacity: .4; }
.track b { position: absolute; top: -3px; width: 4px; height: 14px; margin-left: -2px; border-radius: 2px;
  background: currentColor; }
.track.before { color: var(--before); } .track.after { color: var(--true); }
.banner { background: var(--warn-paper); color: var(--warn-ink); border-left: 5px solid var(--judged);
  border-radius: 8px; padding: .8rem 1rem; margin: 1rem 0; font-size: .95rem; }
.missing { border: 1px dashed var(--grid); border-radius: 10px; color: var(--muted); padding: .7rem 1rem;
  margin: 1rem 0; font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .42rem .7rem .42rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { color: var(--muted); font-weight: 600; font-size: .8rem; }
td.n, th.n { text-align: right; white-space: nowrap; } td .note { margin: 0; }
tr:last-child td { border-bottom: 0; }
.card table { margin-top: .3rem; }
td b { color: var(--true); }
table.confusion { table-layout: fixed; max-width: 26rem; margin: .4rem 0 .7rem; border-spacing: 4px;
  border-collapse: separate; }
table.confusion td, table.confusion th { border: 0; padding: .55rem .5rem; text-align: center; vertical-align: middle; }
table.confusion td { border-radius: 8px; font-size: 1.3rem; font-weight: 650; line-height: 1.15; }
table.confusion td small { display: block; font-size: .72rem; font-weight: 450; opacity: .85; }
.ok { background: color-mix(in srgb, var(--true) calc(8% + var(--share) * 50%), var(--paper)); }
.err { background: color-mix(in srgb, var(--judged) calc(8% + var(--share) * 60%), var(--paper)); }
video, .card > img { display: block; width: 100%; height: auto; border-radius: 8px; background: #0f131a;
  margin: .4rem 0; }
.cams { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 6px; margin: .5rem 0; }
.cams img { width: 100%; border-radius: 6px; image-rendering: pixelated; display: block; }
pre { font: .8rem/1.5 var(--mono); overflow-x: auto; background: var(--page); border: 1px solid var(--grid);
  border-radius: 8px; padding: .7rem .9rem; margin: .4rem 0; }
code { font-family: var(--mono); font-size: .88em; }
details { border-top: 1px solid var(--grid); padding: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .5rem 1rem; margin: .6rem 0; font-size: .92rem; }
dt { font-weight: 650; } dd { margin: 0; color: var(--muted); }
section.practice + section.practice { border-top: 2px solid var(--grid); margin-top: 3rem; }
nav a, td a { color: var(--true); text-decoration: none; font-weight: 600; }
@media (max-width: 560px) { table { font-size: .8rem; } th { font-size: .72rem; }
  th, td { padding: .36rem .45rem .36rem 0; } main { padding: 1.2rem .8rem 3rem; } .card { padding: .85rem .8rem; }
  dl { grid-template-columns: 1fr; gap: 0 0; } dd { margin-bottom: .6rem; }
  .interval { grid-template-columns: 3rem 1fr 6.8rem; gap: .4rem; font-size: .78rem; } }
"""
