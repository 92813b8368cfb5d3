"""Measure a bundle on held-out photographs and write what was found as one self-contained HTML page."""
