"""The run itself: devices and processes, checks beforehand, steps and epochs."""
