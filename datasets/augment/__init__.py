"""What training may add to the published augmentation: changed colours, and images of rare classes more than once."""
