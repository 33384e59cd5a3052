"""One kind of normalisation layer turned into another, in place and with proof."""
