"""What the three scripts and the notebooks share. Only `plots` and `preload` import torch."""
