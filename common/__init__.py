"""Code that all scripts share: buffers, networks, environments, and the plumbing of a run.

No loss, target, advantage, schedule, or update rule lives here: each script has its own, in full.
Import `common` before `tensorflow`: the two settings below are read while TensorFlow and Keras start.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides start-up messages; Python errors still show
os.environ["KERAS_BACKEND"] = "tensorflow"  # updates are tf.functions, whatever ~/.keras/keras.json says
