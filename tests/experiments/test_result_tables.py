"""The results page: means, standard errors, drops and verdicts, from lines of JSON made here."""

import json

import pytest

from experiments import tables


def _row(target, seed, test, library="keras-trim"):
    return {
        "kind": "row",
        "library": library,
        "backend": "tensorflow",
        "target": target,
        "seed": seed,
        "test": test,
        "zeros": 0 if target is None else 45,
        "weights": 100,
        "ktrim_bytes": 2000 if target is None else 500,
        "data": "Some clips",
        "steps": 400,
        "batch_size": 100,
        "rate": 0.001,
        "schedule": {"end_step": 240},
        "dense_layer": "conv_1",
        "versions": {"keras": "3.15.1"},
        "machine": "a machine",
    }


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    lines = [_row(None, seed, test) for seed, test in enumerate([91.0, 92.0, 93.0])]
    lines += [_row(0.5, seed, test) for seed, test in enumerate([90.5, 92.0, 92.5])]
    lines += [_row("2:4", 0, 88.0), _row(0.5, 0, 89.0, "TFMOT")]
    lines.append(_row(0.5, 0, 90.25) | {"backend": "jax"})
    milliseconds = {"keras-trim": 1.5, "litert": 3.0, "onnxruntime": 4.0}
    lines.append({"kind": "time", "target": 0.5, "milliseconds": milliseconds, "litert_bytes": 700})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "keywords.jsonl").write_text(text)
    return tables.Results("keywords", tmp_path)


def test_scores_and_drops(results):
    assert results.scores(None) == pytest.approx((92.0, 1 / 3**0.5, 3))
    # Drops of 0.5, 0 and 0.5 points: deviation 0.2887, over the root of 3.
    assert results.drop(0.5) == pytest.approx((1 / 3, 1 / 6, 3))
    assert results.drop("2:4") == (3.0, None, 1)
    assert results.drop(0.9) is None


def test_a_goal_is_met_within_one_standard_error(results):
    assert results.goal.drop(0.5) == pytest.approx(0.39)
    assert tables.is_met(0.39, (0.5, 0.2, 3))
    assert not tables.is_met(0.39, (0.6, 0.2, 3))
    assert not tables.is_met(0.39, (0.4, None, 1))


def test_section_says_what_was_and_was_not_run(results):
    text = "\n".join(tables.section(results))
    assert "| dense | 0.0 % | 3 | 92.00 ± 0.58 |" in text
    assert "| 50 % | 45.0 % | 3 | 91.67 ± 0.60 | 0.33 ± 0.17 | 0.39 | met | 94.84 | 89.00 |" in text
    assert "| 0 kB | 1 kB | 1.50 ms | 3.00 ms | 4.00 ms |" in text
    assert "| 2:4 | 45.0 % | 1 | 88.00 | 3.00 | 0.90 | missed | 94.33 |" in text
    assert "| 90 % |  | 0 | not run yet |" in text
    assert "Fewer than three seeds have been run for: 2:4." in text
    assert "Not run yet: 75 %, 80 %, 87.5 %, 90 %." in text
    assert "50 %, seed 0, on JAX: 90.25." in text
    assert "`conv_1` stays dense" in text


def test_a_model_that_was_not_run(tmp_path):
    lines = tables.section(tables.Results("mnist_cnn", tmp_path))
    assert lines == ["## MNIST CNN", "", "Not run yet.", ""]


def test_small_table_has_the_models_that_were_run_at_high_sparsities(results, tmp_path):
    assert tables.small_table([results]) == ["No model has been run at 80 or 90 % yet."]
    with (tmp_path / "keywords.jsonl").open("a") as file:
        file.write(json.dumps(_row(0.8, 0, 89.5)) + "\n")
    lines = tables.small_table([tables.Results("keywords", tmp_path), results])
    assert lines[2:] == ["| DS-CNN-L | accuracy | 92.00 ± 0.58 | 91.67 ± 0.60 | 89.50 |  |"]
