"""Runtimes that a file can be made for, beside the onnxruntime that proves it.

Sources: onnxruntime's table of versions (docs/Versioning.md; of 1.17.3 and 1.20.1 what they load was tried), OpenCV's
modules/dnn/src/onnx/onnx_importer.cpp (buildDispatchMap_ONNX_AI of the 4.x branch), the support matrices of TensorRT 10
and its onnx-tensorrt parser (docs/operators.md).
"""

from collections.abc import Mapping
from typing import Literal

from app.domain.runtime import RuntimeLimits

Runtime = Literal[
    "onnxruntime",
    "ort-1.17",
    "ort-1.18",
    "ort-1.19",
    "ort-1.20",
    "ort-1.21",
    "ort-1.22",
    "ort-1.23",
    "ort-web",
    "opencv-4",
    "tensorrt-10",
]

_ONNXRUNTIME = {"1.17": (20, 9), "1.18": (21, 10), "1.19": (21, 10), "1.20": (21, 10), "1.21": (22, 10)} | {
    "1.22": (22, 10),
    "1.23": (23, 11),
}
"""Newest opset and IR version, by minor version."""

_OPENCV = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu
Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization LRN LSTM
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool MaxUnpool Mean Min Mod Mul Neg Or
PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round
Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Slice Softmax Softplus Softsign
SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where Xor
"""
"""The only operators that OpenCV's importer knows."""

_TENSORRT_LACKS = """
BitShift Col2Im ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear MatMulInteger MaxRoiPool MaxUnpool
MelWeightMatrix Multinomial Optional OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul STFT SequenceAt
SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence
StringNormalizer TfIdfVectorizer Unique
"""
"""Operators of its opsets that TensorRT's parser lacks."""

PRESETS: Mapping[str, RuntimeLimits] = {
    **{
        f"ort-{version}": RuntimeLimits(
            name=f"ort-{version}", title=f"onnxruntime {version}", opset=opset, ir_version=ir_version
        )
        for version, (opset, ir_version) in _ONNXRUNTIME.items()
    },
    "ort-web": RuntimeLimits(
        name="ort-web", title="onnxruntime-web 1.18 and above", opset=21, ir_version=10, external_data=False
    ),
    "opencv-4": RuntimeLimits(
        name="opencv-4",
        title="OpenCV 4.9 and above",
        opset=17,
        ir_version=10,
        external_data=False,
        operators=frozenset(_OPENCV.split()),
        refuses={"bf16": "its importer reads no bfloat16"},
    ),
    "tensorrt-10": RuntimeLimits(
        name="tensorrt-10",
        title="TensorRT 10",
        opset=20,
        ir_version=10,
        lacks=frozenset(_TENSORRT_LACKS.split()),
        refuses={"int8": "it quantizes around zero alone, and int8 here is unsigned with zero points of its own"},
    ),
}
