"""The one look of all pages: light and dark, on a wall and on a phone."""

STYLE = """
:root{--ground:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5d6878;--line:#dfe3ea;--grid:#e9ecf1;--good:#13795b;
--hit:#e3f4ec;--bad:#b3362c;--c0:#2f63c8;--c1:#d9730d;--c2:#138a72;--c3:#b83280;--c4:#7350c7;--c5:#8a6a12;
--c6:#1f93b8;--c9:#9aa3b1;--p0:#e0801f;--p1:#b7d0ee;--p2:#7fabdf;--p3:#4a80c6;--p4:#22589e;--p5:#0b3468}
@media(prefers-color-scheme:dark){:root{--ground:#11151c;--card:#191f29;--ink:#e8ecf2;--soft:#9aa6b6;
--line:#2b3442;--grid:#262e3a;--good:#5fd0a5;--hit:#16382d;--bad:#ff8f83;--c0:#7fa8ff;--c1:#ffab5c;--c2:#4fd0b4;
--c3:#f58ac4;--c4:#b79bff;--c5:#d9b95a;--c6:#6fd0ee;--c9:#7d8796;--p0:#ffab5c;--p1:#2c4d77;--p2:#3f73ae;
--p3:#629ad8;--p4:#98c3f3;--p5:#d9eafd}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:74rem;margin:0 auto;padding:1.6rem 1.2rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .2rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:0 0 .2rem}
h3{font-size:.95rem;margin:0 0 .5rem;display:flex;gap:.6rem;justify-content:space-between;
align-items:baseline}
h4{font-size:.8rem;margin:.7rem 0 .1rem;color:var(--soft);font-weight:600}
p{margin:.3rem 0}
section{margin-top:2.2rem}
a{color:var(--c0)}
.lead,.note,small,.missing{color:var(--soft)}
.lead{max-width:52rem;margin-bottom:.8rem}
.note,small{font-size:.8rem;font-weight:400}
.kicker{color:var(--soft);font-size:.85rem;margin:0 0 .3rem}
.missing{border:1px dashed var(--line);border-radius:.6rem;padding:.7rem .9rem}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin-top:1rem;font-size:.9rem}
nav a{text-decoration:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1rem 0 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.8rem;padding:.7rem .9rem;min-width:0}
.tile b{display:block;font-size:1.55rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span,.tile small{display:block}
.tile span{font-size:.85rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--least)),1fr));gap:.9rem;
margin-top:.9rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.8rem;padding:.9rem 1rem;min-width:0}
.row{display:grid;grid-template-columns:5.9rem minmax(0,1fr) 6.1rem;gap:.5rem;align-items:center;
font-size:.85rem}
.row>:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.row>:last-child{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.groups .row{grid-template-columns:6.6rem minmax(0,1fr) 3.4rem;
padding:.12rem 0;border-top:1px solid var(--grid)}
.groups .row>:first-child{line-height:1.15;white-space:normal}
.deltas .row{grid-template-columns:7.4rem minmax(0,1fr) 7.6rem;border-top:1px solid var(--grid)}
.deltas .row>:first-child{line-height:1.15;white-space:normal}
.between{margin:1.2rem 0 -.3rem}
.axis{display:flex;justify-content:space-between;color:var(--soft);font-size:.7rem;margin-top:.2rem}
.row.scale{color:var(--soft);font-size:.7rem}
.row.scale .axis{margin:0}
.legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.8rem;color:var(--soft);margin:0 0 .3rem}
.dot{display:inline-block;width:.65rem;height:.65rem;border-radius:50%;margin-right:.35rem;
background:currentColor}
svg{display:block;width:100%;height:auto}
svg.strip{height:1.35rem;overflow:visible}
svg text{fill:var(--soft);font-size:11px}
.gridline{stroke:var(--grid)}.zero{stroke:var(--soft);stroke-width:1}
.mark{stroke:var(--good);stroke-dasharray:3 3}.marked{fill:var(--good)!important}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.point{fill:currentColor}.bar{stroke:currentColor;stroke-width:5;stroke-linecap:round;opacity:.32}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}
.c5{color:var(--c5)}.c6{color:var(--c6)}.c9{color:var(--c9)}
.better{color:var(--good)}.worse{color:var(--bad)}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.82rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:.28rem .6rem;border-top:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,.left td{text-align:left}
thead th{color:var(--soft);font-weight:600;border-top:0}
.left td,.left th{white-space:normal;overflow-wrap:anywhere;vertical-align:top}
.left th:first-child{width:34%}
details{margin-top:.9rem}
summary{cursor:pointer;color:var(--c0);font-size:.9rem}
.user header{display:flex;flex-wrap:wrap;gap:.1rem .7rem;align-items:baseline;margin-bottom:.3rem}
.user header b{overflow-wrap:anywhere}
.badge{font-size:.78rem;border-radius:1rem;padding:.05rem .6rem;background:var(--grid);color:var(--soft)}
.badge.hit{background:var(--hit);color:var(--good);font-weight:600}
.user h4{margin-top:.5rem}
.items{margin:0;padding-left:1.7rem;font-size:.85rem;line-height:1.45}
.items li{overflow-wrap:anywhere}
.items li::marker{color:var(--soft);font-variant-numeric:tabular-nums}
.items .hit{background:var(--hit);color:var(--good);font-weight:600;border-radius:.3rem;
box-shadow:-1.7rem 0 0 var(--hit)}
.changed li{padding:.3rem 0;border-top:1px solid var(--grid)}
.items.plain{list-style:none;padding-left:0}
.map input{margin:0 .3rem 0 0;accent-color:var(--c0)}
.map label{font-size:.85rem;margin-right:.9rem}
.map svg{margin-top:.5rem;border-radius:.5rem;background:var(--ground)}
.map circle{opacity:.8;fill:currentColor}
.map .by-kind,.map .by-taken{display:none}
.map #of-kind:checked~.by-kind,.map #of-taken:checked~.by-taken{display:flex}
.k0{color:#2f63c8}.k1{color:#d9730d}.k2{color:#138a72}.k3{color:#b83280}.k4{color:#7350c7}
.k5{color:#8a6a12}.k6{color:#1f93b8}.k7{color:#b3362c}.k8{color:#5d8a1f}.k9{color:#5d6878}
.others{color:var(--c9)}
@media(prefers-color-scheme:dark){.k0{color:#7fa8ff}.k1{color:#ffab5c}.k2{color:#4fd0b4}.k3{color:#f58ac4}.k4{color:#b79bff}
.k5{color:#d9b95a}.k6{color:#6fd0ee}.k7{color:#ff8f83}.k8{color:#a9d667}.k9{color:#c3cddb}}
.by-taken .t0,#of-taken:checked~svg .t0{color:var(--p0)}
.by-taken .t1,#of-taken:checked~svg .t1{color:var(--p1)}
.by-taken .t2,#of-taken:checked~svg .t2{color:var(--p2)}
.by-taken .t3,#of-taken:checked~svg .t3{color:var(--p3)}
.by-taken .t4,#of-taken:checked~svg .t4{color:var(--p4)}
.by-taken .t5,#of-taken:checked~svg .t5{color:var(--p5)}
#of-kind:checked~svg .others{opacity:.35}
.gauge{padding:.5rem 0;border-top:1px solid var(--grid)}
.gauge b{float:right;font-variant-numeric:tabular-nums}
.meter{height:.5rem;border-radius:.3rem;background:var(--grid);margin:.35rem 0;overflow:hidden;clear:both}
.meter i{display:block;height:100%;background:var(--c0)}
pre{background:var(--ground);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .8rem;
margin:.4rem 0;font:.8rem/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;
white-space:pre-wrap;overflow-wrap:anywhere}
footer{margin-top:2.5rem;color:var(--soft);font-size:.8rem;border-top:1px solid var(--line);padding-top:.8rem}
@media(max-width:560px){main{padding:1.1rem .8rem 2rem}.card{padding:.8rem}.tile b{font-size:1.3rem}
h1{font-size:1.35rem}
.deltas .row{grid-template-columns:5.4rem minmax(0,1fr) 4.2rem}
.tiles{grid-template-columns:1fr 1fr}.row{grid-template-columns:5.2rem minmax(0,1fr) 5.9rem}}
@media print{body{background:#fff}.card{break-inside:avoid}}
"""
