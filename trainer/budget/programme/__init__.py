"""Family widths by integer programming: the most importance within limits on time, work, size and memory."""

from .problem import Charge, Cost, Ladder, Moment, Problem, Total
from .reach import OutOfReach, least
from .solution import Least, Solution, check_solution
from .solve import solve
from .usage import exceeds, usage, value
from .widen import Undone, Widened, widen

__all__ = [
    "Charge",
    "Cost",
    "Ladder",
    "Least",
    "Moment",
    "OutOfReach",
    "Problem",
    "Solution",
    "Total",
    "Undone",
    "Widened",
    "check_solution",
    "exceeds",
    "least",
    "solve",
    "usage",
    "value",
    "widen",
]
