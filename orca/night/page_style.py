"""How the page of a night looks: light and dark, wide and narrow, told apart without colours as well."""

STYLE = """
:root{color-scheme:light dark;--page:#fbfbf9;--card:#fff;--text:#1c2530;--soft:#5a6673;--line:#d9dee4;
--low:#eef2f7;--high:#08519c;--onlow:#1c2530;--onhigh:#fff;--bad:#b33a00;--good:#08519c}
@media (prefers-color-scheme:dark){:root{--page:#11161c;--card:#1a212a;--text:#e6ebf0;--soft:#9aa7b5;--line:#323c48;
--low:#232d39;--high:#9ecae1;--onlow:#e6ebf0;--onhigh:#0d1a26;--bad:#ff9b5e;--good:#9ecae1}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:82rem;padding:1rem;background:var(--page);color:var(--text);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.55rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:.2rem 0 .4rem}
p{margin:.3rem 0}.soft{color:var(--soft)}.bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(6.6rem,1fr));gap:.5rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.5rem .7rem}
.tile b{display:block;font-size:1.15rem;white-space:nowrap;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.85rem}
.next{background:var(--card);border:1px solid var(--line);border-left:.3rem solid var(--bad);border-radius:.4rem;
padding:.5rem .8rem}
.next.calm{border-left-color:var(--good)}
.box{overflow-x:auto;border:1px solid var(--line);border-radius:.4rem;background:var(--card);padding:.4rem}
table{border-collapse:separate;border-spacing:2px;font-variant-numeric:tabular-nums;font-size:.82rem}
th{font-weight:600;color:var(--soft);padding:.1rem .3rem;white-space:nowrap}tbody th{text-align:left}
.map{min-width:58rem;width:100%}.map tbody th,.sums tbody th{position:sticky;left:0;background:var(--card)}
.map td{min-width:1.9rem;height:1.75rem;padding:0 .1rem;text-align:center;white-space:nowrap;border-radius:.2rem;
background:color-mix(in oklab,var(--high) calc(var(--share)*100%),var(--low));color:var(--onlow)}
.map td.dark{color:var(--onhigh)}.map td.none{background:none;color:var(--soft)}
.map td.trouble{outline:2px solid var(--bad);outline-offset:-2px;font-weight:700}
.sums td{padding:.1rem .5rem;text-align:right}
.sums tbody tr:last-child>*{font-weight:700;border-top:1px solid var(--line)}
.sums td.bad{color:var(--bad)}
.grid{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr))}
.grid.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr))}
figure,.card{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.6rem;min-width:0}
img{display:block;width:100%;height:auto;border-radius:.2rem;background:#fff}
figcaption{font-size:.85rem;margin-top:.3rem}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,11rem),1fr));
gap:.1rem .8rem;margin:.4rem 0;font-size:.85rem}
dl div{display:flex;justify-content:space-between;gap:.5rem}dt{color:var(--soft)}
dd{margin:0;font-weight:600;max-width:65%;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
ul{padding-left:1.2rem;margin:.4rem 0}li{margin:.25rem 0}
pre{overflow-x:auto;background:var(--low);color:var(--onlow);padding:.6rem;border-radius:.3rem;font-size:.78rem;
white-space:pre-wrap}
summary{cursor:pointer}details{margin:.35rem 0}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;
align-items:center;font-size:.85rem;color:var(--soft);margin:.4rem 0}
.ramp{display:inline-block;width:7rem;height:.9rem;vertical-align:middle;border-radius:.2rem;
background:linear-gradient(90deg in oklab,var(--low),var(--high))}
@media print{.box{overflow:visible}details>*{display:block}}
"""
