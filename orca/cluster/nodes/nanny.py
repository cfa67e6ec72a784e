"""Has the worker processes of a node forked from one that has imported what they need: a replacement takes no time.

Preload module of Dask's nannies, with `distributed.worker.multiprocessing-method: forkserver`.
"""

from __future__ import annotations

import os
from typing import Any

from distributed.utils import get_mp_context

from orca.cluster.nodes.parts import NODE_VARIABLE, TRIM

READY = "orca.cluster.nodes.forkserver"
DRAWING = ("orca.plots", "orca.warm")
"""Worth a second of CPU in each process of a node that stands. A flow's own cluster has to start soon,
and imports them while the imager runs."""


def dask_setup(nanny: Any) -> None:
    """Called by Dask when the nanny starts, before its worker process does."""
    for environment in (nanny.pre_spawn_env, nanny.env):
        environment.pop(TRIM, None)  # as in DASK_SETTINGS; it cannot be said by an environment variable
    context: Any = get_mp_context()  # with Dask's own list, which ours takes the place of
    drawing = DRAWING if NODE_VARIABLE in os.environ else ()
    context.set_forkserver_preload([*drawing, READY])
