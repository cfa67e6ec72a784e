"""What is ready in the process from which the worker processes of a node are forked: its import makes it so.

Nothing here starts a thread, which a fork would lose. Seen in one trace: the first empty task of a worker process has
ended half a second after its nanny began to start it.
"""

from __future__ import annotations

import gc

gc.disable()  # what is imported stays: there is no garbage to look for

import anyio._backends._asyncio  # noqa: E402, F401 - anyio imports it when it is first used
import distributed  # noqa: E402, F401

import orca.cluster.gather  # noqa: E402 - tasks are unpickled with the module of their flow, which imports it
import orca.cluster.nodes.node  # noqa: E402
import orca.cluster.remote  # noqa: E402, F401
from orca.cluster.warm.quicker import share_tls_contexts  # noqa: E402

share_tls_contexts()
gc.freeze()  # else the first collection in a fork copies all that it shares with this process
gc.enable()
