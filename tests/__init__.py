"""Tests of flairhub, converters and catalog."""
