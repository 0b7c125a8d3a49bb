"""Searching: the search space, a trial, and how many trials fit on the cluster."""
