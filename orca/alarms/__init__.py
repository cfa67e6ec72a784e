"""What has to be told to people: conditions, and the memory of what is known already. Nothing here asks a service."""
