"""Dask on the nodes: what is started there, how a worker process looks after itself, what operators tell it."""
