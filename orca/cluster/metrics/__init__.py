"""What Prometheus is told: see `orca.cluster.metrics.sources`."""
