"""Errors that say what was expected and what came."""

import contextlib
import difflib
import math
import numbers


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


def positive_integer(argument, value, least=1):
    """Return a value as an integer, or raise that it is none from `least` on."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        expected = "a positive integer" if least == 1 else f"an integer from {least} on"
        raise invalid(argument, expected, repr(value))
    return int(value)


def number(argument, value, least=-math.inf):
    """Return a value as a float, or raise that it is no finite number from `least` on."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < least:
        expected = "a number" if least == -math.inf else f"a number from {least:g} on"
        raise invalid(argument, expected, repr(value))
    return float(value)


def one_of(argument, value, names):
    """Raise that a value is none of some names."""
    if not isinstance(value, str) or value not in names:
        raise invalid(argument, f"one of {', '.join(names)}", repr(value))


def nearest(name, names):
    """Return which of some names is close to one, whatever the case of its letters, or `None`."""
    lowered = {known.lower(): known for known in names}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1)
    return lowered[near[0]] if near else None


def meant(name, names):
    """Return the hint which name was meant, empty where none is close."""
    near = nearest(name, names)
    return f"Did you mean {near!r}?" if near else ""


@contextlib.contextmanager
def renamed(**names):
    """Raise errors with the names that arguments have in the caller.

    Args:
        **names: new names by the names of the arguments in what is called.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        message = str(error)
        for name, new in names.items():
            message = message.replace(f"`{name}`", f"`{new}`")
        if message == str(error):
            raise
        raise type(error)(message) from error.__cause__


def _message(argument, expected, received, hint):
    text = f"Invalid value for argument `{argument}`. Expected {expected}. Received: {received}"
    return f"{text}. {hint}" if hint else text
