"""With this folder and the checkout on PYTHONPATH, `import cupy` gives CuPy on the stand-ins.

Also in processes that others start, which no plugin of pytest reaches.
"""

import sys
from pathlib import Path

from tests.cupy_host import device

# The import statement returns what is in its place when this is done.
del sys.modules["cupy"]
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
device.use()
