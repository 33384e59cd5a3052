"""Pages that open offline, made of templates: the report's, and those of single results."""
