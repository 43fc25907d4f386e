"""Remote tensors: tensors that a worker holds, and that a coordinator computes with.

    coordinator                                       worker
    -----------------------------------------------   ------------------------------------------
    tensor.py    PointerTensor                        executor.py  runs it on the real tensors, with
    posting.py   catches each ATen operation, and                  autograd: the graph lives there
                 gives its result at once
    shapes.py    what shape that result has           operators.py which operations there are
    stream.py    the operations on their way, many    limits       how much they may use
                 a message, in order, each once
    modules.py   models: their parameters become
                 remote in place, and local again

Nothing is waited for until a value is asked for: `get`, or a shape that depends on values. An
operation that failed on the worker poisons what depends on it, and the next `get` of that raises
the error, with the line of the program that posted the operation.
"""

from syft.remote import whole as whole  # it completes tensor.py, as posting.py does
