"""What the person at the keyboard can mend; `faceid-train` prints it and exits with 1.

    TrainingError
    ├── InvalidRecipe       an unknown key, or a value that is not allowed
    ├── InvalidCheckpoint   not a checkpoint of ours, or of another architecture
    ├── NoSpace             a file could not be written in full; the one before it is intact
    ├── Diverged            the loss is not finite
    ├── Interrupted         somebody asked the run to stop; it can be resumed
    └── ParityError         an exported model does not compute what its source computes
"""


class TrainingError(Exception):
    """Base of every error of the training half; its text says what was wrong and what to do."""


class InvalidRecipe(TrainingError): ...


class InvalidCheckpoint(TrainingError): ...


class NoSpace(TrainingError): ...


class Diverged(TrainingError): ...


class Interrupted(TrainingError): ...


class ParityError(TrainingError): ...
