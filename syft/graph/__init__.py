"""Models and loss functions as plain graphs.

A graph is data that a receiver checks and runs; there is no code in it.

    sender                                 receiver
    convert: model -> Model                check: Structure, or an error that names what is wrong
        structure: msgpack, no code  --->  interpret: GraphModule, an nn.Module that runs the graph
        state, constants: tensors    --->  local: the same model, made fast for evaluation

A structure is a map of plain values. Values of the computation are numbered: first the arguments of
`forward`, then the entries of `state`, then the flag `training`, then what the nodes give, in the
order in which they are written. Constants have negative numbers: -1 is the first one.

    field      holds
    ---------  -------------------------------------------------------------------------------------
    arguments  one [name] or [name, default] for each argument of forward, the default as a
               constant's number
    state      one [name, kind, requires_grad, dtype, shape] for each parameter (kind 0) and buffer
               (kind 1)
    aliases    {name: index in state}: further names of the same tensor
    constants  None, bool, int, float, str, {"complex": [re, im]}, {"device": name}, lists of these,
               {"tuple": list}, or {"tensor": [index, dtype, shape]}; tensors travel beside the
               structure
    operators  names of the operators that the nodes use, each with its overload: "aten::add.Tensor"
    nodes      one [operator, arguments, number of results] for each node; prim::If and prim::Loop
               also have their blocks, each [number of inputs, nodes, results]
    result     number of the value that forward returns
"""

from syft.graph.check import Structure, read_structure
from syft.graph.convert import Model, convert
from syft.graph.interpret import GraphModule
from syft.graph.local import for_inference
from syft.graph.receive import Receiver
from syft.graph.script import clone, loss_of

__all__ = [
    "GraphModule",
    "Model",
    "Receiver",
    "Structure",
    "clone",
    "convert",
    "for_inference",
    "loss_of",
    "read_structure",
]
