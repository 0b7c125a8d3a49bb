"""Early stopping of trials: the scheduler, and the ranking by several objectives."""
