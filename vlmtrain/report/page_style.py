"""The look of the sample page.  A constant in a module, so that it travels in every wheel."""

STYLE = """
:root { color-scheme: light dark; --paper: #f7f6f3; --card: #ffffff; --edge: #e6e2da; --ink: #21201d; --grey: #77736a;
  --soft: #efede7; --green: #1f8a57; --green-soft: #e3f3ea; --red: #c8402f; --red-soft: #fbe7e3;
  --amber: #9a6a00; --amber-soft: #fbf0d6; }
@media (prefers-color-scheme: dark) { :root { --paper: #191816; --card: #232220; --edge: #38352f; --ink: #f0eee8;
  --grey: #a19c91; --soft: #2b2926; --green: #5fc795; --green-soft: #1d3529; --red: #f08a7b; --red-soft: #41231e;
  --amber: #e0b354; --amber-soft: #3a2e15; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 48px 28px 80px; }
h1 { font-size: 2.3rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 6px; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 56px 0 2px; }
p { margin: 0; }
.lead, .about { color: var(--grey); overflow-wrap: anywhere; }
.about { margin-bottom: 20px; font-size: 0.93rem; }
pre { background: var(--soft); border: 1px solid var(--edge); border-radius: 10px; padding: 12px 16px;
  margin: 22px 0 0; overflow-x: auto; font: 0.88rem/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 16px; margin-top: 26px; }
.figure { background: var(--card); border: 1px solid var(--edge); border-radius: 14px; padding: 18px 20px; }
.figure b { display: block; font-size: 2rem; line-height: 1.2; letter-spacing: -0.02em; font-weight: 650; }
.figure span { display: block; }
.figure .note { color: var(--grey); font-size: 0.87rem; margin-top: 4px;
  text-wrap: balance; }
.filter { display: inline-flex; gap: 8px; align-items: center; margin-top: 30px; color: var(--grey);
  font-size: 0.93rem; cursor: pointer; }
.filter input { accent-color: var(--red); width: 16px; height: 16px; margin: 0; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(258px, 1fr)); gap: 20px; }
article { background: var(--card); border: 1px solid var(--edge); border-radius: 16px; overflow: hidden;
  display: flex; flex-direction: column; box-shadow: 0 1px 2px rgb(0 0 0 / 4%); }
article > img { width: 100%; aspect-ratio: 1; display: block; background: var(--soft); }
.said { padding: 16px 18px 14px; flex: 1; }
.caption { font-size: 1.04rem; line-height: 1.42; overflow-wrap: anywhere; }
.prompt { color: var(--grey); font-size: 0.9rem; margin-bottom: 4px; }
.badge { display: inline-flex; align-items: center; gap: 5px; border-radius: 99px; padding: 1px 10px 1px 8px;
  font-size: 0.8rem; font-weight: 600; margin-bottom: 8px; }
.right { color: var(--green); background: var(--green-soft); }
.wrong { color: var(--red); background: var(--red-soft); }
.open { color: var(--grey); background: var(--soft); }
.why { color: var(--red); font-size: 0.88rem; margin-top: 6px; overflow-wrap: anywhere; }
.truth { color: var(--grey); font-size: 0.88rem; margin-top: 10px; overflow-wrap: anywhere; }
.truth i { font-style: normal; opacity: 0.75; }
.control { display: flex; gap: 12px; padding: 12px 18px 16px; border-top: 1px solid var(--edge);
  background: color-mix(in srgb, var(--soft) 55%, var(--card)); font-size: 0.86rem; line-height: 1.4; }
.control img { width: 62px; height: 62px; border-radius: 9px; flex: none; }
.control div { min-width: 0; overflow-wrap: anywhere; }
.control .about { margin: 0 0 2px; font-size: 0.8rem; }
.still { color: var(--amber); background: var(--amber-soft); border-radius: 5px; padding: 0 6px; }
footer { margin-top: 64px; padding-top: 18px; border-top: 1px solid var(--edge); color: var(--grey);
  font-size: 0.88rem; }
body:has(#only-wrong:checked) article.is-right { display: none; }
@media (max-width: 520px) { main { padding: 28px 16px 56px; } h1 { font-size: 1.8rem; } }
@media print { .filter { display: none; } article { break-inside: avoid; } }
"""
