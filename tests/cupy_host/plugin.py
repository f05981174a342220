"""For pytest: `-p tests.cupy_host.plugin` runs tests on the stand-ins."""

from tests.cupy_host import device

# Before anything that imports CuPy is collected.
device.use()
