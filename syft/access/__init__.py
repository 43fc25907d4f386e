"""What the owner of a worker grants coordinators, how much of it, and what is written down."""
