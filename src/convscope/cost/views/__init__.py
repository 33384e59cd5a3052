"""The table seen in other ways: rolled up, sorted, as CSV, side by side, over sweeps."""
