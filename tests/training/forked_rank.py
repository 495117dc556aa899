"""Runs a script as a program of its own would run: in a fork, with what ``launch.py`` hands over.

Handed over as globals: ``WORDS``, the script and its arguments; ``ENVIRONMENT``; ``LOG``, a path
for what it says on standard error. It is run under the name ``rank``.
"""

import os
import runpy
import sys
import warnings
from pathlib import Path

import torch

if __name__ == "rank":
    words: list[str] = globals()["WORDS"]
    with Path(globals()["LOG"]).open("w") as said:
        os.dup2(said.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(globals()["ENVIRONMENT"])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
