"""Stopping: trials early, by the scheduler and its ranking by several objectives; and the whole sweep on request."""
