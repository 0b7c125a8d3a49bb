"""Stopping trials early: the scheduler, and the ranking by several objectives."""
