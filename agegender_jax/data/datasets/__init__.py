"""One TFDS builder a data set; official splits and folds are named splits."""
