"""How far a picture can be trusted: scores, and findings that say what they mean."""
