"""One distillation or one bank from start to end: validation, the best so far, stopping, resuming."""
