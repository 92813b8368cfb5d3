"""Charts as SVG: what every chart shares, and those of a benchmark."""
