"""A faithful miniature of the raw data, drawn from a synthetic landscape."""

from converters.miniature.writer import SampleReport, write_sample

__all__ = ["SampleReport", "write_sample"]
