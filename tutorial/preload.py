"""What the launcher's fork server imports before it forks the workers.

The garbage collector need not look at what is imported: neither meanwhile, nor in the workers,
where it would copy the memory that they share.

Killed with the launcher, the fork server does not go on importing for nobody. (Only on Linux; else
it ends after that.)
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

gc.freeze()
gc.enable()
atexit.register(os._exit, 0)  # nothing is left to do then, and taking the imports apart takes time
