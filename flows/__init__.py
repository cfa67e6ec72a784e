"""The DAGs of ORCA, one module a stage: what runs after what, and nothing else."""
