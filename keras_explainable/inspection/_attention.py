"""Find the attention scores in a model, and the tokens that they are of."""

from keras_explainable.inspection import _tokens


def scores(calls, noted, places):
    """List the scores by which all tokens of a sequence attend to all.

    Args:
        calls: list of `Call`, first ones first.
        noted: dict whose keys are the ids of scores that layers of attention return.
        places: `Places` of the calls.

    Returns:
        list of symbolic tensors.
    """
    found = []
    for call in calls:
        by_layer = [tensor for tensor in call.outputs if id(tensor) in noted]
        by_softmax = call.outputs if _tokens.is_attention_softmax(call, places) else []
        for tensor in by_layer or by_softmax:
            shape = tuple(tensor.shape)
            if len(shape) > 2 and shape[-1] == shape[-2] and shape[-1] != 1:
                found.append(tensor)
    return found


def arranged(found, places, shown, reshape):
    """Choose how what is told of each token is arranged as the input.

    Args:
        found: list of scores, symbolic tensors.
        places: `Places` of the calls that they come from.
        shown: symbolic input that they show.
        reshape: as in `inspection.expose`.

    Returns:
        `_tokens.Arrangement`.
    """
    lengths = list(dict.fromkeys(tensor.shape[-1] for tensor in found))
    if len(lengths) > 1:
        raise ValueError(
            f"The attention of different layers is of different numbers of tokens: {lengths}. "
            "Methods that follow attention from layer to layer need the same tokens in all."
        )
    (length,) = lengths
    if length is None and reshape is None:
        raise ValueError(
            "The number of tokens that attend to each other isn't known before the model is run. "
            "Build the model for inputs of a fixed size, or pass `reshape=(height, width)` where "
            "the patches are all of the tokens."
        )
    rank = max(len(shown.shape), 3)
    place = _series(length, shown) if len(shown.shape) < 4 else places.with_length(length)
    if reshape is False:
        place, reshape = _tokens.Place((length,), 0, length), None
        rank = 3
    if place is None and reshape is None:
        raise ValueError(
            f"It isn't known where the {length} tokens that attend to each other are in the input. "
            "Attention in windows isn't followed; of other tokens, pass `reshape=(height, width)` "
            "where the patches are the last of them, or a function from tokens to `(batch, height, "
            "width, channels)`."
        )
    return _tokens.arrangement((None, length, 1), place, reshape, rank - 2)


def _series(length, shown):
    """Return the place of the steps of a series among tokens."""
    steps = shown.shape[1] if len(shown.shape) > 1 else None
    if length is None or steps is None or not 0 <= length - steps <= 16:
        return None
    return _tokens.Place((steps,), length - steps, length)
