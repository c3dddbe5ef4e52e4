"""`python -m tests.evaluation.evaluate_program RUN SOURCE OUT`: an evaluation as a program, run under torchrun."""

import sys

from deepavfusion.evaluation.config import EvaluateConfig, EvaluationData
from deepavfusion.evaluation.evaluate import evaluate

if __name__ == "__main__":
    run, source, out = sys.argv[1:]
    evaluate(EvaluateConfig(run, EvaluationData(source, "all", 0), out=out, batch_size=2, device="cpu"))
