"""Running statistics: of observations, as a layer of the model, and of the discounted return."""

from common.networks import as_array
from common.quiet import without_chatter
import numpy as np

with without_chatter():
    import keras
    import tensorflow as tf


@keras.saving.register_keras_serializable("common")
class RunningNormalization(keras.layers.Layer):
    """Subtracts a running mean and divides by a running deviation: (batch, *shape) -> the same, float32.

    The statistics are weights of the layer, so that they are saved and loaded with the model, and they stand
    still unless `update` is called. Before the first update the layer changes nothing but the clipping.

    Args:
        clip: largest size of an output.
    """

    EPSILON = 1e-8

    def __init__(self, clip: float = 10.0, **options):
        super().__init__(**options)
        self.clip = clip

    def build(self, input_shape):
        shape = input_shape[1:]
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.variance = self.add_weight(shape=shape, initializer="ones", trainable=False, name="variance")
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, inputs):
        """Normalise with the statistics as they are."""
        centered = keras.ops.cast(inputs, "float32") - self.mean
        return keras.ops.clip(centered / keras.ops.sqrt(self.variance + self.EPSILON), -self.clip, self.clip)

    def update(self, inputs) -> None:
        """Take inputs (batch, *shape) into the statistics (Chan et al. 1979)."""
        inputs = keras.ops.cast(inputs, "float32")
        new = float(inputs.shape[0])
        total = self.count + new
        delta = keras.ops.mean(inputs, axis=0) - self.mean
        squares = self.variance * self.count + keras.ops.var(inputs, axis=0) * new
        self.variance.assign((squares + keras.ops.square(delta) * self.count * new / total) / total)
        self.mean.assign(self.mean + delta * new / total)
        self.count.assign(total)

    def numpy_step(self):
        """The layer as a function of NumPy arrays, with the statistics as they are."""
        mean = as_array(self.mean)
        scale = 1.0 / np.sqrt(as_array(self.variance) + self.EPSILON)
        low, high = np.float32(-self.clip), np.float32(self.clip)
        return lambda x: np.minimum(np.maximum((x - mean) * scale, low), high)

    def get_config(self):
        return super().get_config() | {"clip": self.clip}


class RewardScaling(tf.Module):
    """Divides rewards by the running deviation of the discounted return (Engstrom et al. 2020, section 3).

    The returns are those of the past, R ← r + γ R, begun anew with each episode; they go on from one rollout
    to the next. Rewards keep their sign: no mean is subtracted.

    Args:
        num_envs: environments in a rollout.
        gamma: discount γ.
        clip: largest size of a scaled reward.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float = 10.0):
        super().__init__()
        self.gamma, self.clip = gamma, clip
        self.returns = tf.Variable(tf.zeros(num_envs))
        self.moments = RunningNormalization()
        self.moments.build((None,))

    def __call__(self, rewards: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
        """Take rewards (num_steps, num_envs) into the deviation, and return them scaled by it.

        `ends` (num_steps, num_envs) are true where an episode ended.
        """
        going_on = 1.0 - tf.cast(ends, tf.float32)

        def add(carry, now):
            reward, goes_on = now
            discounted_return = reward + self.gamma * carry[1]
            return discounted_return, goes_on * discounted_return

        returns, carried = tf.scan(add, (rewards, going_on), (self.returns, self.returns))
        self.returns.assign(carried[-1])
        self.moments.update(tf.reshape(returns, (-1,)))
        return tf.clip_by_value(
            rewards / tf.sqrt(self.moments.variance + self.moments.EPSILON), -self.clip, self.clip
        )
