"""Rules that share the relevance of the outputs of a linear layer out among its inputs.

With `c` the contributions of the inputs to an output, products of an input and a weight, all but
two rules share the relevance of the output out in proportion to some of them.
"""

import tensorflow as tf


def share(stage, parts, relevance, bias=0.0):
    """Share relevance out in proportion to what parts of the inputs contribute.

    Args:
        stage: `_linear.Stage`.
        parts: list of pairs of inputs and kernel, whose contributions are summed.
        relevance: float32 tensor of the shape of the outputs.
        bias: what takes part and gets nothing back.

    Returns:
        float32 tensor of the shape of the inputs; a sum of zero gives nothing back.
    """
    inputs = [part for part, _ in parts]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        total = tf.add_n([stage.apply(*part) for part in parts])
    gradients = tape.gradient(total, inputs, tf.math.divide_no_nan(relevance, total + bias))
    return tf.add_n([x * g for x, g in zip(inputs, gradients, strict=True)])


def divide(relevance, total, epsilon):
    """Divide relevance by sums that are moved away from zero."""
    return relevance / (total + tf.where(total >= 0, epsilon, -epsilon))


def _contributions(stage, x, is_positive, sign):
    """Return the parts of inputs and kernel whose products have a sign, 1 or -1."""
    kernel = sign * stage.kernel
    positive = (x if is_positive else tf.nn.relu(x), sign * tf.nn.relu(kernel))
    return [positive] if is_positive else [positive, (-tf.nn.relu(-x), -sign * tf.nn.relu(-kernel))]


def gamma_rule(stage, x, relevance, *, gamma, is_positive, **_):
    r"""Share by :math:`c + \gamma c^+`; so does the bias, and what it gets is lost."""
    parts = [(part, gamma * kernel) for part, kernel in _contributions(stage, x, is_positive, 1)]
    parts.append((x, stage.kernel))
    if is_positive:
        parts = [(x, stage.kernel + gamma * tf.nn.relu(stage.kernel))]
    return share(stage, parts, relevance, stage.bias + gamma * tf.nn.relu(stage.bias))


def z_plus_rule(stage, x, relevance, *, is_positive, **_):
    r"""Share by :math:`c^+`."""
    return share(stage, _contributions(stage, x, is_positive, 1), relevance)


def alpha_beta_rule(stage, x, relevance, *, alpha, is_positive, **_):
    r"""Share :math:`\alpha` times by :math:`c^+`, less :math:`\alpha - 1` times by :math:`c^-`."""
    positive = share(stage, _contributions(stage, x, is_positive, 1), alpha * relevance)
    if alpha == 1:
        return positive
    negative = share(stage, _contributions(stage, x, is_positive, -1), (alpha - 1) * relevance)
    return positive - negative


def z_box_rule(stage, x, relevance, *, low, high, inside, **_):
    r"""Share by :math:`c - l w^+ - h w^-`, for inputs from l to h."""
    lowest, highest = low * inside(x), high * inside(x)
    parts = [
        (x, stage.kernel),
        (-lowest, tf.nn.relu(stage.kernel)),
        (-highest, -tf.nn.relu(-stage.kernel)),
    ]
    return share(stage, parts, relevance)


def flat_rule(stage, x, relevance, *, inside, **_):
    """Share evenly."""
    return share(stage, [(inside(x), tf.ones_like(stage.kernel))], relevance)


def w_square_rule(stage, x, relevance, *, inside, **_):
    r"""Share by :math:`w^2`."""
    return share(stage, [(inside(x), tf.square(stage.kernel))], relevance)


SHARES = {
    "gamma": gamma_rule,
    "z_plus": z_plus_rule,
    "alpha_beta": alpha_beta_rule,
    "z_box": z_box_rule,
    "flat": flat_rule,
    "w_square": w_square_rule,
}
RULES = ("epsilon", *SHARES)


# What is known of the inputs of a stage that isn't the first of its layer.
_WITHIN = {"is_positive": False, "inside": tf.ones_like}


def through_linear(rule, read_stages, **options):
    """Return the way back through a linear layer by one of `SHARES`.

    Args:
        rule: function `(stage, x, relevance, **options) -> relevance`.
        read_stages: function without arguments that returns the stages of the layer.
        options: those of the rule.

    Returns:
        rule as `redirect` takes it.
    """

    def backward(pull, gradient, inputs, output):
        del pull, output
        stages, values = read_stages(), [tf.cast(inputs[0], tf.float32)]
        for stage in stages[:-1]:
            values.append(stage.apply(values[-1], stage.kernel))
        relevance = tf.cast(gradient, tf.float32)
        for number in reversed(range(len(stages))):
            known = options if number == 0 else options | _WITHIN
            relevance = rule(stages[number], values[number], relevance, **known)
        return [tf.cast(relevance, inputs[0].dtype)]

    return backward


def through_affine(epsilon, read_folded=None):
    r"""Return the way back that shares by what each value in the inputs adds to an output.

    Args:
        epsilon: see `divide`.
        read_folded: function without arguments that returns what the output is multiplied by, and
            what is added to it, by a layer that is folded into this one. Defaults to none.

    Returns:
        rule as `redirect` takes it.
    """

    def backward(pull, gradient, inputs, output):
        total = tf.cast(output, tf.float32)
        factor, shift = read_folded() if read_folded else (1.0, 0.0)
        parts = factor * divide(tf.cast(gradient, tf.float32), total * factor + shift, epsilon)
        # Half precision has no numbers for what is divided by next to nothing.
        largest = tf.reduce_max(tf.abs(parts)) if output.dtype != tf.float32 else tf.ones(())
        pulled = pull(tf.cast(tf.math.divide_no_nan(parts, largest), output.dtype))
        shares = [
            tf.cast(x, tf.float32) * tf.cast(g, tf.float32) * largest
            for x, g in zip(inputs, pulled, strict=True)
        ]
        return [tf.cast(s, x.dtype) for s, x in zip(shares, inputs, strict=True)]

    return backward


def pass_on(pull, gradient, inputs, output):
    """Give an input the relevance of the output, value by value."""
    del pull, inputs, output
    return [gradient]


def pass_to(number):
    """Return the way back that gives the relevance of a product to one of its factors."""

    def backward(pull, gradient, inputs, output):
        del pull, output
        return [gradient if i == number else tf.zeros_like(x) for i, x in enumerate(inputs)]

    return backward
