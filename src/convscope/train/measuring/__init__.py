"""How well a network does: scores, ranks, losses over a whole set."""
