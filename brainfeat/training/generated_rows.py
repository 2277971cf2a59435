"""Generated rows: the images that a program made, beside those that a head is fitted on."""

from brainfeat.heads.record import GeneratedRows
from brainfeat.leakage.results import Audit
from brainfeat.training.partition import Partition


def count_fitted(partition: Partition, audit: Audit) -> GeneratedRows | None:
    """Count the generated images that a head was fitted on, and those that were left out.

    Parameters
    ----------
    partition : Partition
    audit : Audit
        Of the cache that the partition was read from.

    Returns
    -------
    GeneratedRows or None
        None where the cache has none.
    """
    if audit.generated is None:
        return None
    rows = partition.generated
    return GeneratedRows(
        images=int((partition.image[rows] == rows).sum()),
        rows=len(rows),
        copies=audit.generated.copies,
        test_copies=audit.generated.test,
    )
