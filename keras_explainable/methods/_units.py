"""From cotangents of the logits to one map per explained unit."""

import contextlib
import contextvars

import tensorflow as tf

from keras_explainable import _axes
from keras_explainable._checks import invalid
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import unit_indices

# Bytes that the positions explained side by side may hold in `explain_linear`, and the batch that
# is reckoned with where its size is unknown.
_BUDGET = 2**30
_BATCH_SIZE = 32
# Bytes that gradients of units explained side by side may hold, and how many units it takes for
# that to be worth the longer compilation.
_CHUNK_BUDGET = 2**24
_FEW = 9
# What a user allows in place of both; methods don't take it, as it changes none of their maps.
_allowed = contextvars.ContextVar("max_bytes", default=None)


@contextlib.contextmanager
def limited(max_bytes):
    """Explain within a number of bytes, in place of the budgets of the library, unless `None`."""
    token = _allowed.set(max_bytes)
    try:
        yield
    finally:
        _allowed.reset(token)


def float_logits(logits):
    """Return logits in float32, or say that they are not `(batch, units)`."""
    if logits.shape.rank != 2:
        hint = "Choose another output with `output=`, or what of it is explained (`ke.targets`)."
        raise invalid("model", "logits of shape (batch, units)", tuple(logits.shape), hint)
    return tf.cast(logits, tf.float32)


def explain_each(explain, logits, indices=None, signature=tf.float32):
    """Explain one unit after the other, in the memory that one takes.

    Args:
        explain: function from a cotangent of the logits, `(batch, units)`, to `(batch, ...)`.
        logits: float tensor `(batch, units)`.
        indices: units to explain, as in `inspection.gather_units`.
        signature: structure of dtypes of what `explain` returns.

    Returns:
        what `explain` returns, with an axis of the explained units added last.
    """

    def explain_column(column):
        return explain(tf.one_hot(column, logits.shape[-1], dtype=logits.dtype))

    return explain_columns(explain_column, logits, indices, signature)


def explain_columns(explain, logits, indices=None, signature=tf.float32, held=None):
    """Explain one unit after the other, or many side by side.

    Args:
        explain: function from the number of a unit of each sample, `(batch,)`, to `(batch, ...)`.
        logits: float tensor `(batch, units)`.
        indices: units to explain, as in `inspection.gather_units`.
        signature: structure of dtypes of what `explain` returns.
        held: number of values per unit and sample that `explain` holds where units may be
            explained side by side, in chunks that a budget allows. Defaults to one at a time.

    Returns:
        what `explain` returns, with an axis of the explained units added last.
    """
    indices = unit_indices(logits, indices)
    if indices is None:
        indices = tf.tile(tf.range(logits.shape[-1])[None], (tf.shape(logits)[0], 1))
    columns, count = tf.transpose(indices), indices.shape[1]

    def explain_chunk(chunk):
        return tf.vectorized_map(explain, chunk)

    if count == 1:
        maps = tf.nest.map_structure(lambda m: m[None], explain(columns[0]))
    elif held is None or (count or 0) < _FEW:
        maps = _in_turn(explain, columns, signature)
    else:
        taken = 4 * held * (logits.shape[0] or _BATCH_SIZE)
        size = max(1, min(count, (_allowed.get() or _CHUNK_BUDGET) // taken))
        # The last chunk is filled up with units that are left out of what is returned.
        columns = tf.pad(columns, ((0, -count % size), (0, 0)))
        chunks = tf.reshape(columns, (-1, size, tf.shape(columns)[1]))
        if chunks.shape[0] == 1:
            maps = explain_chunk(chunks[0])
        else:
            maps = tf.nest.map_structure(
                lambda m: tf.reshape(m, (-1, *_axes.sizes(m)[2:]))[:count],
                _in_turn(explain_chunk, chunks, signature),
            )
    return tf.nest.map_structure(_units_last, maps)


def explain_linear(explain, explain_column, logits, indices, activations, held):
    """Explain units with maps that are linear in the cotangent, on the cheaper side.

    Maps of more units than positions are the Jacobian of the map with respect to the cotangent,
    which takes one pass of the head per position whatever the number of units.

    Args:
        explain: linear function from a cotangent of the logits `(batch, units)` to maps
            `(batch, *positions)`.
        explain_column: the same from the number of a unit of each sample, `(batch,)`.
        logits: float tensor `(batch, units)`.
        indices: units to explain, as in `inspection.gather_units`.
        activations: tensor `(batch, *positions, kernels)` that is explained with.
        held: number of values of a gradient of one sample where it is the same at every position;
            `None` elsewhere, where it has the size of the activations.

    Returns:
        maps `(batch, *positions, n)`.
    """
    indices = unit_indices(logits, indices)
    units = logits.shape[-1] if indices is None else indices.shape[1]
    positions = activations.shape[1:-1].num_elements()
    if units is None or positions is None or units <= positions:
        return explain_columns(explain_column, logits, indices, held=held)
    cotangent = tf.zeros_like(logits)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(cotangent)
        maps = explain(cotangent)
    values = held or activations.shape[1:].num_elements()
    size = 4 * values * (activations.shape[0] or _BATCH_SIZE)
    # Side by side is fastest, in chunks of two at least where memory doesn't allow it.
    budget = _allowed.get() or _BUDGET
    chunk = None if positions * size <= budget else max(2, budget // size)
    jacobian = tape.batch_jacobian(maps, cotangent, parallel_iterations=chunk)
    return gather_units(jacobian, indices)


def _in_turn(explain, elements, signature):
    """Apply a function to one element after the other."""
    try:
        return tf.map_fn(explain, elements, fn_output_signature=signature, parallel_iterations=1)
    except Exception:
        # After a trace that fails, `tf.map_fn` leaves this set, and no strategy can be entered.
        if not tf.executing_eagerly():
            tf.compat.v1.get_variable_scope().set_caching_device(None)
        raise


def _units_last(maps):
    return tf.transpose(maps, (*range(1, maps.shape.rank), 0))
