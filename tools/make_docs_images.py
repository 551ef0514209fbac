"""Draws the pictures of the docs with the library's own plots, from a CNN trained on digits.

    KERAS_BACKEND=torch python tools/make_docs_images.py

`docs/images/demo.png` is what `make demo` draws, `crossover.png` what `benchmarks.inference` does.
"""

import pathlib

import keras

import keras_trim
from keras_trim import demo, plots

IMAGES = pathlib.Path(__file__).resolve().parents[1] / "docs" / "images"
EPOCHS, BATCH_SIZE = 6, 32  # 45 steps per epoch
SIDE = 32  # of the corner of a kernel that is drawn


def main():
    keras.utils.set_random_seed(0)
    data = demo.load_digits()
    model = demo.build_model(data)
    demo.compile_model(model)
    model.fit(data.x_train, data.y_train, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=2)
    draw_schedules(model, data)
    draw_patterns(model)
    draw_plots(model, data)


class DenseLayers(keras_trim.PruningPolicy):
    """The first convolution has a single input channel, too few for blocks and groups of four."""

    def allow_pruning(self, layer):
        return isinstance(layer, keras.layers.Dense)

    def ensure_model_supports_pruning(self, model):
        pass


def copy_of(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def save(figure, name):
    figure.savefig(IMAGES / f"{name}.png")


def draw_schedules(model, data):
    schedules = {
        "PolynomialDecay(0, 0.8, 50, 200, frequency=15)": keras_trim.PolynomialDecay(
            0.0, 0.8, begin_step=50, end_step=200, frequency=15
        ),
        "ConstantSparsity(0.8, 50)": keras_trim.ConstantSparsity(0.8, begin_step=50),
    }
    figure, axes = plots.make_figure(len(schedules))
    for ax, (title, schedule) in zip(axes, schedules.items(), strict=True):
        pruned = copy_of(model)
        keras_trim.prune_low_magnitude(pruned, schedule)
        demo.compile_model(pruned)
        recorder = demo.SparsityRecorder()
        pruned.fit(
            data.x_train,
            data.y_train,
            batch_size=BATCH_SIZE,
            epochs=EPOCHS,
            callbacks=[keras_trim.UpdatePruningStep(), recorder],
            verbose=2,
        )
        steps = range(1, len(recorder.sparsities) + 1)
        asked = [schedule(step)[1] if step >= schedule.begin_step else 0.0 for step in steps]
        plots.plot_schedule(ax, steps, asked, recorder.sparsities)
        ax.set_title(title, loc="left", fontsize=11)
    save(figure, "schedules")


def draw_patterns(model):
    patterns = {
        "single": {},
        "block": {"block_size": (4, 4)},
        "two_of_four": {"sparsity_m_by_n": (2, 4)},
    }
    for name, pattern in patterns.items():
        pruned = copy_of(model)
        keras_trim.prune(pruned, 0.5, pruning_policy=DenseLayers(), **pattern)
        kernel = keras.ops.convert_to_numpy(pruned.layers[-2].kernel)[:SIDE, :SIDE]
        save(plots.mask_figure(kernel), f"pattern_{name}")


def draw_plots(model, data):
    table = keras_trim.sensitivity(model, data.x_train[:256])
    save(plots.sensitivity_figure(table), "sensitivity")
    keras_trim.prune(model, 0.8, calibration_data=data.x_train[:512])
    kernel = keras.ops.convert_to_numpy(model.layers[-2].kernel)
    save(plots.histogram_figure(kernel, "dense/kernel, 80 % pruned on examples"), "histogram")
    save(plots.sparsity_figure(keras_trim.sparsity_report(model)), "sparsity")


if __name__ == "__main__":
    main()
