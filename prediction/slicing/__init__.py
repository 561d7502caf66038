"""Large pictures: detection in tiles, whose results are merged."""
