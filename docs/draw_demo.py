"""Draw the README's pictures from the runs of `make demo`, and keep their figures: `python docs/draw_demo.py`.

It writes docs/images/tradeoff.svg (the report's own figure), docs/images/report.png (the top of the report in Chromium) and
results/demo.json.
"""

import json
import platform
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "runs" / "demo"
IMAGES = Path(__file__).with_name("images")
SHOWN = {
    "adherence": "adherence",
    "spillover": "spill-over",
    "coherence": "coherence",
    "kl": "KL",
    "rho_mean": "rho, mean",
}
RUNS = ("base", "naive", "grasp")
INK = "#6e7781"
"""Readable on a light and on a dark page."""


def main() -> None:
    """Write all three."""
    page = DEMO / "report.html"
    svg = re.search(r"<svg.*?</svg>", page.read_text(), flags=re.DOTALL)
    assert svg, "the report has no figure"
    (IMAGES / "tradeoff.svg").write_text(svg[0].replace("currentColor", INK) + "\n")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as driver:
        # As root Chromium has no sandbox; the page is our own
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        shown = opened.new_page(viewport={"width": 1200, "height": 640})
        shown.goto(page.as_uri())
        shown.locator(".first figure.drawn .tools button").first.wait_for()
        shown.screenshot(path=IMAGES / "report.png")
        opened.close()
    write_figures()


def write_figures() -> None:
    """Keep the scores of the three runs."""
    summary = json.loads((DEMO / "summary.json").read_text())
    rows = {
        name: {"run": name}
        | {title: _rounded(summary[name][key]) for key, title in SHOWN.items()}
        | {f"spill-over at {level}": _rounded(found.get(name)) for level, found in summary["matched"].items()}
        for name in RUNS
    }
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    kept = {
        "command": "make demo",
        "commit": commit,
        "date": date.today().isoformat(),
        "machine": f"2 CPU cores, {platform.machine()}",
        "seeds": [0],
        "figures": {"runs": rows},
    }
    (ROOT / "results" / "demo.json").write_text(json.dumps(kept, indent=2) + "\n")


def _rounded(value: float | None) -> float | None:
    if value is None:
        return None
    return round(value, 3) if value >= 0.001 else float(f"{value:.2g}")


if __name__ == "__main__":
    main()
