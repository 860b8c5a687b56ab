"""From stores to tensors: which windows, in which order, read how, prepared how."""
