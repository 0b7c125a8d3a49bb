"""Reporting: the index of trials, their journal, TensorBoard, tables, the final test, and the result of a sweep."""
