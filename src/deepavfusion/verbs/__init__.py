"""The table of commands (verbs): from a name to its configuration and function.

Nothing here imports torch: the function that does the work is imported when its command runs.
"""

from __future__ import annotations

from deepavfusion.verbs.archive import ARCHIVE
from deepavfusion.verbs.costs import COSTS
from deepavfusion.verbs.data import DATA
from deepavfusion.verbs.evaluation import EVALUATION
from deepavfusion.verbs.inference import INFERENCE
from deepavfusion.verbs.training import TRAINING
from deepavfusion.verbs.verb import Verb

VERBS: dict[str, Verb] = {**TRAINING, **EVALUATION, **INFERENCE, **ARCHIVE, **DATA, **COSTS}
"""All verbs, in the order in which help lists them."""
