"""An ONNX graph under construction: its nodes and constants, and the model that holds them."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import MissingDependencyError

Rounding = Literal["float16", "int8"]

# The oldest versions that have all operations: read by ONNX Runtime since 1.12, of 2022.
_OPSET = 17
_IR_VERSION = 8


def import_onnx() -> ModuleType:
    """Import the library of the ONNX format.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"an ONNX model needs onnx, which cannot be imported ({error}): "
            "pip install 'brainfeat[export]'"
        ) from error
    module: ModuleType = onnx
    return module


class OnnxGraph:
    """An ONNX graph, to which nodes are added in the order of computation.

    Parameters
    ----------
    rounding : {"float16", "int8"} or None
        Number format in which filters are stored; they are computed with in float32.
    least_rounded : int
        Filters of fewer weights are stored in float32.
    """

    def __init__(self, rounding: Rounding | None = None, least_rounded: int = 0) -> None:
        self._onnx = import_onnx()
        self._rounding, self._least_rounded = rounding, least_rounded
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node.

        Parameters
        ----------
        kind : str
            An operation of ONNX, such as ``"Conv"``.
        *inputs : str
            Names of values.
        output : str
            Name of its output; by default, one of its own.
        **attributes : object
            Attributes of the operation.

        Returns
        -------
        str
            The name of its output.
        """
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        node = self._onnx.helper.make_node(kind, inputs, [name], name=name, **attributes)
        self._nodes.append(node)
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant, and return its name."""
        name = f"constant_{len(self._constants)}"
        array = np.array(values, dtype, order="C")
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def filters(self, values: NDArray[Any]) -> str:
        """Add filters, whose first axis counts them, and return the name of their float32 values.

        Filters that are stored in int8 have a scale each, and zero is zero.
        """
        if self._rounding is None or values.size < self._least_rounded:
            return self.constant(values)
        if self._rounding == "float16":
            halves = self.constant(values, np.float16)
            return self.add("Cast", halves, to=self._onnx.TensorProto.FLOAT)
        largest = np.abs(values).max(axis=tuple(range(1, values.ndim)))
        scales = np.maximum(largest, np.finfo(np.float32).tiny) / 127
        steps = np.round(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
        return self.add(
            "DequantizeLinear", self.constant(steps, np.int8), self.constant(scales), axis=0
        )

    def serialize(
        self,
        *,
        name: str,
        inputs: Mapping[str, tuple[str | int, ...]],
        outputs: Mapping[str, tuple[str | int, ...]],
        metadata: Mapping[str, str],
    ) -> bytes:
        """Make the contents of an ``.onnx`` file, which ONNX has checked.

        Parameters
        ----------
        name : str
            Name of the graph.
        inputs, outputs : mapping of str to tuple
            Shapes of float32 values by name; an axis of any length has a name.
        metadata : mapping of str to str
            What is stored beside the graph.

        Returns
        -------
        bytes
        """
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(key, kind, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, kind, shape) for key, shape in outputs.items()],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="brainfeat",
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
