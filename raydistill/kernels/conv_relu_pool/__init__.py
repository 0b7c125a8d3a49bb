"""A 5x5 convolution, ReLU and 2x2 max pooling as one operation, with kernels in C for CPUs and in Triton for GPUs."""
