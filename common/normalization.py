"""Running statistics: of observations, inside the model, and of the discounted return."""

from common.errors import UserError
from common.quiet import importing

with importing():
    import keras
    import tensorflow as tf


class RunningMoments(tf.Module):
    """Mean and variance of everything seen so far (Chan et al. 1979).

    Args:
        shape: shape of one sample.
    """

    def __init__(self, shape: tuple[int, ...] = ()):
        super().__init__()
        self.mean = tf.Variable(tf.zeros(shape), trainable=False)
        self.variance = tf.Variable(tf.ones(shape), trainable=False)
        self.count = tf.Variable(0, dtype=tf.int64, trainable=False)  # a float32 stops counting at 2²⁴

    def update(self, samples: tf.Tensor) -> None:
        """Add samples (batch, *shape)."""
        mean, variance = tf.nn.moments(tf.cast(samples, tf.float32), axes=[0])
        count = tf.shape(samples, out_type=tf.int64)[0]
        total = self.count + count
        weight = tf.cast(count / total, tf.float32)
        delta = mean - self.mean
        within = (1.0 - weight) * self.variance + weight * variance
        self.variance.assign(within + weight * (1.0 - weight) * tf.square(delta))
        self.mean.assign_add(weight * delta)
        self.count.assign(total)


class ObservationNormalizer(tf.Module):
    """Normalizes observations by their running mean and variance, as the first layer of networks.

    The layer is Keras' own batch normalization, frozen: it is saved with the model, loads without this
    file, and changes only in `update`; before the first one, observations pass unchanged. Results are not
    clipped: until the statistics know it, a number that has hardly varied becomes large when it does.

    Args:
        shape: shape of one observation, (n,) or (frame_stack, n). Frames share the statistics of n numbers.

    Raises:
        UserError: for images.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        if len(shape) > 2:
            raise UserError("--normalize-observations is for vectors: --network cnn scales pixels itself")
        self.layer = keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=1e-8, trainable=False, name="observation_normalizer"
        )
        self.layer.build((None, *shape))
        self.moments = RunningMoments(shape[-1:])

    def update(self, observations: tf.Tensor) -> None:
        """Add observations (batch, *shape) to the statistics."""
        self.moments.update(tf.reshape(observations, (-1, observations.shape[-1])))
        self.layer.moving_mean.assign(self.moments.mean)
        self.layer.moving_variance.assign(self.moments.variance)


class _NotSaved:
    """Holds a variable that checkpoints leave out."""

    def __init__(self, value: tf.Variable):
        self.value = value


class RewardScaler(tf.Module):
    """Divides rewards by the running standard deviation of the discounted return.

    Engstrom et al. 2020, "Implementation Matters in Deep RL", section 3. The return is that of past rewards,
    R ← r + γ R, and starts at 0 in each episode. Rewards keep their sign: no mean is subtracted.

    Args:
        num_envs: environments in a rollout.
        gamma: discount factor γ.
        clip: largest magnitude of a scaled reward.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float = 10.0):
        super().__init__()
        self.gamma, self.clip = gamma, clip
        self.moments = RunningMoments()
        self._running = _NotSaved(tf.Variable(tf.zeros(num_envs), trainable=False))

    @property
    def returns(self) -> tf.Variable:
        """Returns (num_envs,) of the current episodes so far. A resumed run starts with new episodes."""
        return self._running.value

    def __call__(self, rewards: tf.Tensor, dones: tf.Tensor) -> tf.Tensor:
        """Scale rewards (num_steps, num_envs) after adding their returns to the statistics.

        `dones` (num_steps, num_envs) is true where an episode ended.
        """
        not_done = 1.0 - tf.cast(dones, tf.float32)

        def discounted_return(carry, step):
            reward, not_done = step
            current = reward + self.gamma * carry[1]
            return current, not_done * current

        start = tf.convert_to_tensor(self.returns)
        returns, carried = tf.scan(discounted_return, (rewards, not_done), (start, start))
        self.returns.assign(carried[-1])
        self.moments.update(tf.reshape(returns, (-1,)))
        return tf.clip_by_value(rewards / tf.sqrt(self.moments.variance + 1e-8), -self.clip, self.clip)
