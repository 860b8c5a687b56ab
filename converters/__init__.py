"""From raw FLAIR-HUB files to stores: read, check, write, prove."""
