"""A page in a real headless Chromium: what a script that is added to it sees, and what the console says."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
# A window cannot be as narrow as a phone, a frame in it can.
FRAME = """<!doctype html><body style="margin:0"><iframe src="{page}" style="width:{width}px; height:900px; border:0"></iframe>
<script>addEventListener('message', (event) => {{ document.body.dataset.seen = event.data; }});</script></body>"""
PROBE = """<script>addEventListener('load', async () => {{
const all = JSON.stringify(await (async () => {{ {script} }})()); parent.postMessage(all, '*'); }});</script></body>"""


def seen(page: Path, script: str, folder: Path, width: int = 1280, dark: bool = False) -> tuple[Any, list[str]]:
    """What the body of a JavaScript function returns on a copy of the page once it has loaded, and the console's lines."""
    copy, frame = folder / "probed.html", folder / "frame.html"
    copy.write_text(page.read_text().replace("</body>", PROBE.format(script=script)))
    frame.write_text(FRAME.format(page=copy.name, width=width))
    words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1400,900"]  # fmt: skip
    words += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000", "--dump-dom"]
    words += ["--blink-settings=preferredColorScheme=0"] if dark else []
    home = {**os.environ, "HOME": str(folder)}
    done = subprocess.run([*words, frame.as_uri()], capture_output=True, text=True, timeout=180, env=home)
    found = re.search(r'<body[^>]* data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
