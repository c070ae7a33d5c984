"""Errors that say what was expected and what came."""


def invalid(argument, expected, received, hint=""):
    """Return the `ValueError` for a bad value of an argument.

    Args:
        argument: name of the argument.
        expected: what is accepted, a phrase.
        received: what came.
        hint: what to do about it, a sentence.

    Returns:
        the exception, to be raised by the caller.
    """
    return ValueError(_message(argument, expected, received, hint))


def mistyped(argument, expected, received, hint=""):
    """Return the `TypeError` for an argument of a wrong type.

    Args:
        argument: name of the argument.
        expected: what is accepted, a phrase.
        received: the value that came.
        hint: what to do about it, a sentence.

    Returns:
        the exception, to be raised by the caller.
    """
    kind = type(received).__name__
    text = repr(received)
    received = f"{text} (of type {kind})" if len(text) <= 80 else f"an object of type {kind}"
    return TypeError(_message(argument, expected, received, hint))


def _message(argument, expected, received, hint):
    text = f"Invalid value for argument `{argument}`. Expected {expected}. Received: {received}"
    return f"{text}. {hint}" if hint else text
