"""The few pieces of the protobuf wire format that a streaming writer needs.

Source: https://protobuf.dev/programming-guides/encoding/ ; field numbers of ONNX messages are those of onnx.proto.
"""

from collections.abc import Iterator

VARINT, LEN = 0, 2
"""Wire types that are written."""

# Field numbers of onnx.proto.
MODEL_GRAPH, MODEL_METADATA_PROPS = 7, 14
GRAPH_INITIALIZER = 5
TENSOR_DIMS, TENSOR_DATA_TYPE, TENSOR_NAME, TENSOR_RAW_DATA = 1, 2, 8, 9
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION, LOCATION_EXTERNAL = 13, 14, 1


def varint(value: int) -> bytes:
    """A non-negative integer, seven bits a byte, least significant first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def length_prefix(field: int, length: int) -> bytes:
    """Tag and length of a LEN field whose payload follows."""
    return varint(field << 3 | LEN) + varint(length)


def len_field(field: int, payload: bytes) -> bytes:
    return length_prefix(field, len(payload)) + payload


def varint_field(field: int, value: int) -> bytes:
    return varint(field << 3 | VARINT) + varint(value)


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a serialised message in order: field number, and the whole field with its tag."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _read_varint(message, position)
        match tag & 7:
            case 0:
                _, position = _read_varint(message, position)
            case 1:
                position += 8
            case 2:
                length, position = _read_varint(message, position)
                position += length
            case 5:
                position += 4
            case wire_type:
                raise ValueError(f"wire type {wire_type} does not occur in ONNX")
        if position > len(message):
            raise ValueError("the message ends inside a field")
        yield tag >> 3, message[start:position]


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
