"""What a model's similarities mean, measured on faces of people it has not seen.

verification     thresholds for false match rates, probabilities
identification   thresholds for false positive identification rates, the closed set
tail             where the data thins out
calibrate        all of it, written into the model file
"""

from training.calibration.calibrate import calibrate, measure, write

__all__ = ["calibrate", "measure", "write"]
