"""lgap-bench: how robust is a classifier behind an adversarial purifier?"""

__version__ = "0.1.0"
