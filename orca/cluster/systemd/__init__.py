"""The services of a cluster's hosts."""
