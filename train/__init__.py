"""Training of RefineDetLite (arXiv 1911.08855) in PyTorch; run as `python -m train`."""
