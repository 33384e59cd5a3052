"""How images are moved, scaled and turned, where that puts a map's positions, and how far features go."""
