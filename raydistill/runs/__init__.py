"""One distillation or one bank from start to end: validation, the best set so far, stopping, resuming."""
