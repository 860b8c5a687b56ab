"""Measurements against what people would use otherwise; run by ``make bench``."""
