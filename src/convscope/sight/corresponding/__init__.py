"""Whether the same part has the same effect on a layer in different images, as numbers with intervals."""
