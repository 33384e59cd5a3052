"""How a window is slid over an image, what it changes inside the network, and what comes out."""
