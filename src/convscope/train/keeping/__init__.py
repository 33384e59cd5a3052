"""What a run leaves on the disk: log, checkpoint, weights; and how it is read back."""
