"""Surviving: the state of Tune, retries, and one driver a sweep."""
