"""Imports once, for all workers that are forked, what torch imports with its first optimizer."""

from syft.workers.threads import warm_up

warm_up()
