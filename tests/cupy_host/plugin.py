"""For pytest: `-p tests.cupy_host.plugin` runs tests on the stand-ins."""

from tests.cupy_host import device


# By pytest, and not by an import, which collecting the files of this folder is; before anything imports CuPy.
def pytest_load_initial_conftests() -> None:
    device.use()
