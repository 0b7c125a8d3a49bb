"""Pictures: grids of distilled images, step sizes, Pareto fronts; and TensorBoard."""
