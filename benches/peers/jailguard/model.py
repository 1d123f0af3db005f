"""Makes the ONNX file that jailguard reads, all-MiniLM-L6-v2, of the weights as they are published.

    model.py FILE.onnx
"""

import importlib.util
import io
import json
import pathlib
import sys
import zipfile

import numpy
from onnx import TensorProto, checker, helper, numpy_helper, save

LAYERS, HIDDEN, HEADS = 6, 384, 12


def weights():
    """The tensors of the `safetensors` file: their places as JSON, behind its length, and then all numbers."""
    package = importlib.util.find_spec("all_minilm_l6_v2")
    archive = pathlib.Path(package.submodule_search_locations[0], "model.zip")
    with zipfile.ZipFile(archive) as files:
        file = io.BytesIO(files.read("model.safetensors"))
    length = int.from_bytes(file.read(8), "little")
    places, numbers = json.loads(file.read(length)), file.read()
    places.pop("__metadata__", None)
    return {
        name: numpy.frombuffer(numbers[slice(*place["data_offsets"])], numpy.float32).reshape(place["shape"])
        for name, place in places.items()
        if place["dtype"] == "F32"
    }


class Graph:
    """Nodes in the order in which they are added, each with one output."""

    def __init__(self, tensors):
        self.tensors, self.nodes, self.constants = tensors, [], {}

    def add(self, operator, *inputs, name=None, **attributes):
        name = name or f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value, kind=numpy.int64):
        value = numpy.array(value, kind)
        return self.keep(f"constant {value.dtype} {value.tolist()}", value)

    def tensor(self, name, transposed=False):
        value = self.tensors[name]
        return self.keep(name, numpy.ascontiguousarray(value.T) if transposed else value)

    def keep(self, name, value):
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def linear(self, name, of):
        product = self.add("MatMul", of, self.tensor(f"{name}.weight", transposed=True))
        return self.add("Add", product, self.tensor(f"{name}.bias"))

    def norm(self, name, of, output=None):
        scale, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return self.add("LayerNormalization", of, scale, bias, name=output, axis=-1, epsilon=1e-12)

    def heads(self, name, of, order):
        shape = self.constant([0, 0, HEADS, HIDDEN // HEADS])
        return self.add("Transpose", self.add("Reshape", self.linear(name, of), shape), perm=order)


def model(tensors):
    graph = Graph(tensors)
    words = graph.add("Gather", graph.tensor("embeddings.word_embeddings.weight"), "input_ids")
    types = graph.add("Gather", graph.tensor("embeddings.token_type_embeddings.weight"), "token_type_ids")
    length = graph.add("Shape", "input_ids", start=1, end=2)
    places = graph.tensor("embeddings.position_embeddings.weight")
    places = graph.add("Slice", places, graph.constant([0]), length, graph.constant([0]))
    hidden = graph.norm("embeddings.LayerNorm", graph.add("Add", graph.add("Add", words, types), places))

    mask = graph.add("Unsqueeze", "attention_mask", graph.constant([1, 2]))
    absent = graph.add("Sub", graph.constant(1), mask)
    mask = graph.add("Mul", graph.add("Cast", absent, to=TensorProto.FLOAT), graph.constant(-1e9, numpy.float32))
    scale = graph.constant((HIDDEN // HEADS) ** -0.5, numpy.float32)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        query = graph.heads(f"{at}.attention.self.query", hidden, [0, 2, 1, 3])
        key = graph.heads(f"{at}.attention.self.key", hidden, [0, 2, 3, 1])
        value = graph.heads(f"{at}.attention.self.value", hidden, [0, 2, 1, 3])
        scores = graph.add("Add", graph.add("Mul", graph.add("MatMul", query, key), scale), mask)
        seen = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        seen = graph.add("Reshape", graph.add("Transpose", seen, perm=[0, 2, 1, 3]), graph.constant([0, 0, HIDDEN]))
        seen = graph.add("Add", graph.linear(f"{at}.attention.output.dense", seen), hidden)
        hidden = graph.norm(f"{at}.attention.output.LayerNorm", seen)
        wide = graph.add("Gelu", graph.linear(f"{at}.intermediate.dense", hidden))
        narrow = graph.add("Add", graph.linear(f"{at}.output.dense", wide), hidden)
        last = "last_hidden_state" if layer == LAYERS - 1 else None
        hidden = graph.norm(f"{at}.output.LayerNorm", narrow, output=last)

    value = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)
    inputs = [value(name, TensorProto.INT64, ["texts", "tokens"]) for name in ("input_ids", "attention_mask", "token_type_ids")]
    outputs = [value("last_hidden_state", TensorProto.FLOAT, ["texts", "tokens", HIDDEN])]
    made = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, outputs, list(graph.constants.values()))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def main():
    made = model(weights())
    checker.check_model(made)
    save(made, sys.argv[1])


if __name__ == "__main__":
    main()
