"""Is the folded network the same function? Trials, comparisons, and folds taken back."""
