import pytest

BELOW_IMPORTER = {"ir", "kernels", "lowering", "program", "runtime"}


def pytest_collection_modifyitems(items):
    """Below the importer, a graph is the same whatever the backend of its model was.

    frontend/, test_engine_layers.py and test_random_models.py run on each backend.
    """
    for item in items:
        if item.path.parent.name in BELOW_IMPORTER:
            item.add_marker(pytest.mark.usefixtures("one_backend"))
