"""Saved models need Keras alone, or NumPy alone for a table: no code of this repository."""

import importlib
import subprocess
import sys

import numpy as np

from tests.conftest import SCRIPTS

BOX = "tests.environments:BoxActions-v0"
LOAD = """
import sys

sys.modules["common"] = None  # importing it raises
for script in sys.argv[3:]:
    sys.modules[script] = None
try:
    import common
    sys.exit("common can be imported")
except ImportError:
    pass

import keras
import numpy as np

inputs, outputs = np.load(sys.argv[1]), {}
for path, observations in inputs.items():
    if path.endswith(".npz"):
        outputs[path] = np.load(path)["model"]
    else:
        outputs[path] = keras.models.load_model(path)(observations).numpy()
np.savez(sys.argv[2], **outputs)
"""


def variants(script, config_class):
    """Return the options of the runs of a script."""
    if hasattr(config_class, "normalize_observations"):
        short = {"total_timesteps": 64, "num_envs": 2, "hidden_sizes": (8,), "eager": True}
        short |= {"batch_size": 20} if script == "reinforce" else {"num_steps": 32}
        if hasattr(config_class, "num_epochs"):
            short |= {"num_epochs": 1, "num_minibatches": 1}
        image = {"env_id": "tests.environments:Image-v0", "network": "cnn", "frame_stack": 2}
        return [short | image] + [
            short | {"env_id": env_id, "normalize_observations": normalize}
            for env_id in ("CartPole-v1", BOX)
            for normalize in (False, True)
        ]
    if script == "q_learning":
        return [{"total_timesteps": 200}]
    short = {"total_timesteps": 20, "learning_starts": 100, "hidden_sizes": (8, 8), "buffer_size": 100}
    if not hasattr(config_class, "network"):
        return [short]
    image = {"env_id": "tests.environments:Image-v0", "network": "cnn", "frame_stack": 2}
    return [short, short | image, short | {"network": "lstm", "frame_stack": 2}]


def test_saved_models_load_without_this_repository(tmp_path):
    """A trained model and the saved one, loaded in another process, agree on raw observations."""
    inputs, trained = {}, {}
    for script in SCRIPTS:
        module = importlib.import_module(f"{script}.{script}")
        for options in variants(script, module.Config):
            result = module.train(module.Config(runs_dir=str(tmp_path), eval_episodes=0, **options))
            (path,) = result.folder.glob("model.*")
            if script == "q_learning":
                observations, outputs = np.zeros(1), result.model
            else:
                shape = result.model.input_shape[1:]
                observations = np.random.default_rng(0).normal(1.0, 2.0, size=(7, *shape)).astype(np.float32)
                outputs = result.model(observations).numpy()
            if options.get("normalize_observations"):
                assert (result.model.layers[0].moving_mean.numpy() != 0).any()
            inputs[str(path)], trained[str(path)] = observations, (script, options, outputs)
    np.savez(tmp_path / "inputs.npz", **inputs)
    arguments = [tmp_path / "inputs.npz", tmp_path / "outputs.npz", *SCRIPTS]
    process = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    loaded = np.load(tmp_path / "outputs.npz")
    assert {script for script, *_ in trained.values()} == set(SCRIPTS)
    for path, (script, options, outputs) in trained.items():
        np.testing.assert_allclose(loaded[path], outputs, rtol=1e-5, atol=1e-6, err_msg=f"{script} {options}")
