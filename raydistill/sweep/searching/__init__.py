"""Searching: the search space, a trial and its inputs, and how many trials fit on the cluster."""
