"""What binds those who use the networks that the paper's authors released."""

NOTICE = (
    "the models that the paper's authors released (Dosovitskiy & Brox 2016) are for research only, in any format; "
    "deepsim ships none of them; the terms of whoever published a file bind those who import it"
)
