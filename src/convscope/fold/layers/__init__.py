"""Which layers take a scale and a shift into their weights, and how?"""
