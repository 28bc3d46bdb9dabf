"""Training of RefineDetLite (arXiv 1911.08855) in PyTorch; run from a checkout as `python -m train`."""
