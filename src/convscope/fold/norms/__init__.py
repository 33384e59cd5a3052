"""What is a batch norm, and what stands where it was? The calls, their modules, and what replaces them."""
