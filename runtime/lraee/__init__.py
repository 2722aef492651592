"""Run CLIP on small CPUs: INT8 blocks one after the other, each image leaving as soon as its answer is good.

>>> import lraee
>>> model = lraee.load("reference")
>>> model.labels[:3]
('t-shirt', 'trousers', 'pullover')
"""

from lraee import frames
from lraee.errors import LraeeError
from lraee.loading import load
from lraee.model import Model
from lraee.policies import Adaptive, Deadline, ExitAt, Full, Policy
from lraee.prediction import Prediction
from lraee.reading import Reading

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "Deadline",
    "ExitAt",
    "Full",
    "LraeeError",
    "Model",
    "Policy",
    "Prediction",
    "Reading",
    "__version__",
    "frames",
    "load",
]
