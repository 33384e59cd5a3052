"""PyTorch's caching allocator for CUDA devices, on whole numbers alone."""
