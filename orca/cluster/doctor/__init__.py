"""Everything that ORCA needs, looked at: what is wrong, and how to mend it. See docs/doctor.md."""
