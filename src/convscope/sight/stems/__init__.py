"""What is wrong with strided layers: spectra, filters, and the findings about them."""
