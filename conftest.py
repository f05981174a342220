"""What pytest must not import where it is missing."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["ketcore/torch/*"]
collect_ignore_glob += [] if find_spec("jax") else ["ketcore/jax/*"]
collect_ignore_glob += [] if find_spec("peft") else ["ketcore/torch/peft_layers.py"]
