"""What each node's update was worth: Shapley values and leave-one-out, from the round's updates alone.

game               what coalitions are worth, remembered and counted
exact              Shapley values of up to twelve players
truncated          the same, estimated from sampled orders (GTG-Shapley)
leave_one_out      what goes with each player alone
"""

from .exact import exact_shapley
from .game import Contribution, Game
from .leave_one_out import leave_one_out
from .truncated import Sampling, shapley, truncated_shapley

__all__ = ["Contribution", "Game", "Sampling", "exact_shapley", "leave_one_out", "shapley", "truncated_shapley"]
