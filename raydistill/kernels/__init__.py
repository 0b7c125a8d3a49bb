"""Fast computation: C and Triton kernels, recorded programs, torch's compiler, CUDA graphs."""
