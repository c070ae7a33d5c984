"""From cotangents of the logits to one map per explained unit."""

import tensorflow as tf

from keras_explainable._checks import invalid
from keras_explainable.inspection import gather_units
from keras_explainable.inspection import unit_indices

# Bytes that the positions explained side by side may hold in `explain_linear`, and the batch that
# is reckoned with where its size is unknown.
_BUDGET = 2**30
_BATCH_SIZE = 32


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
    indices = unit_indices(logits, indices)
    depth = logits.shape[-1]
    if indices is None:
        indices = tf.tile(tf.range(depth)[None], (tf.shape(logits)[0], 1))

    def explain_column(column):
        return explain(tf.one_hot(column, depth, dtype=logits.dtype))

    if indices.shape[1] == 1:
        maps = explain_column(indices[:, 0])
        return tf.nest.map_structure(lambda m: m[..., None], maps)
    try:
        maps = tf.map_fn(
            explain_column,
            tf.transpose(indices),
            fn_output_signature=signature,
            parallel_iterations=1,
        )
    except Exception:
        # After a trace that fails, `tf.map_fn` leaves this set, and no strategy can be entered.
        if not tf.executing_eagerly():
            tf.compat.v1.get_variable_scope().set_caching_device(None)
        raise
    return tf.nest.map_structure(_units_last, maps)


def explain_linear(explain, logits, indices, activations):
    """Explain units with maps that are linear in the cotangent, on the cheaper side.

    Maps of more units than positions are the Jacobian of the map with respect to the cotangent,
    which takes one pass of the head per position whatever the number of units.

    Args:
        explain: linear function from a cotangent of the logits `(batch, units)` to maps
            `(batch, *positions)`.
        logits: float tensor `(batch, units)`.
        indices: units to explain, as in `inspection.gather_units`.
        activations: tensor `(batch, *positions, kernels)` that `explain` differentiates by.

    Returns:
        maps `(batch, *positions, n)`.
    """
    indices = unit_indices(logits, indices)
    units = logits.shape[-1] if indices is None else indices.shape[1]
    positions = activations.shape[1:-1].num_elements()
    if units is None or positions is None or units <= positions:
        return explain_each(explain, logits, indices)
    cotangent = tf.zeros_like(logits)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(cotangent)
        maps = explain(cotangent)
    held = activations[0].shape.num_elements() * (activations.shape[0] or _BATCH_SIZE) * 4
    # Side by side is fastest, in chunks of two at least where memory doesn't allow it.
    chunk = None if positions * held <= _BUDGET else max(2, _BUDGET // held)
    jacobian = tape.batch_jacobian(maps, cotangent, parallel_iterations=chunk)
    return gather_units(jacobian, indices)


def _units_last(maps):
    return tf.transpose(maps, (*range(1, maps.shape.rank), 0))
