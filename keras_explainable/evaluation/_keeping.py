"""Keep what was evaluated in a file, from which an interrupted evaluation goes on."""

import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from keras_explainable._checks import invalid

_VERSION = 1
# What NumPy raises for files of another kind, or of a part of one.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile)
_SECONDS = 5.0


class Record:
    """What is done of an evaluation, in a file.

    Args:
        path: where the file is, or `None` to keep nothing.
        identity: dict that JSON can hold, what tells this evaluation from others.

    Raises:
        ValueError: if the file is of another evaluation, or is none of one.
        OSError: if the file can't be written.
    """

    def __init__(self, path, identity):
        self.path = None if path is None else Path(path)
        self.identity = json.loads(json.dumps({"version": _VERSION, **identity}))
        self.done = {}
        self.arrays = {}
        self._saved = time.monotonic()
        if self.path is None:
            return
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise invalid("path", "a file in a folder that is there", str(self.path))
        if self.path.exists():
            self._load()
        else:
            self.save()

    def _load(self):
        try:
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                kept = json.loads(str(file["evaluation"]))
                self.arrays = {name: file[name] for name in file.files if name != "evaluation"}
                identity = kept["identity"]
                self.done = kept["done"]
        except _UNREADABLE as error:
            raise invalid("path", "the file of an evaluation", str(self.path)) from error
        differing = [
            name
            for name in sorted({*identity, *self.identity})
            if identity.get(name) != self.identity.get(name)
        ]
        if differing:
            expected = "the file of this very evaluation, or a new one"
            received = f"{self.path}, which was made with another {', '.join(differing)}"
            raise invalid("path", expected, received)

    def update(self, method, num_batches, num_samples, states, final=False):
        """Note how far a method got.

        Args:
            method: its label.
            num_batches: number of batches that are in the sums.
            num_samples: number of samples in them.
            states: dict from metrics to dicts of arrays.
            final: whether that is all.
        """
        prefix = f"{method}\n"
        arrays = {n: a for n, a in self.arrays.items() if not n.startswith(prefix)}
        for metric, state in states.items():
            arrays |= {f"{prefix}{metric}\n{name}": array for name, array in state.items()}
        done = {"batches": num_batches, "samples": num_samples, "final": final}
        # In one step, so that an interrupt doesn't leave one without the other.
        self.arrays, self.done = arrays, self.done | {method: done}
        if final or time.monotonic() - self._saved > _SECONDS:
            self.save()

    def states(self, method):
        """Return what `update` was given."""
        found = {}
        for name, array in self.arrays.items():
            owner, metric, key = name.split("\n")
            if owner == method:
                found.setdefault(metric, {})[key] = array
        return found

    def save(self):
        """Write the file; another process sees the old one or the new one, never a part."""
        self._saved = time.monotonic()
        if self.path is None:
            return
        text = json.dumps({"identity": self.identity, "done": self.done})
        partial = self.path.with_name(f"{self.path.name}.partial")
        with partial.open("wb") as file:
            np.savez(file, evaluation=np.asarray(text), **self.arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
