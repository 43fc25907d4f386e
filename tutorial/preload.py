"""What the launcher's fork server imports before it forks the workers.

The garbage collector is off during the imports, and what they create is frozen, so that collections
in the workers do not copy shared memory. On Linux the fork server is killed when the launcher ends;
elsewhere it finishes its imports first.
"""

import atexit
import gc
import os
import signal

from tutorial import lifetime

if hasattr(signal, "SIGKILL"):
    lifetime.end_with_parent(os.getppid(), signal.SIGKILL)
gc.disable()
import run_websocket_server  # noqa: E402, F401
from syft.workers.threads import warm_up  # noqa: E402

warm_up()  # once here, rather than once in each worker
gc.freeze()
gc.enable()
atexit.register(os._exit, 0)  # nothing is left to do then, and taking the imports apart takes time
