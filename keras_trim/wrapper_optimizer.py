"""An optimizer around another one, which does what Keras asks of an optimizer."""

from collections.abc import Sequence
from typing import Any

import keras


class WrapperOptimizer(keras.optimizers.Optimizer):
    """Forwards settings, state and calls to its attribute `inner_optimizer`."""

    @property
    def variables(self) -> list[keras.Variable]:
        return self._variables + self.inner_optimizer.variables

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def loss_scale_factor(self) -> Any:
        inner_optimizer = self.__dict__.get("inner_optimizer")
        return None if inner_optimizer is None else inner_optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, value: Any) -> None:
        # Keras's `Optimizer` constructor sets this before there is an inner optimizer. A
        # `LossScaleOptimizer` around this one sets it to `None` to avoid scaling twice.
        if "inner_optimizer" in self.__dict__:
            self.inner_optimizer.loss_scale_factor = value

    @property
    def _model_variables_moving_average(self):
        # `SwapEMAWeights` looks for this attribute one level below a `LossScaleOptimizer`.
        return self.inner_optimizer._model_variables_moving_average

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def scale_loss(self, loss: Any) -> Any:
        return self.inner_optimizer.scale_loss(loss)

    def set_weights(self, weights: Sequence[Any]) -> None:
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def __dir__(self):
        # Keras's savers walk all attributes. Hide the inner optimizer: its state is saved here.
        return [name for name in super().__dir__() if name != "inner_optimizer"]
