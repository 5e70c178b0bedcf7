"""What the scripts share, and nothing of what they teach.

No loss, target, advantage, schedule or update rule lives here: those stand in each script, in full.
Import `common` before `tensorflow`: the two settings below are read while TensorFlow and Keras start.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter; Python errors still show
os.environ["KERAS_BACKEND"] = "tensorflow"  # the updates are tf.functions, whatever ~/.keras/keras.json says
