"""Pictures made of images and what a reading found in them."""
