"""The network as a graph of modules and calls, with what is known of each."""
