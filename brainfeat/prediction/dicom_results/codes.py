"""The codes of DICOM results: SNOMED CT, DICOM and UCUM where they have one, and else our own.

SNOMED CT: the code of a class says what the class is called, not that a diagnosis was made.
"""

from hashlib import sha256
from typing import Any, NamedTuple

from brainfeat.text import fold_spelling, make_printable, shorten

SCHEME = "99BRAINFEAT"
SCHEME_NAME = "Codes of brainfeat, https://pypi.org/project/brainfeat"

_LONGEST = 64  # characters of a code's meaning
_NAME_WIDTH = 40  # columns of a class name in one
# Both spellings, "tumor" and "tumour", lead to one code.
_GLIOMA = ("SCT", "393564001", "Glioma")
_MENINGIOMA = ("SCT", "302820008", "Intracranial meningioma")
_PITUITARY = ("SCT", "127024001", "Neoplasm of pituitary gland")
_NEOPLASM = ("SCT", "108369006", "Neoplasm")
_NO_TUMOUR = (SCHEME, "NO-TUMOR", "No tumor seen by the head")
_KNOWN = {
    **dict.fromkeys(("glioma", "gliomatumor"), _GLIOMA),
    **dict.fromkeys(("meningioma", "meningiomatumor"), _MENINGIOMA),
    **dict.fromkeys(("pituitary", "pituitarytumor"), _PITUITARY),
    **dict.fromkeys(("tumor",), _NEOPLASM),
    **dict.fromkeys(("notumor",), _NO_TUMOUR),
}


class Code(NamedTuple):
    """A code: its scheme, its value of at most 16 characters, its meaning of at most 64."""

    scheme: str
    value: str
    meaning: str


INDETERMINATE = Code("SCT", "82334004", "Indeterminate")
YES, NO = Code("SCT", "373066001", "Yes"), Code("SCT", "373067005", "No")
NONE = Code("SCT", "260413007", "None")
COMMENT = Code("DCM", "121106", "Comment")
FINDING = Code("DCM", "121071", "Finding")
SOURCE = Code("SCT", "260753009", "Source")
IMAGE_LIBRARY = Code("DCM", "111028", "Image Library")
IMAGE_LIBRARY_GROUP = Code("DCM", "126200", "Image Library Group")
EVALUATIONS = Code("UMLS", "C0034375", "Qualitative Evaluations")
IMAGE_PROCESSING = Code("DCM", "121322", "Source image for image processing operation")

OUT_OF_DISTRIBUTION = Code(SCHEME, "OUT-OF-DIST", "Out of distribution")
DECISION = Code(SCHEME, "DECISION", "Decision of the head")
FORCED = Code(SCHEME, "FORCED", "Most probable class, forced where the head abstains")
IN_SET = Code(SCHEME, "IN-SET", "Class in the prediction set")
IS_ODD = Code(SCHEME, "IS-OUT-OF-DIST", "Whether the image is out of distribution")
COVERAGE = Code(SCHEME, "COVERAGE", "Target coverage of the prediction set")
SCORE = Code(SCHEME, "OOD-SCORE", "Out-of-distribution score")
THRESHOLD = Code(SCHEME, "OOD-THRESHOLD", "Threshold of the out-of-distribution score")
SLICES = Code(SCHEME, "SLICES", "Slices that were predicted")
SEEN = Code(SCHEME, "SLICES-SEEN", "Slices that the head was fitted or validated on")
UNCERTAIN_SLICES = Code(SCHEME, "SLICES-UNSURE", "Slices of which the class is uncertain")
ODD_SLICES = Code(SCHEME, "SLICES-ODD", "Slices that are out of distribution")

NO_UNITS = Code("UCUM", "1", "no units")
COUNTED = Code("UCUM", "{slices}", "slices")

# CID 100: of the modality, since nothing checks which part of the body an image shows.
PROCEDURES = {
    "MR": Code("LN", "25056-3", "MRI unspecified body region"),
    "CT": Code("LN", "25045-6", "CT unspecified body region"),
    "PT": Code("LN", "44136-0", "PET unspecified body region"),
}


def code_class(name: str) -> Code:
    """Return the code of a class, by its name.

    Parameters
    ----------
    name : str
        As the head has it.

    Returns
    -------
    Code
        Of SNOMED CT for the classes that it knows, and otherwise one of our own, which depends on
        the name alone.

    Examples
    --------
    >>> code_class("meningioma_tumour").value, code_class("grade 2").scheme
    ('302820008', '99BRAINFEAT')
    """
    known = _KNOWN.get(fold_spelling(name).replace("tumour", "tumor"))
    return Code(*known) if known else _code_name("C", "", name)


def code_probability(name: str) -> Code:
    """Return the code for the probability of a class."""
    return _code_name("P", "Probability of ", name)


def code_slices(name: str) -> Code:
    """Return the code for the number of slices that are predicted as a class."""
    return _code_name("N", "Slices predicted as ", name)


def to_concept(code: Code) -> Any:
    """Return a code as highdicom has it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _code_name(kind: str, words: str, name: str) -> Code:
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    # A backslash separates values in DICOM.
    shown = shorten(make_printable(name).replace("\\", "/"), _NAME_WIDTH)
    return Code(SCHEME, f"{kind}-{digest[:12].upper()}", (words + shown)[:_LONGEST])
