"""Logits and maps of data sets larger than memory, in files."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import h5py
import numpy as np
import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable._checks import mistyped
from keras_explainable._checks import one_of
from keras_explainable._checks import positive_integer
from keras_explainable._typing import Arrays
from keras_explainable._typing import PathLike
from keras_explainable.engine._batching import no_batches

DTYPES = ("float32", "float16", "uint8")
SUFFIXES = (".h5", ".hdf5", ".zarr")
_ATTRIBUTE = "keras_explainable"
_VERSION = 1
# A part is written when it is that large or that old, whichever is first.
_PART_BYTES, _PART_SECONDS = 64e6, 15.0
_CHUNK_BYTES = 1e6
# What the folder of the parts of a file has after its name.
_PARTS = ".parts"
# The names of parts, from the number of a batch to that of the first one after.
_PART = f"{'[0-9]' * 12}-{'[0-9]' * 12}.npz"
# What libraries raise for files of another kind, or of a part of one.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError)
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError)


class Store:
    """Logits and maps in files, read as they are asked for.

    `store[rows]` reads the logits and maps of a sample, a slice or a list of them, as float32,
    whatever they were written as.

    Args:
        path: file that `ke.explain` wrote, or of which it wrote all shards, whose samples come in
            the order of the data. Also a list of such, whose samples follow each other.

    Attributes:
        paths: list of the files.
        logits: float32 array `(samples, n)`.

    Raises:
        ValueError: if a file is none of `ke.explain`, or a shard is missing, or files don't go
            together.
        OSError: if a file isn't there, or can't be read.

    Example:
        >>> import keras, numpy as np, pathlib, tempfile, keras_explainable as ke
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "maps.h5")
        ...     store = ke.gradcam(model, np.ones((3, 64, 64, 3)), 7, path=path)
        ...     logits, maps = store[1:]
        >>> len(store), maps.shape
        (3, (2, 64, 64, 1))
    """

    def __init__(self, path: PathLike | list[PathLike] | tuple[PathLike, ...]) -> None:
        listed = path if isinstance(path, list | tuple) else [path]
        if not listed:
            raise invalid("path", "one file at least", path)
        stores = [_shards(_checked(p)) or [Path(p)] for p in listed]
        self.paths = [p for files in stores for p in files]
        described = {p: _described(p) for p in self.paths}
        for name, files in zip(listed, stores, strict=True):
            is_shard = files == [Path(name)] and "shard" in described[files[0]]["identity"]
            if is_shard and len(listed) > 1:
                hint = "Pass the path that all its shards were made with."
                raise invalid("path", "whole stores in a list", f"the shard {name}", hint)
        self._shapes = described[self.paths[0]]["shapes"]
        for other in described.values():
            if other["shapes"] != self._shapes:
                expected = f"files whose samples have the shapes {self._shapes}"
                raise invalid("path", expected, other["shapes"])
        self._stops = np.cumsum([described[p]["samples"] for p in self.paths])
        order: list[np.ndarray] = []
        for files in stores:
            order.append(_order(files, [described[p] for p in files]) + sum(map(len, order)))
        self._order = np.concatenate(order)

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Logits of all samples, read when they are asked for."""
        return self._rows(slice(None), ["logits"])["logits"]

    def __len__(self) -> int:
        """Count the samples."""
        return int(self._stops[-1])

    def __repr__(self) -> str:
        """Tell what there is."""
        shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in self._shapes.items())
        return f"<Store of {len(self)} samples: {shapes}>"

    def __iter__(self) -> NoReturn:
        """Refuse to be unpacked: of two samples that would look like logits and maps."""
        raise TypeError(
            "A `Store` is neither unpacked nor gone through. Read logits and maps with "
            "`logits, maps = store.numpy()`, some samples of them with `store[start:stop]`, or go "
            "through batches with `store.dataset()`."
        )

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> Arrays:
        """Read the logits and maps of a sample, of a slice of them, or of a list of indices."""
        found = self._rows(rows, list(self._shapes))
        return found.pop("logits"), _structured(found)

    def _rows(self, rows, names):
        chosen = self._order[rows]
        wanted, places = np.unique(chosen, return_inverse=True)
        parts = [{name: np.empty((0, *self._shapes[name]), "float32") for name in names}]
        for path, stop, start in zip(self.paths, self._stops, [0, *self._stops], strict=False):
            within = wanted[(wanted >= start) & (wanted < stop)] - start
            if len(within):
                parts.append(_read(path, names, within))
        found = {}
        for name in names:
            values = np.concatenate([part[name] for part in parts])
            found[name] = values[places.reshape(chosen.shape)]
        return found

    def numpy(self) -> Arrays:
        """Read everything.

        Returns:
            logits: float32 array `(samples, n)`.
            maps: float32 array `(samples, *positions, n)`, or a list or dict of them.
        """
        return self[:]

    def dataset(self, batch_size: int = 32) -> tf.data.Dataset:
        """Go through the logits and maps of all samples.

        Args:
            batch_size: samples per batch. Defaults to 32.

        Returns:
            `tf.data.Dataset` of `(logits, maps)`.

        Raises:
            ValueError: if `batch_size` is no positive integer.
        """
        batch_size = positive_integer("batch_size", batch_size)
        specs = {name: tf.TensorSpec((None, *shape)) for name, shape in self._shapes.items()}
        signature = specs.pop("logits"), _structured(specs)

        def batches():
            for start in range(0, len(self), batch_size):
                yield self[start : start + batch_size]

        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
        count = tf.data.experimental.assert_cardinality(-(-len(self) // batch_size))
        return dataset.apply(count).prefetch(1)


class Writer:
    """What is written of a store, in parts, until there are all.

    Parts are files in a folder beside, each of which is there as a whole or not at all, under the
    number of its first and last batch. The store is made of them at the end.

    Args:
        path: file of the store.
        dtype: type of the maps in it.
        identity: dict that JSON can hold, what tells the store from others.
        is_only_reading: whether another process writes, and this one just goes along.
        shard: number of the shard that is written, and number of shards. Defaults to no shards.

    Attributes:
        path: file that is written.
        is_complete: whether the store is there already.
        num_batches: number of the batch that is appended next.

    Raises:
        ValueError: if the path is none for a store, or has another one, or the type is unknown.
        OSError: if nothing can be written there.
    """

    def __init__(self, path, dtype, identity, is_only_reading=False, shard=None):
        self.path = _checked(path) if shard is None else _shard(_checked(path), *shard)
        self.is_only_reading = is_only_reading
        one_of("dtype", dtype, DTYPES)
        if self.path.suffix not in SUFFIXES:
            raise invalid("path", f"a name that ends in one of {SUFFIXES}", str(path))
        if self.path.suffix == ".zarr":
            _zarr()
        if not self.path.parent.is_dir():
            raise invalid("path", "a file in a folder that is there", str(path))
        there = _files(Path(path)) + _files(Path(path), _PARTS)
        others = [p for p in there if _count(p) != _count(self.path)]
        if others:
            hint = "Delete it, or write to another path."
            kind = "but one file" if shard is None else f"but {shard[1]} shards"
            raise invalid("path", f"a store of which nothing is there {kind}", others[0], hint)
        identity = {**identity, "version": _VERSION, "dtype": dtype}
        if shard is not None:
            identity["shard"] = shard
        self._identity = json.loads(json.dumps(identity))
        self._dtype, self._shard = dtype, shard
        self._parts = self.path.with_name(f"{self.path.name}{_PARTS}")
        self._waiting, self._bytes, self._since = [], 0, time.monotonic()
        self._shapes = None
        self.num_batches = 0
        self._present = []
        self.is_complete = self.path.exists()
        if self.is_complete:
            self._compare(_described(self.path)["identity"])
            if not is_only_reading:
                _clear(self._parts)
            return
        note = self._parts / "identity.json"
        if note.exists():
            self._compare(_noted(note))
        elif not is_only_reading:
            # Without the note nobody knows what parts are of.
            _clear(self._parts)
            self._parts.mkdir(exist_ok=True)
            with _replacing(note) as partial:
                partial.write_text(json.dumps(self._identity), "utf-8")
        if not is_only_reading:
            _remove_damaged([path for *_, path in self._listed()])
        parts = self._listed()
        self._present = [(start, stop) for start, stop, _ in parts]
        if parts and not is_only_reading:
            self._shapes = _shapes(_loaded(parts[0][-1]))
        self._pass_over()

    def missing(self):
        """List what is to be appended, in this order.

        Returns:
            list of the number of a batch that isn't there, and of the next one that is, or `None`.
        """
        starts = [self.num_batches, *(stop for _, stop in self._present)]
        return list(zip(starts, [*(start for start, _ in self._present), None], strict=True))

    def append(self, logits, maps):
        """Add the logits and maps of a batch."""
        if self.is_only_reading:
            self.num_batches += 1
            self._pass_over()
            return
        fields = {"logits": np.asarray(logits, "float32")}
        if self._shard is not None:
            index, count = self._shard
            number = index + count * (self.num_batches + len(self._waiting))
            fields["batches"] = np.full(len(logits), number)
        for name, array in _named(maps).items():
            fields |= _encoded(name, np.asarray(array), self._dtype)
        self._shapes, shapes = self._shapes or _shapes(fields), _shapes(fields)
        for name, shape in shapes.items():
            if shape != self._shapes.get(name):
                raise unequal(name, self._shapes.get(name), shape)
        self._waiting.append(fields)
        self._bytes += sum(field.nbytes for field in fields.values())
        if self._bytes >= _PART_BYTES or time.monotonic() - self._since >= _PART_SECONDS:
            self._flush()
        self._pass_over()

    def __enter__(self):
        """Begin to write."""
        return self

    def __exit__(self, *_):
        """Keep what was appended, whatever happened."""
        self._flush()
        if not self.is_only_reading and not self._listed():
            _clear(self._parts)

    def finish(self):
        """Make the store of its parts, and remove them."""
        if self.is_only_reading:
            return
        parts = self._listed()
        stops = [0, *(stop for _, stop, _ in parts)]
        if not parts:
            if self._shard is not None:
                raise invalid("shard", "no more shards than batches", self._shard)
            raise no_batches()
        if [*(start for start, _, _ in parts), self.num_batches] != stops:
            raise OSError(f"Parts of {self.path} are missing. The same call makes them.")
        paths = [path for _, _, path in parts]
        with _replacing(self.path) as partial:
            _assemble(partial, paths, self._identity)
        _clear(self._parts)

    def _compare(self, identity):
        differing = _differing(identity, self._identity)
        if differing:
            expected = "the file of this very explanation, or a new one"
            there = self.path if self.path.exists() else self._parts
            received = f"{there}, which was made with another {', '.join(differing)}"
            hint = "Delete it, or write to another path."
            if "data" in differing:
                hint += " A data set has to yield the same in the same order each time."
            raise invalid("path", expected, received, hint)

    def _pass_over(self):
        """Go on after parts that are there already."""
        while self._present and self._present[0][0] == self.num_batches + len(self._waiting):
            self._flush()
            self.num_batches = self._present.pop(0)[1]

    def _listed(self):
        """List the first and last number, and the file, of each part, one after the other."""
        found = []
        for path in sorted(self._parts.glob(_PART)):
            start, stop = map(int, path.stem.split("-"))
            # One that was cut off is as good as none.
            if start >= (found[-1][1] if found else 0) and zipfile.is_zipfile(path):
                found.append((start, stop, path))
        return found

    def _flush(self):
        # An interrupt at any place here may lose what waited, and mustn't write it twice.
        waiting, self._waiting = self._waiting, []
        if waiting:
            fields = {
                name: np.concatenate([batch[name] for batch in waiting]) for name in waiting[0]
            }
            stop = self.num_batches + len(waiting)
            path = self._parts / f"{self.num_batches:012d}-{stop:012d}.npz"
            with _replacing(path) as partial, partial.open("wb") as file:
                np.savez(file, **fields)
            self.num_batches = stop
        self._bytes, self._since = 0, time.monotonic()


def _checked(path):
    """Return a path, or raise that it is none of a file."""
    if not isinstance(path, str | os.PathLike):
        raise mistyped("path", "the path of a file", path)
    path = Path(path)
    if path.is_dir() and path.suffix != ".zarr":
        raise invalid("path", "the path of a file", f"{path}, which is a folder")
    return path


def _shard(path, index, count):
    """Return the file of a shard of a store."""
    return path.with_name(f"{path.stem}-{index:05d}-of-{count:05d}{path.suffix}")


def _count(path):
    """Return of how many shards the file is one, or `None`."""
    found = re.search(r"-\d{5,}-of-(\d{5,})$", Path(path.name.removesuffix(_PARTS)).stem)
    return int(found[1]) if found else None


def _files(path, ending=""):
    """Return the files of a store that are there, one or shards, or the folders of their parts."""
    name = re.compile(rf"{re.escape(path.stem)}(-\d+-of-\d+)?{re.escape(path.suffix + ending)}")
    return sorted(p for p in path.parent.glob("*") if name.fullmatch(p.name))


def _shards(path):
    """Return the files of all shards of a store, or none where it is one file."""
    counts = {_count(p) for p in _files(path)}
    if counts <= {_count(path)}:
        return []
    if len(counts) > 1:
        found = ", ".join("one file" if n is None else f"{n} shards" for n in counts)
        raise invalid("path", "one file, or shards of one number", f"{found} of {path}")
    count = counts.pop()
    paths = [_shard(path, index, count) for index in range(count)]
    absent = [index for index, shard in enumerate(paths) if not shard.exists()]
    if absent:
        names = ", ".join(paths[index].name for index in absent)
        hint = f"The call with `shard=({absent[0]}, {count})` makes it, and goes on where it was."
        raise invalid("path", f"all {count} shards of {path}", f"all but {names}", hint)
    return paths


def _order(paths, described):
    """Return the samples of one file, or of all shards, in the order of the data."""
    if len(paths) == 1:
        return np.arange(described[0]["samples"])
    for path, one in zip(paths, described, strict=True):
        differing = set(_differing(one["identity"], described[0]["identity"])) - {"shard"}
        if differing:
            expected = f"shards of one explanation, as {paths[0]}"
            received = f"{path}, made with another {', '.join(sorted(differing))}"
            raise invalid("path", expected, received)
    batches = np.concatenate([_read(path, ["batches"])["batches"] for path in paths])
    absent = set(range(int(batches.max()))) - set(batches.tolist())
    if absent:
        raise invalid("path", "shards with every batch", f"none with the batch {min(absent)}")
    return np.argsort(batches, kind="stable")


def _shapes(fields):
    return {name: tuple(field.shape[1:]) for name, field in fields.items()}


def unequal(name, one, other):
    """Return the error that logits or maps of samples have several sizes."""
    if name == "logits":
        return invalid("y", "one number of units for all samples", f"{one} and {other}")
    hint = "Sizes that all maps get are an argument, such as `resizing=(224, 224)`."
    return invalid("x", "samples whose maps have one size", f"{one} and {other}", hint)


def _differing(one, other):
    """List in what two explanations differ."""
    found = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    if "batch_size" in found:  # The first batch of another size is another one.
        found = [n for n in found if n not in ("data", "data of options", "number of batches", "y")]
    return found


def _noted(note):
    """Return what the parts of a store are of."""
    try:
        return dict(json.loads(note.read_text("utf-8")))
    except (TypeError, ValueError) as error:
        hint = "Delete the folder, and all is explained anew."
        raise invalid("path", "a folder that `ke.explain` wrote", note.parent, hint) from error


@contextlib.contextmanager
def _replacing(path):
    """Give a path to write to, which takes the place of another when all is written."""
    partial = path.with_name(f"{path.name}.partial")
    _remove(partial)
    try:
        yield partial
        if partial.is_file():
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _named(maps):
    """Return maps as a dict from the names that they are written under."""
    if isinstance(maps, dict):
        return {f"maps/{name}": array for name, array in maps.items()}
    if isinstance(maps, list | tuple):
        return {f"maps/{number}": array for number, array in enumerate(maps)}
    return {"maps": maps}


def _structured(named):
    """Return what `_named` made a dict of."""
    if "maps" in named:
        return named["maps"]
    keys = {name.partition("/")[2]: array for name, array in named.items()}
    return tuple(keys.values()) if all(re.fullmatch(r"\d+", k) for k in keys) else keys


def _encoded(name, maps, dtype):
    """Return maps in the type that they are written in, and what it takes to read them."""
    if dtype == "float32":
        return {name: maps.astype("float32")}
    if dtype == "float16":
        with np.errstate(over="ignore"):
            small = maps.astype("float16")
        if (np.isinf(small) & np.isfinite(maps)).any():
            hint = 'Write raw maps as "float32".'
            raise invalid("dtype", "a type that holds the maps", "float16", hint)
        return {name: small}
    positions = tuple(range(1, maps.ndim - 1))
    low, high = maps.min(positions), maps.max(positions)
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite = np.isfinite(high - low)
    # A map with a value that is no number, or infinite, has no range, and is read as no number.
    low, high = np.where(is_finite, low, np.nan), np.where(is_finite, high, np.nan)
    lowest = np.expand_dims(low, positions)
    span = np.expand_dims(high - low, positions)
    with np.errstate(invalid="ignore"):
        shares = np.divide(maps - lowest, span, out=np.zeros_like(maps), where=span > 0)
    return {name: np.round(shares * 255).astype("uint8"), f"low_{name}": low, f"high_{name}": high}


def _decoded(name, fields):
    maps = fields[name]
    if maps.dtype != np.uint8:
        return maps.astype("float32") if maps.dtype.kind == "f" else maps
    positions = tuple(range(1, maps.ndim - 1))
    low, high = (np.expand_dims(fields[f"{end}_{name}"], positions) for end in ("low", "high"))
    return low + maps.astype("float32") / np.float32(255) * (high - low)


def _assemble(path, parts, identity):
    """Write one file of all parts, one part in memory at a time."""
    with _opened(path, "w") as file:
        counted, shapes = 0, {}
        number = sum(len(_loaded(part, ["logits"])["logits"]) for part in parts)
        for part in parts:
            for name, array in _loaded(part).items():
                if counted == 0:
                    _create(file, name, array, number)
                file[name].resize((counted + len(array), *array.shape[1:]))
                file[name][counted:] = array
                if name.startswith(("logits", "maps")):
                    shapes[name] = array.shape[1:]
            counted += len(array)
        described = {"identity": identity, "samples": counted, "shapes": shapes}
        file.attrs[_ATTRIBUTE] = json.dumps(described)


def _loaded(part, names=None):
    """Read fields of a part; one that is damaged is removed, so that the next call makes it."""
    try:
        with np.load(part) as fields:
            return {name: fields[name] for name in names or fields}
    except _DAMAGED as error:
        part.unlink()
        message = f"The part {part} was damaged, and is removed. The same call makes it again."
        raise OSError(message) from error


def _clear(folder):
    """Remove what a writer left in a folder; the rest of it is somebody else's."""
    for path in (*folder.glob(_PART), *folder.glob("*.partial"), folder / "identity.json"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_damaged(parts):
    """Remove parts that can't be read as a whole, so that they are made again."""
    for part in parts:
        try:
            with zipfile.ZipFile(part) as fields:
                is_whole = fields.testzip() is None
        except _DAMAGED:
            is_whole = False
        if not is_whole:
            part.unlink()


def _create(file, name, array, number):
    """Create an empty array that grows to a number of samples, in chunks of whole ones."""
    # Space is taken for whole chunks.
    rows = min(max(1, int(_CHUNK_BYTES // max(array[:1].nbytes, 1))), number)
    shape, chunks = (0, *array.shape[1:]), (rows, *array.shape[1:])
    if isinstance(file, h5py.Group):
        kept = {"maxshape": (None, *array.shape[1:])}
        file.create_dataset(name, shape, array.dtype, chunks=chunks, **kept)
    else:
        file.create_array(name, shape=shape, dtype=array.dtype, chunks=chunks)


def _read(path, names, rows=slice(None)):
    """Read samples of a store, by increasing indices, as float32."""
    with _opened(path) as file:
        found = {}
        for name in names:
            beside = [f"low_{name}", f"high_{name}"]
            fields = {n: _taken(file[n], rows) for n in (name, *beside) if n in file}
            found[name] = _decoded(name, fields)
    return found


def _taken(array, rows):
    if isinstance(rows, slice):
        return array[rows]
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return array[first : last + 1]
    return array[rows] if isinstance(array, h5py.Dataset) else array.oindex[rows]


def _described(path):
    """Return what a file says of itself."""
    if not path.exists():
        said, begun = f"There is no file {path}, and none of shards of it.", _files(path, _PARTS)
        if begun:
            said += f" It was begun in {begun[0]}: the call that did goes on when it is made again."
        raise FileNotFoundError(said)
    try:
        with _opened(path) as file:
            return json.loads(file.attrs[_ATTRIBUTE])
    except _UNREADABLE as error:
        if getattr(error, "errno", None):  # One that may be whole, but is locked or forbidden.
            raise
        hint = "A damaged one is made anew once it is deleted."
        raise invalid("path", "a file that `ke.explain` wrote", str(path), hint) from error


@contextlib.contextmanager
def _opened(path, mode="r"):
    if path.suffix == ".zarr" or path.suffixes[-2:] == [".zarr", ".partial"]:
        yield _zarr().open_group(path, mode=mode)
    else:
        # With chunks waiting in its cache, HDF5 crashes the process when the disk is full.
        kept = {"rdcc_nbytes": 0} if mode == "w" else {}
        try:
            with h5py.File(path, mode, **kept) as file:
                yield file
        except RuntimeError as error:  # What comes when the last bytes can't be written.
            if mode == "r":
                raise
            raise OSError(f"{path} can't be written: {error}") from error


def _zarr():
    """Import zarr, or say how to install it."""
    if importlib.util.find_spec("zarr") is None:
        raise ImportError(
            "Stores whose name ends in .zarr need the package zarr. "
            'Install it with: pip install "keras-explainable[zarr]"'
        )
    import zarr

    return zarr
