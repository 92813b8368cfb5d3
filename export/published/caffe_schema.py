"""The part of Caffe's protobuf messages that an import needs, built in code.

Field numbers, types and defaults are facts of Caffe 1.0's file format; fields that change no result of an import, such
as fillers, are declared so that a prototxt's other fields can be told from them. Names of layers and blobs are bytes,
because Caffe does not check their encoding.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from deepsim.runtime.errors import missing_extra

# One line a field: number, name, type, default; "*" for repeated. Capital types are messages, "enum X" an enumeration.
_MESSAGES = {
    "Open": "",
    "BlobShape": "1 dim int64*",
    "Blob": "1 num int32; 2 channels int32; 3 height int32; 4 width int32; 7 shape BlobShape",
    "Rule": "1 phase enum Phase; 2 min_level int32; 3 max_level int32; 4 stage bytes*; 5 not_stage bytes*",
    "Convolution": "1 num_output uint32; 2 bias_term bool true; 3 pad uint32*; 4 kernel_size uint32*; 6 stride uint32*;"
    "18 dilation uint32*; 9 pad_h uint32; 10 pad_w uint32; 11 kernel_h uint32; 12 kernel_w uint32; 13 stride_h uint32;"
    "14 stride_w uint32; 5 group uint32 1; 7 weight_filler Open; 8 bias_filler Open; 15 engine enum Engine;"
    "16 axis int32 1; 17 force_nd_im2col bool",
    "InnerProduct": "1 num_output uint32; 2 bias_term bool true; 3 weight_filler Open; 4 bias_filler Open;"
    "5 axis int32 1; 6 transpose bool",
    "Pooling": "1 pool enum Pool; 4 pad uint32*; 9 pad_h uint32; 10 pad_w uint32; 2 kernel_size uint32*;"
    "5 kernel_h uint32; 6 kernel_w uint32; 3 stride uint32*; 7 stride_h uint32; 8 stride_w uint32;"
    "11 engine enum Engine; 12 global_pooling bool; 13 round_mode enum Round",
    "LRN": "1 local_size uint32 5; 2 alpha float 1; 3 beta float 0.75; 4 norm_region enum Region; 5 k float 1;"
    "6 engine enum Engine",
    "ReLU": "1 negative_slope float 0; 2 engine enum Engine",
    "TanH": "1 engine enum Engine",
    "Power": "1 power float 1; 2 scale float 1; 3 shift float 0",
    "Reshape": "1 shape BlobShape; 2 axis int32 0; 3 num_axes int32 -1",
    "Flatten": "1 axis int32 1; 2 end_axis int32 -1",
    "Concat": "2 axis int32 1; 1 concat_dim uint32 1",
    "Crop": "1 axis int32 2; 2 offset uint32*",
    "Dropout": "1 dropout_ratio float 0.5",
    "Input": "1 shape BlobShape*",
    "Transform": "3 crop_size uint32",
    "Layer": "1 name bytes; 2 type bytes; 3 bottom bytes*; 4 top bytes*; 10 phase enum Phase; 5 loss_weight float*;"
    "6 param Open*; 8 include Rule*; 9 exclude Rule*; 11 propagate_down bool*; 100 transform_param Transform;"
    "104 concat_param Concat; 106 convolution_param Convolution; 108 dropout_param Dropout; 117 inner_product_param"
    " InnerProduct; 118 lrn_param LRN; 121 pooling_param Pooling; 122 power_param Power; 123 relu_param ReLU;"
    "127 tanh_param TanH; 133 reshape_param Reshape; 135 flatten_param Flatten; 143 input_param Input;"
    "144 crop_param Crop",
    "LayerV1": "1 layer LayerV0; 2 bottom bytes*; 3 top bytes*; 4 name bytes; 5 type enum V1; 7 blobs_lr float*;"
    "8 weight_decay float*; 32 include Rule*; 33 exclude Rule*; 35 loss_weight float*; 1001 param bytes*;"
    "1002 blob_share_mode enum Share*; 36 transform_param Transform; 9 concat_param Concat; 10 convolution_param"
    " Convolution; 12 dropout_param Dropout; 17 inner_product_param InnerProduct; 18 lrn_param LRN; 19 pooling_param"
    " Pooling; 21 power_param Power; 30 relu_param ReLU; 37 tanh_param TanH",
    "LayerV0": "1 name bytes; 2 type bytes; 3 num_output uint32; 4 biasterm bool true; 5 weight_filler Open;"
    "6 bias_filler Open; 7 pad uint32 0; 8 kernelsize uint32; 9 group uint32 1; 10 stride uint32 1; 11 pool enum Pool;"
    "12 dropout_ratio float; 13 local_size uint32 5; 14 alpha float 1; 15 beta float 0.75; 22 k float 1;"
    "16 source bytes; 17 scale float; 18 meanfile bytes; 19 batchsize uint32; 20 cropsize uint32; 21 mirror bool;"
    "51 blobs_lr float*; 52 weight_decay float*",
    "Net": "1 name bytes; 2 layers LayerV1*; 3 input bytes*; 4 input_dim int32*; 8 input_shape BlobShape*;"
    "5 force_backward bool; 6 state Open; 7 debug_info bool; 100 layer Layer*",
}
_V1 = (
    "NONE ACCURACY BNLL CONCAT CONVOLUTION DATA DROPOUT EUCLIDEAN_LOSS FLATTEN HDF5_DATA HDF5_OUTPUT IM2COL IMAGE_DATA "
    "INFOGAIN_LOSS INNER_PRODUCT LRN MULTINOMIAL_LOGISTIC_LOSS POOLING RELU SIGMOID SOFTMAX SOFTMAX_LOSS SPLIT TANH "
    "WINDOW_DATA ELTWISE POWER SIGMOID_CROSS_ENTROPY_LOSS HINGE_LOSS MEMORY_DATA ARGMAX THRESHOLD DUMMY_DATA SLICE MVN "
    "ABSVAL SILENCE CONTRASTIVE_LOSS EXP DECONVOLUTION"
)  # in the order of their numbers
_ENUMS = {
    "Phase": "TRAIN TEST",
    "Engine": "DEFAULT CAFFE CUDNN",
    "Pool": "MAX AVE STOCHASTIC",
    "Round": "CEIL FLOOR",
    "Region": "ACROSS_CHANNELS WITHIN_CHANNEL",
    "Share": "STRICT PERMISSIVE",
    "V1": _V1,
}
OPEN = frozenset({"Open", "Transform"})  # messages whose unknown fields change nothing


@cache
def message_class(name: str) -> Any:
    """Return the protobuf class of a message, such as "Net". Raises DeviceError when protobuf is not installed."""
    try:
        from google.protobuf import message_factory
    except ImportError as error:
        raise missing_extra("protobuf", "import") from error
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"deepsim.caffe.{name}"))


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="deepsim/caffe", package="deepsim.caffe", syntax="proto2")
    for name, values in _ENUMS.items():
        # The values of one enumeration must not collide with another's, so each lies in a message of its own.
        enum = file.message_type.add(name=f"{name}Of").enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    for name, lines in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in filter(None, (line.strip() for line in lines.split(";"))):
            _add_field(message.field.add(), line.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(field: Any, words: list[str]) -> None:
    number, name, kind = words[:3]
    default = words[3:]
    field.number, field.name = int(number), name
    if kind == "enum":
        kind, default = default[0], default[1:]
    field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
    kind = kind.removesuffix("*")
    if words[2] == "enum":
        field.type, field.type_name = field.TYPE_ENUM, f".deepsim.caffe.{kind}Of.{kind}"
    elif kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".deepsim.caffe.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
    if default:
        field.default_value = default[0]
