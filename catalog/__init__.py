"""From domain tables to a STAC catalogue and GeoParquet."""
