"""What the owner of a worker grants coordinators: how much, what, and what is written down of
it.
"""
