"""Reporting: the index of trials, their journal, TensorBoard, tables, and what a sweep comes to."""
