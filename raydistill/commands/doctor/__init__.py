"""`raydistill doctor`: checks of what this machine has for raydistill, and advice where something is missing.

Checks are functions `look_at_NAME` in `versions`, `machine`, `method`, `places` and `ray_cluster`. `examine` runs them
in processes of their own, so that one that crashes or hangs is a line like any other; only those import torch and Ray.
"""
