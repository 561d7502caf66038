"""The style sheet of a page: light and dark, from a phone's width to a desktop's."""

STYLE = (
    """
:root{color-scheme:light dark;--paper:#fff;--ink:#1d2129;--soft:#5b6472;--line:#d9dde3;--panel:#f5f6f8;--link:#1f5fae;
--good:#1d7a46;--warn:#9a6200;--bad:#b3261e;--c0:#2f6fb7;--c1:#d9731a;--c2:#2b8a57;--c3:#b53a4a;--c4:#7a56b3;
--c5:#8a6a3c;--c6:#c2519a;--c7:#1b8c9c}
@media (prefers-color-scheme:dark){:root{--paper:#14171c;--ink:#e4e7ec;--soft:#9aa4b2;--line:#333a45;--panel:#1d2229;
--link:#83b5f2;--good:#5fc98d;--warn:#e2ac4d;--bad:#f28b82;--c0:#6aa7ea;--c1:#f0a05a;--c2:#63c492;--c3:#ee8390;
--c4:#b39ae6;--c5:#c9a877;--c6:#e596c6;--c7:#5cc6d4}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:16px 16px 64px;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.4em 0 .2em}
header p{color:var(--soft);margin:.2em 0 1em}
h2{font-size:1.25rem;margin:2em 0 .6em;padding-top:.5em;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.4em 0 .4em}
p,ul{margin:.5em 0;max-width:75ch}
ul{padding-left:1.3em}
a{color:var(--link)}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.95rem}
nav a{padding:4px 0}
.note{border-left:4px solid var(--link);background:var(--panel);padding:8px 12px;border-radius:0 6px 6px 0}
.note.good{border-color:var(--good)}.note.warning{border-color:var(--warn)}.note.bad{border-color:var(--bad)}
.note b{display:block}
.note.good b{color:var(--good)}.note.warning b{color:var(--warn)}.note.bad b{color:var(--bad)}
pre{background:var(--panel);border-radius:6px;padding:10px 12px;white-space:pre-wrap;overflow-wrap:anywhere;
font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(118px,1fr));gap:10px;margin:1em 0}
.cards div{background:var(--panel);border-radius:8px;padding:10px 12px}
.cards b{display:block;overflow-wrap:normal;font-size:1.25rem;line-height:1.25;font-variant-numeric:tabular-nums}
.cards span{color:var(--soft);font-size:.82rem;line-height:1.3;display:block}
dl{display:grid;grid-template-columns:minmax(90px,max-content) minmax(0,1fr);gap:2px 16px;font-size:.92rem;
margin:.6em 0}
dt{color:var(--soft)}
dd{margin:0}
.wide{overflow-x:auto;margin:.8em 0}
table{border-collapse:collapse;font-size:.92rem;min-width:min(100%,420px)}
.caption{color:var(--soft);font-size:.92rem;margin:1em 0 -.4em}
.long{min-width:24ch}
th,td{padding:5px 12px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th,td{overflow-wrap:break-word;max-width:60ch}
th{color:var(--soft);font-weight:600;vertical-align:bottom}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.n{direction:ltr}
details{margin:.8em 0;border:1px solid var(--line);border-radius:8px;padding:0 12px}
summary{cursor:pointer;padding:9px 0}
details[open]{padding-bottom:8px}
figure{margin:0;min-width:0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:20px 24px;margin:1em 0;
align-items:start}
.chart{max-width:460px}
.chart figcaption{font-weight:600;font-size:.95rem}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;color:var(--soft);font-size:.82rem}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:5px;vertical-align:-1px}
svg{display:block;width:100%;height:auto;margin-top:4px}
svg text{fill:var(--ink);font-size:12px;font-family:inherit}
svg text.small{font-size:10.5px}
.grid{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--soft);stroke-width:1}
.mark{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:4 3}
polyline{fill:none;stroke-width:2;stroke-linejoin:round}
.gallery{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:20px;margin:1em 0;
align-items:start}
.picture{margin:.6em 0}
.gallery .picture{margin:0}
.picture img{display:block;max-width:100%;height:auto;border-radius:6px}
.picture figcaption{font-size:.88rem;color:var(--soft);margin-top:4px}
.pair{margin:1em 0 1.6em}
.pair div{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:8px;max-width:1000px}
.pair img{width:100%}
.drawn{overflow-x:auto}
.drawn img{background:#fff}
@media (max-width:720px){.drawn img{max-width:none}}
@media (prefers-color-scheme:dark){.drawn img{filter:invert(.9) hue-rotate(180deg)}}
@media print{nav{display:none}details{border:0}}
""".strip()
    + "".join(
        f"\n.f{k}{{fill:var(--c{k})}}.l{k}{{stroke:var(--c{k})}}.k{k}{{background:var(--c{k})}}" for k in range(8)
    )
)
