"""What passes before the first map, and the first prediction, of a fresh process."""

import time

from speed import cases

MODEL = cases.Model(batch=1)
KINDS = ("gradcam", "gradients", "predict")


def measure(kind, dtype, jit_compile):
    """Time the first calls on a model that is built.

    Args:
        kind: name of a method, or "predict" for `model.predict`.
        dtype: policy of the model.
        jit_compile: whether to compile with XLA.

    Returns:
        dict of seconds: of "exposing" the model, "tracing" the step, the "first" call less these,
        "total" of the three, and the "second" call.
    """
    import keras_explainable as ke

    model = cases.build(MODEL, dtype)
    images = cases.images_for(MODEL)
    start = time.perf_counter()
    if kind == "predict":
        model.compile(jit_compile=jit_compile)
        runner = model

        def call():
            model.predict(images, verbose=0)
    else:
        runner = ke.Explainer(kind, model, jit_compile=jit_compile)

        def call():
            runner.explain(images, 7, verbose=0)

    exposing = time.perf_counter() - start
    tracing = _time_tracing(runner)
    call()
    total = time.perf_counter() - start
    start = time.perf_counter()
    call()
    second = time.perf_counter() - start
    first = total - exposing - tracing[0]
    return {
        "exposing": exposing,
        "tracing": tracing[0],
        "first": first,
        "total": total,
        "second": second,
    }


def _time_tracing(runner):
    """Have the step of a Keras model traced by itself; return a list that gets the seconds."""
    runner.make_predict_function()
    step, tracing = runner.predict_function, []

    def traced_before(*arguments):
        start = time.perf_counter()
        step.get_concrete_function(*arguments)
        tracing.append(time.perf_counter() - start)
        return step(*arguments)

    runner.predict_function = traced_before
    return tracing
