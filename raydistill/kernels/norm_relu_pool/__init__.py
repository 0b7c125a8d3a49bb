"""Instance norm, ReLU and 2x2 average pooling as one operation, with kernels in C for CPUs."""
