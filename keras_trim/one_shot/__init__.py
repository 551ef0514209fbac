"""One-shot pruning of trained models: on examples, without labels and without training."""

from keras_trim.one_shot.budget import budget as budget
from keras_trim.one_shot.prune import prune as prune
from keras_trim.one_shot.sensitivity import Sensitivity as Sensitivity
from keras_trim.one_shot.sensitivity import SensitivityRow as SensitivityRow
from keras_trim.one_shot.sensitivity import sensitivity as sensitivity
