"""A local page on which a person explores a bundle: photographs, lines between their codes, directions, units."""
