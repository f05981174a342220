"""What pytest must not import where it is missing."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["ketcore/torch/*", "tests/torch_world.py"]
collect_ignore_glob += [] if find_spec("jax") else ["ketcore/jax/*", "tests/jax_devices.py"]
collect_ignore_glob += [] if find_spec("peft") else ["ketcore/torch/peft_layers.py"]
