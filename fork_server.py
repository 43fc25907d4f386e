"""What the launcher's fork server imports before it forks the workers.

The collector of garbage need not look at what was imported: not while that is imported, not in the workers (where it
would copy the memory that they share), and not when a process ends, which takes a second otherwise.
"""

import gc

gc.disable()
import run_websocket_server  # noqa: E402, F401

gc.freeze()
gc.enable()
