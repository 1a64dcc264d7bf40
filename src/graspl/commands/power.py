"""`graspl power`: how many answers a claim needs."""

from jsonargparse import ArgumentParser

from graspl.commands.terminal import console
from graspl.intervals import samples_to_tell


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl power`."""
    parser.add_function_arguments(power, as_positional=True)


def power(
    rate: float, other: float, power: float = 0.8, alpha: float = 0.05, cluster: int = 1, icc: float = 0.0
) -> int:
    """Print how many answers each of two runs needs for their rates to be told apart.

    Args:
        rate: of one run, 0..1.
        other: of the other.
        power: chance to tell them apart.
        alpha: two-sided level of the test.
        cluster: answers a question; with icc above 0 they count for less.
        icc: correlation of answers to one question, 0..1.

    Raises:
        GrasplError: the rates are equal, or a figure is out of range.
    """
    n = samples_to_tell(rate, other, power=power, alpha=alpha, cluster=cluster, icc=icc)
    told = (
        f"{n} answers from each run tell {rate:.3%} from {other:.3%} with power {power:g} at level {alpha:g}"
    )
    console().print(told, highlight=False, markup=False)
    return n
