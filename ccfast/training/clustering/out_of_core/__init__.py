"""The stages of the clustering by blocks of rows, through files in a work folder."""
