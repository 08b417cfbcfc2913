"""Datasets on disk: rendered in parallel, gone on with after an interruption, and checked.

    runs/data/motion/   dataset.json   factors.csv   levels.csv   clips/0000/000000.mp4 ...

Any dataset can be stored, as lossless mp4 with its truth. The same command gives the same files,
whichever process writes them and however often it was killed.
"""

from vidcomp.storage.check import Verdict, verify
from vidcomp.storage.store import label, prepare, render, store

__all__ = ["Verdict", "label", "prepare", "render", "store", "verify"]
