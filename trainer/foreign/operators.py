"""Which operators a foreign model may use: those that image networks are made of, and only with sizes known beforehand.

A list of what is allowed stays true when a later operator set adds an operator that unpacks files, matches patterns or
loops. Of what is allowed, some make a value whose size is an input; where that input follows from the pixels, one
picture can ask for a thousand times the memory of another, and no trial run shows it. So that is refused as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, NodeProto

from defectoscope.errors.models import ModelOperatorRefused
from trainer.foreign.graph import inputs_of, subgraphs_of

#: Names that stand for the operator set of the standard.
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

_ALLOWED_BY_KIND: Mapping[str, str] = {
    "element by element": """Abs Acos Acosh Add Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr
        BitwiseXor Cast CastLike Ceil Clip Cos Cosh Div Erf Exp Floor Identity IsInf IsNaN Log Max Mean Min Mod Mul Neg
        Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan""",
    "activations": """Celu Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink
        Sigmoid Softmax Softplus Softsign Swish Tanh ThresholdedRelu""",
    "comparison and choice": "And Equal Greater GreaterOrEqual If Less LessOrEqual Not Or Where Xor",
    "convolution, pooling, products, normalisation": """Attention AveragePool BatchNormalization Conv ConvInteger
        ConvTranspose DeformConv Einsum Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization
        InstanceNormalization LRN LayerNormalization LpNormalization LpPool MatMul MatMulInteger MaxPool MaxUnpool
        MeanVarianceNormalization RMSNormalization RotaryEmbedding""",
    "reductions and order": """ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare TopK""",
    "shape and place": """AffineGrid CenterCropPad Col2Im Concat Constant ConstantOfShape DepthToSpace Dropout Expand
        EyeLike Flatten Gather GatherElements GatherND GridSample OneHot Pad Range Reshape Resize ReverseSequence
        RoiAlign ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu
        Unsqueeze""",
    "whole numbers": "DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul QuantizeLinear",
}

#: Operators of the standard set that a model may use. Missing are loops and sequences, which run as long as they like;
#: random numbers; text, patterns and files; recurrent cells; and what gives as many values as the pixels decide.
ALLOWED = frozenset(name for names in _ALLOWED_BY_KIND.values() for name in names.split())

#: By operator, which inputs say how large its output is.
_SIZES: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Tile": (1,),
    "TopK": (1,),
}
#: What they give depends on the size of what they take, and on no value in it.
_OF_SHAPE_ONLY = frozenset({"Shape", "Size"})


def demand_allowed(node: NodeProto) -> None:
    """Demand that an operator of the standard set may be used.

    Raises:
        ModelOperatorRefused: it may not.
    """
    if node.op_type not in ALLOWED:
        raise refusal(node, "it is none of those that image networks need")


def demand_sizes_known(graph: GraphProto, input_name: str) -> None:
    """Demand that no value's size follows from the pixels.

    Args:
        graph: with its nodes in the order that ONNX demands, and without functions.
        input_name: of the picture.

    Raises:
        ModelOperatorRefused: an operator makes a value as large as the picture says.
    """
    _follow(graph, {input_name})


def _follow(graph: GraphProto, from_pixels: set[str]) -> None:
    """Add to ``from_pixels`` whatever follows from them in a graph and the graphs inside its nodes."""
    for node in graph.node:
        for index in _SIZES.get(node.op_type, ()):
            if index < len(node.input) and node.input[index] in from_pixels:
                raise refusal(node, "the size of what it makes depends on the picture")
        for inner in subgraphs_of(node):
            _follow(inner, from_pixels)
        inner_outputs = {value.name for inner in subgraphs_of(node) for value in inner.output}
        used = inner_outputs.union(inputs_of(node))
        if node.op_type not in _OF_SHAPE_ONLY and used & from_pixels:
            from_pixels.update(name for name in node.output if name)


def refusal(node: NodeProto, reason: str) -> ModelOperatorRefused:
    """Return the error that names an operator and why it is refused."""
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return ModelOperatorRefused(f"The model uses the operator {name}, which is refused: {reason}.", operator=name)
