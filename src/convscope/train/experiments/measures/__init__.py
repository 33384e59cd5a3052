"""What experiments read from a finished run beyond its log: each from the network and its data alone."""
