"""`python -m tests.evaluation.segmentation_program RUN SOURCE OUT`: an evaluation as a program, run under torchrun."""

import sys

from deepavfusion.evaluation.config import EvaluationData
from deepavfusion.evaluation.evaluate import evaluate
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig

if __name__ == "__main__":
    run, source, out = sys.argv[1:]
    data = EvaluationData(source, "test", 0)
    evaluate(EvaluateSegmentationConfig(run, data, out=out, batch_size=3, pictures=0, device="cpu"))
