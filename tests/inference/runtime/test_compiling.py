"""Progress while kernels compile."""

import threading

from numba.core import event

from keras_trim.inference.runtime.compiling import watched


def test_what_another_thread_compiles_does_not_count():
    """Its compilation may end in the body, and begin before; or begin there, and end later."""
    ended, left = threading.Event(), threading.Event()
    errors = []

    def compile_elsewhere():
        try:
            event.end_event("numba:compile")
            event.start_event("numba:compile")
            ended.set()
            left.wait(10)
            event.end_event("numba:compile")
        except Exception as error:
            errors.append(error)
            ended.set()

    thread = threading.Thread(target=compile_elsewhere)
    with watched(verbose=0):
        thread.start()
        assert ended.wait(10)
        event.start_event("numba:compile")
        event.end_event("numba:compile")
    left.set()
    thread.join()
    assert not errors
