"""Runs a script in a fork of a process that has imported torch and what else is slow to import."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PRELOADED = ["pytest", "torch._dynamo", "torchvision.utils", "torch.utils.tensorboard", "torchsummary", "tqdm",
             "matplotlib.backends.backend_agg", "PIL.ImageOps"]


def run_here(path, arguments, folder, environment, files, file_size):
    """Become a process that runs a script: its folder, environment, standard output and standard error."""
    os.chdir(folder)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    for stream, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY), stream)
    if file_size:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv, sys.path[:0] = [path, *arguments], [os.path.dirname(path)]
    runpy.run_path(path, run_name="__main__")


class Script:
    """A script that has been started. env: variables besides the present; file_size: no file may exceed it."""

    def __init__(self, path, *arguments, cwd=".", env=(), file_size=None):
        self.path, self.folder = path, tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name, name) for name in ("stdout", "stderr")]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.process = context.Process(target=run_here, args=(
            str(path), list(map(str, arguments)), str(cwd), dict(env), self.files, file_size))
        for file in self.files:
            file.touch()
        self.process.start()

    def finish(self, number=None):
        """Send a signal, if one is given, and wait for the end; returns a subprocess.CompletedProcess with text."""
        if number:
            os.kill(self.process.pid, number)
        self.process.join()
        output = [file.read_text(encoding="utf-8") for file in self.files]
        self.folder.cleanup()
        return subprocess.CompletedProcess(self.path, self.process.exitcode, *output)


def run_script(path, *arguments, cwd=".", env=()):
    """Run a script to its end; returns a subprocess.CompletedProcess with text."""
    if sys.platform != "win32":
        return Script(path, *arguments, cwd=cwd, env=env).finish()
    return subprocess.run([sys.executable, path, *map(str, arguments)], cwd=cwd, env=os.environ | dict(env),
                          capture_output=True, text=True, encoding="utf-8")
