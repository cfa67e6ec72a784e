"""Has the worker processes of a node forked from one that has imported what they need: a replacement takes no time.

Preload module of Dask's nannies, with `distributed.worker.multiprocessing-method: forkserver`.
"""

from __future__ import annotations

from typing import Any

from distributed.utils import get_mp_context

from orca.cluster.nodes.parts import TRIM

READY = "orca.cluster.nodes.forkserver"


def dask_setup(nanny: Any) -> None:
    """Called by Dask when the nanny starts, before its worker process does."""
    for environment in (nanny.pre_spawn_env, nanny.env):
        environment.pop(TRIM, None)  # as in DASK_SETTINGS; it cannot be said by an environment variable
    context: Any = get_mp_context()  # with Dask's own list, which ours takes the place of
    context.set_forkserver_preload([READY])
