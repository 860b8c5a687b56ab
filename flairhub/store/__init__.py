"""The store: how a domain lies in Zarr, and how it is opened. Written by :mod:`converters`."""
