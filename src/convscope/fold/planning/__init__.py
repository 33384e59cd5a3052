"""Which batch norms fold, what does it change, and why do the others stay?"""
