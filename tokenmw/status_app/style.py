"""The style and the script of the page, which loads nothing else: they are allowed by their hashes alone."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

__all__ = ["CONTENT_SECURITY_POLICY", "SCRIPT", "STYLE"]

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#57606a;--line:#d0d7de;--back:#fff;--raised:#f6f8fa;
--good:#116329;--warn:#7d4e00;--bad:#b3151f;--bar:#2f6fb5}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9aa4af;--line:#3a424c;--back:#0f1318;--raised:#191f26;
--good:#56d364;--warn:#e3b341;--bad:#ff8078;--bar:#58a6ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
header,main,footer{max-width:76rem;margin:0 auto;padding:0 1rem}
header{padding-top:1rem}
h1{font-size:1.4rem;margin:0}
h2{font-size:1.1rem;margin:1.75rem 0 .5rem}
p{margin:.25rem 0}
.dim,footer{color:var(--dim);font-size:.9rem}
footer{padding-top:1rem;padding-bottom:2rem}
#summary{font-weight:600;padding:.6rem .8rem;margin:.75rem 0 0;background:var(--raised);border-left:.3rem solid;
border-radius:.25rem}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.state{font-weight:600}.state,.line{white-space:nowrap}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.45rem .75rem .45rem 0;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}
thead th{color:var(--dim);font-size:.85rem;font-weight:500;white-space:nowrap}
tbody th{font-weight:600;overflow-wrap:break-word}
td.number{font-variant-numeric:tabular-nums;white-space:nowrap}
td[data-label=Token]{min-width:15.5rem}
svg{display:block;width:7rem;height:.6rem;margin-top:.3rem}
svg .whole{fill:var(--line)}svg .left{fill:var(--bar)}svg .refresh{fill:var(--ink)}
svg.hour{width:13rem;max-width:100%}
svg .up{fill:var(--good)}svg .out{fill:var(--bad)}
.events{list-style:none;margin:0;padding:0}
.events li{padding:.3rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
.events time{color:var(--dim);font-size:.9rem;font-variant-numeric:tabular-nums;margin-right:.5rem}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.75rem;margin:0}
dt{color:var(--dim);font-size:.85rem}
dd{margin:0;font-variant-numeric:tabular-nums}
form{display:flex;flex-wrap:wrap;gap:.6rem;align-items:end;margin:.75rem 0}
label{display:block;color:var(--dim);font-size:.85rem}
select,input,button{font:inherit;color:inherit;background:var(--raised);border:1px solid var(--dim);
border-radius:.25rem;padding:.45rem .7rem;min-height:2.75rem;max-width:100%}
button{cursor:pointer;font-weight:600}
:focus-visible{outline:.2rem solid var(--bar);outline-offset:.1rem}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--back);padding:.5rem}
@media (max-width:44rem){
thead{position:absolute;left:-99rem}
table,tbody,tr,th,td{display:block}
tr{padding:.6rem 0;border-bottom:1px solid var(--line)}
th,td{border:0;padding:.1rem 0}
td{display:grid;grid-template-columns:8.5rem 1fr;gap:.5rem}
td::before{content:attr(data-label);color:var(--dim);font-size:.85rem}
td:empty{display:none}
td[data-label=Token]{min-width:0}
.compact tr{display:flex;flex-wrap:wrap;gap:0 .9rem}
.compact td{display:block}
.compact td:empty{display:none}
.compact td::before{content:attr(data-label) " "}
.compact td div{display:inline}
dl{grid-template-columns:1fr 1fr}
select,input,form div{width:100%}
}
"""
# The summary is announced by screen readers only when it changes.
SCRIPT: Final = """
"use strict";
const live = document.getElementById("live"), summary = document.getElementById("summary");
const connection = document.getElementById("connection");
const events = new EventSource(document.body.dataset.events);
events.addEventListener("status", (event) => {
  const sent = JSON.parse(event.data);
  live.innerHTML = sent.html;
  summary.className = sent.level;
  if (summary.textContent !== sent.summary) summary.textContent = sent.summary;
  connection.textContent = "Live.";
});
events.onerror = () => { connection.textContent = "Not live: waiting for this process to answer."; };
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of the page: its own style and script, requests to this site, and nothing else."""
