"""Dead channels: those that say the same whatever the net is shown, or that nobody listens to.

`constancy` finds by the structure of the graph which channels can only be constant, `arrivals` measures the constants
where they are read, `verdict` decides what leaves, and `fold` puts what has left into the biases and kernels of its
readers.
"""

from .fold import fold
from .verdict import Verdict, judge

__all__ = ["Verdict", "fold", "judge"]
