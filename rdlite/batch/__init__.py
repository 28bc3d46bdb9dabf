"""Many images and videos, many workers: nothing is lost, and nothing is done twice."""
