"""Alarms of the telescope: what is asked for them, who is told, and one look at everything."""
