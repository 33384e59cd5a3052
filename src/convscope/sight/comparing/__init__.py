"""Two galleries of the same images: which unit of the one is which of the other, and what changed."""
