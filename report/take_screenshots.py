"""Screenshots of TensorBoard's cards for the report, of the first seed of the newest recorded runs, without smoothing.

    pip install playwright && playwright install chromium
    python report/take_screenshots.py

A chart of training and validation becomes report/figures/tensorboard_TASK.png; a card of only one of them, such as the
images of 3.2 b, ends in _training.png or _validation.png. `--browser FILE` uses an installed Chromium.
"""

import argparse
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
PORT = 6123
CARDS = {  # of a task: the network and a regular expression of the cards' tags
    "task_3_1_a": ("template", "accuracy"),
    "task_3_1_c": ("improved", "accuracy"),
    "task_3_2_b": ("denoiser", "MAE|noisy")}


def wait_for(address):
    """Wait until a server answers, for a minute or longer."""
    for _ in range(120):
        try:
            return urllib.request.urlopen(address, timeout=30)
        except OSError:
            time.sleep(0.5)
    sys.exit(f"{address} does not answer")


def take(browser, folder, tags, task):
    """Take the cards of what TensorBoard shows for a folder of events."""
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(PORT)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://localhost:{PORT}/"
        wait_for(address + "data/runs")
        page = browser.new_page(viewport={"width": 1500, "height": 1400}, device_scale_factor=2)
        page.goto(f"{address}?smoothing=0&tagFilter={quote(tags)}#timeseries")
        page.wait_for_selector("card-view", timeout=60_000)
        page.add_style_tag(content="card-view:has(image-card) {height: 900px}")  # a tall grid fills its card
        page.wait_for_timeout(8000)  # until the curves are drawn
        page.mouse.move(0, 0)  # no hover box over a curve
        for card in page.locator("card-view:visible").all():
            runs = [run for run in ("training", "validation") if run in card.inner_text()]
            path = ROOT / "report" / "figures" / f"tensorboard_{task}{f'_{runs[0]}' if len(runs) == 1 else ''}.png"
            card.screenshot(path=path)
            print(f"wrote {path}")
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--log-dir", type=Path, default=ROOT / "runs", help="where the runs are (default: %(default)s)")
    parser.add_argument("--browser", help="path of an installed Chromium")
    args = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        parser.error("playwright is missing: pip install playwright && playwright install chromium")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser)
        for task, (network, tags) in CARDS.items():
            command = f"python {task}.py --seed 0 1 2\n"
            runs = [file.parent for file in args.log_dir.glob(f"{task}/*/command.txt")
                    if file.read_text(encoding="utf-8").startswith(command)]
            if runs:
                take(browser, max(runs) / network / "seed0", tags, task)
            else:
                print(f"{task}: no recorded run in {args.log_dir}")


if __name__ == "__main__":
    main()
