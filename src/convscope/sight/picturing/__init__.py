"""What a gallery is, and its pictures: patches and projections of the winners, drawn, written to a folder."""
