"""Screenshots of TensorBoard's cards for the report, of the first seed of each recorded run.

    pip install playwright && playwright install chromium
    python report/take_screenshots.py runs/task_3_1_a/DATE-TIME-PROCESS/template/seed0 accuracy task_3_1_a

takes the cards whose tag matches a regular expression, without smoothing: a chart of both training and validation
becomes report/figures/tensorboard_task_3_1_a.png; a card of only one of them (such as the images of 3.2 b, by
"MAE|noisy") ends in _training.png or _validation.png. `--browser FILE` uses an installed Chromium.
"""

import argparse
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

FIGURES = Path(__file__).parent / "figures"


def wait_for(address):
    """Wait until a server answers, for a minute or longer."""
    for _ in range(120):
        try:
            return urllib.request.urlopen(address, timeout=30)
        except OSError:
            time.sleep(0.5)
    sys.exit(f"{address} does not answer")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", help="what TensorBoard gets as --logdir")
    parser.add_argument("tags", help="regular expression of the cards' tags")
    parser.add_argument("name", help="the pictures' name after tensorboard_")
    parser.add_argument("--browser", help="path of an installed Chromium")
    parser.add_argument("--port", type=int, default=6123)
    args = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        parser.error("playwright is missing: pip install playwright && playwright install chromium")

    address = f"http://localhost:{args.port}/"
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", args.folder, "--port",
                               str(args.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(address + "data/runs")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=args.browser)
            page = browser.new_page(viewport={"width": 1500, "height": 1400}, device_scale_factor=2)
            page.goto(f"{address}?smoothing=0&tagFilter={quote(args.tags)}#timeseries")
            page.wait_for_selector("card-view", timeout=60_000)
            page.add_style_tag(content="card-view:has(image-card) {height: 900px}")  # a tall grid fills its card
            page.wait_for_timeout(8000)  # until the curves are drawn
            page.mouse.move(0, 0)  # no hover box over a curve
            for card in page.locator("card-view:visible").all():
                runs = [run for run in ("training", "validation") if run in card.inner_text()]
                kind = f"_{runs[0]}" if len(runs) == 1 else ""
                path = FIGURES / f"tensorboard_{args.name}{kind}.png"
                card.screenshot(path=path)
                print(f"wrote {path}")
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
