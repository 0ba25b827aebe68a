"""Runs a script in a fork of a process that has imported torch already, which is slow."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

PRELOADED = ["torch", "torchvision.datasets", "torch.utils.tensorboard", "matplotlib.figure", "torchsummary", "tqdm"]


def run_here(path, arguments, folder, environment, files):
    """Become a process that runs a script: its folder, environment, standard output and standard error."""
    os.chdir(folder)
    os.environ.update(environment)
    for stream, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY), stream)
    sys.argv, sys.path[:0] = [path, *arguments], [os.path.dirname(path)]
    runpy.run_path(path, run_name="__main__")


def run_script(path, *arguments, cwd=".", env=()):
    """Run a script to its end; returns a subprocess.CompletedProcess with text. env: variables besides the present."""
    arguments = [str(argument) for argument in arguments]
    if sys.platform == "win32":
        return subprocess.run([sys.executable, path, *arguments], cwd=cwd, env=os.environ | dict(env),
                              capture_output=True, text=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "stdout"), Path(folder, "stderr")]
        for file in files:
            file.touch()
        process = context.Process(target=run_here, args=(str(path), arguments, str(cwd), dict(env), files))
        process.start()
        process.join()
        return subprocess.CompletedProcess(path, process.exitcode, *(file.read_text() for file in files))
