"""What people would use otherwise: each as its own documentation shows it, tuned fairly."""
