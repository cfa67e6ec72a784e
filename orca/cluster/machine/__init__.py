"""`orca up`, `orca down` and `orca status`: all parts on one machine."""
