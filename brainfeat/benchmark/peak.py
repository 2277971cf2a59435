"""The peak performance of GPUs."""

import re

# Dense bfloat16 TFLOP/s of the tensor cores, by the words of the device's name; the first row whose
# words are all in the name counts. From NVIDIA's data sheets of each card
# (https://www.nvidia.com/en-us/data-center/h200/, …/h100/, …/a100/, …/l40s/, …/l40/, …/l4/,
# …/products/a40/, a30/ and a10/); halved where the sheet states it with sparsity (H200, H100, L4).
_BF16_PEAKS: tuple[tuple[frozenset[str], float], ...] = (
    (frozenset({"H200", "NVL"}), 835.5),
    (frozenset({"H200"}), 989.5),
    (frozenset({"H100", "NVL"}), 835.5),
    (frozenset({"H100", "PCIe"}), 756.5),
    (frozenset({"H100", "HBM3"}), 989.5),
    (frozenset({"A100"}), 312.0),
    (frozenset({"L40S"}), 362.05),
    (frozenset({"L40"}), 181.05),
    (frozenset({"A30"}), 165.0),
    (frozenset({"A40"}), 149.7),
    (frozenset({"A10"}), 125.0),
    (frozenset({"L4"}), 121.0),
)
# Words in the name of a MIG instance, or of a vGPU such as "NVIDIA A100-40C".
_PART_OF_A_CARD = re.compile(r"MIG|GRID|\d+[ABCQ]")


def find_bf16_peak(device: str) -> float | None:
    """Look up the dense bfloat16 peak of a GPU.

    Parameters
    ----------
    device : str
        Its name as CUDA reports it, such as ``"NVIDIA H100 80GB HBM3"``.

    Returns
    -------
    float or None
        In TFLOP/s; None for a card that is not in the table or for a part of a card (MIG, vGPU).

    Examples
    --------
    >>> find_bf16_peak("NVIDIA A100-SXM4-40GB")
    312.0
    >>> find_bf16_peak("NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None
    True
    """
    words = re.split(r"[\W_]+", device)
    if any(map(_PART_OF_A_CARD.fullmatch, words)):
        return None
    return next((peak for known, peak in _BF16_PEAKS if known <= set(words)), None)
