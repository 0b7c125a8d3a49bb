"""How good a set is: fresh networks trained on it, baselines, nearest neighbours."""
