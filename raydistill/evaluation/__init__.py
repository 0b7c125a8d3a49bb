"""How good a set is: fresh networks trained on it, baselines, nearest neighbours; and the problem they share."""
