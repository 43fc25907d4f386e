"""Import path of PySyft 0.2; only names are here.

The messages of this package are in `syft.wire`.
"""

from syft.generic.absent import absent

__getattr__ = absent(
    __name__,
    "Message ObjectMessage ObjectRequestMessage IsNoneMessage GetShapeMessage "
    "ForceObjectDeleteMessage SearchMessage PlanCommandMessage Operation OperationMessage "
    "ExecuteWorkerFunctionMessage TensorCommandMessage WorkerCommandMessage",
    "Workers of this package exchange messages of their own. Ask a worker with its methods: "
    "call(), search(), send().",
)
