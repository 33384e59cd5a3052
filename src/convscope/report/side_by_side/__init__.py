"""Two reports side by side: what differs."""
