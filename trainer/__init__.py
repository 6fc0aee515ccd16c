"""Decides which channels die, and trains the net so that it does not miss them.

Nothing is re-exported here: reading a recipe must not load torch. `edgeslim.prune` is the public verb.
"""
