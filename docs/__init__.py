"""The documentation's sources; ``python -m docs.generate`` writes the parts that are made from the code."""
