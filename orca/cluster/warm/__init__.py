"""The worker of Prefect that starts flow runs from a process that has imported everything."""
