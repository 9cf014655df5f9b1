"""Fixtures of the sandbox's tests. `javascript` (with a cache) and `NOW` (the clock) are the test module's own."""

import threading
from collections import Counter

import pytest

from orchestrator_nodes_std.sandbox import Limits, SandboxError


@pytest.fixture
def run(javascript, request):
    """The value of a program."""

    def call(source, context=None, **limits):
        return javascript.run(source, context or {}, limits=Limits(**limits), seed=7, now=request.module.NOW).value

    return call


@pytest.fixture
def fail(javascript, request):
    """The error of a program."""

    def call(source, context=None, **limits):
        with pytest.raises(SandboxError) as caught:
            javascript.run(source, context or {}, limits=Limits(**limits), seed=7, now=request.module.NOW)
        return caught.value

    return call


@pytest.fixture
def evaluate(javascript, request):
    """What expressions give."""

    def call(*expressions, **scope):
        return javascript.evaluate(expressions, scope, seed=7, now=request.module.NOW)

    return call


def compute(stop):
    while not stop.is_set():
        Counter(str(number) for number in range(500))


@pytest.fixture(scope="module")
def beside():
    """Two threads that compute, as a busy host has them."""
    stop = threading.Event()
    threads = [threading.Thread(target=compute, args=(stop,), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()
