"""Prefect on Dask: where tasks run, how a flow waits for them, and the server that shows it."""
