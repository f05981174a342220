"""The layers of `ketcore.torch` in training: what a step takes, in time and memory, and that of others."""
