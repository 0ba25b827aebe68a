"""Screenshots of TensorBoard's cards for the report, of the first seed of the newest recorded runs, without smoothing.

    pip install playwright
    playwright install chromium
    python report/take_screenshots.py

Each becomes report/figures/tensorboard_TASK.png. `--browser FILE` uses an installed Chromium.
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
CARDS = {"task_3_1_a": ("template", "accuracy"), "task_3_2_b": ("denoiser", "noisy")}  # the network, the card's tag


def wait_for(address):
    """Wait until a server answers, for a minute or longer."""
    for _ in range(120):
        try:
            return urllib.request.urlopen(address, timeout=30)
        except OSError:
            time.sleep(0.5)
    sys.exit(f"{address} does not answer")


def take(browser, folder, tag, task):
    """Take the first card of a tag (training before validation) that TensorBoard shows for a folder of events."""
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(PORT)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://localhost:{PORT}/"
        wait_for(address + "data/runs")
        page = browser.new_page(viewport={"width": 1500, "height": 1400}, device_scale_factor=2)
        page.add_init_script("""localStorage.setItem("_tb_global_settings", '{"ignoreOutliers": false}')""")  # show all
        page.goto(f"{address}?smoothing=0&tagFilter={quote(tag)}#timeseries")
        page.wait_for_selector("card-view", timeout=60_000)
        page.add_style_tag(content="card-view:has(image-card) {height: 900px}")  # a tall grid fills its card
        page.wait_for_timeout(8000)  # until the curves are drawn
        page.mouse.move(0, 0)  # no hover box over a curve
        path = ROOT / "report" / "figures" / f"tensorboard_{task}.png"
        page.locator("card-view:visible").first.screenshot(path=path)
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
        parser.error("playwright is missing: pip install playwright, then playwright install chromium")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser)
        for task, (network, tag) in CARDS.items():
            command = f"python {task}.py --seed 0 1 2\n"
            runs = [file.parent for file in args.log_dir.glob(f"{task}/*/command.txt")
                    if file.read_text(encoding="utf-8").startswith(command)]
            if runs:
                take(browser, max(runs) / network / "seed0", tag, task)
            else:
                print(f"{task}: no recorded run in {args.log_dir}")


if __name__ == "__main__":
    main()
