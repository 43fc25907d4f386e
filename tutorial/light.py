"""The options of the scripts, without the rest of the package.

`import syft.options` imports `syft` first, and that torch, which takes seconds. The launcher should
name a wrong option at once, so this loads the one file.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syft import options as options
else:
    _spec = util.spec_from_file_location(
        "tutorial.light.options", Path(__file__).parent.parent / "syft" / "options.py"
    )
    options = util.module_from_spec(_spec)
    _spec.loader.exec_module(options)
