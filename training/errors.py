"""What the person at the keyboard can mend; `faceid-train` prints it and exits with 1.

    TrainingError
    ├── DataError           the labelled faces cannot be used as they are
    │   ├── NoFaces         nothing where faces should be
    │   ├── InvalidFaces    broken, not aligned, or of several sizes
    │   ├── InvalidRecords  a RecordIO file that is cut off or holds something else
    │   ├── InvalidPairs    a pair list or `.bin` that is no such thing, or names other faces
    │   └── TooFewPersons   no choice between persons to learn from
    ├── Unresolvable        too few comparisons, faces or people for the figure asked for
    ├── ForeignFolder       what is to be written would mix with files of somebody else's
    ├── InvalidRecipe       an unknown key, or a value that is not allowed
    ├── InvalidCheckpoint   not a checkpoint of ours, or of another architecture
    ├── NoSpace             a file could not be written in full; the one before it is intact
    ├── Diverged            the loss, its gradient or an embedding is not finite
    ├── Interrupted         somebody asked to stop; what is to be known then is said
    ├── UnusableService     what is to be evaluated does not answer, refuses, or cannot decide
    ├── InvalidSource       a foreign model that cannot be brought into the service's form
    └── ParityError         an exported model does not compute what its source computes

Anything else that is raised is a mistake of ours.
"""


class TrainingError(Exception):
    """Base of every error of the training half; its text says what was wrong and what to do."""


class DataError(TrainingError): ...


class NoFaces(DataError): ...


class InvalidFaces(DataError): ...


class InvalidRecords(DataError): ...


class InvalidPairs(DataError): ...


class TooFewPersons(DataError): ...


class Unresolvable(TrainingError): ...


class ForeignFolder(TrainingError): ...


class InvalidRecipe(TrainingError): ...


class InvalidCheckpoint(TrainingError): ...


class NoSpace(TrainingError): ...


class Diverged(TrainingError): ...


class Interrupted(TrainingError): ...


class UnusableService(TrainingError): ...


class InvalidSource(TrainingError): ...


class ParityError(TrainingError): ...
