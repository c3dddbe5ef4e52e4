"""`python -m tests.evaluation.segmentation_program RUN SOURCE OUT`: an evaluation as a program, run under torchrun."""

import sys

from deepavfusion.evaluation.config import EvaluationData
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig
from deepavfusion.evaluation.segmentation.evaluate import evaluate_segmentation

if __name__ == "__main__":
    run, source, out = sys.argv[1:]
    data = EvaluationData(source, "test", 0)
    evaluate_segmentation(EvaluateSegmentationConfig(run, data, out=out, batch_size=3, pictures=0, device="cpu"))
