"""From a unit back to the image: which operators lie between, and by which rule the signal passes each."""
