"""Measurement Sets: check, read in blocks, make a new one like another, unpack, join, simulate."""
