"""From a trained model and a ROI to a map: overlapping windows, blending, Zarr and COG."""
