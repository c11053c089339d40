"""vlmtrain: vision-language models assembled and trained from config files."""

from vlmtrain import torchvision_import

__version__ = "0.1.0"

torchvision_import.install()
