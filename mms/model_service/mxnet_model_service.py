"""Base classes of mxnet services in archives of the 0.x layout; part of the handler kit, needs mxnet when one is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mms.context import Context
from mms.model_service.model_service import SingleNodeService
from mms.utils.mxnet.required import mxnet

__all__ = ["GluonImperativeBaseService", "MXNetBaseService", "SingleNodeService", "check_input_shape"]


def check_input_shape(inputs: Sequence[Any], signature: Mapping[str, Any]) -> None:
    """Raise ValueError where the arrays are not what the signature says; an axis of 0 there stands for any length."""
    wanted = signature["inputs"]
    if len(inputs) != len(wanted):
        raise ValueError(f"{len(wanted)} inputs are expected, not {len(inputs)}.")
    for array, description in zip(inputs, wanted, strict=True):
        shape = description["data_shape"]
        fits = len(array.shape) == len(shape) and all(
            axis in (0, given) for axis, given in list(zip(shape, array.shape, strict=True))[1:]
        )
        if not fits:
            raise ValueError(f"The input {description['data_name']} must have the shape {shape}, not {array.shape}.")


class _LabelledService(SingleNodeService):
    """What both kinds of mxnet services have: a device, a signature, and labels from `synset.txt`."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: Mapping[str, Any] | None, gpu: int | None = None
    ) -> None:
        super().__init__(model_name, model_dir, manifest, gpu)
        mx = mxnet(type(self).__name__)
        self.ctx = mx.gpu(int(gpu)) if gpu is not None else mx.cpu()
        model = (manifest or {}).get("Model", {})
        self._signature = json.loads(
            Path(model_dir, model.get("Signature", "signature.json")).read_text(encoding="utf-8")
        )
        labels = Path(model_dir, "synset.txt")
        if labels.is_file():
            self.labels = [line.strip() for line in labels.read_text(encoding="utf-8").splitlines()]

    def initialize(self, context: Context) -> None:
        """The signature has been read already."""
        self._context = context

    def _preprocess(self, data: Any) -> Any:
        return [mxnet(type(self).__name__).nd.array(item) for item in data]

    def _postprocess(self, data: Any) -> Any:
        return [str(array.asnumpy().tolist()) for array in data]

    def ping(self) -> Any:
        """The version of mxnet."""
        return mxnet(type(self).__name__).__version__


class MXNetBaseService(_LabelledService):
    """A symbolic network with its parameters, as the manifest names them."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: Mapping[str, Any] | None, gpu: int | None = None
    ) -> None:
        super().__init__(model_name, model_dir, manifest, gpu)
        mx = mxnet(type(self).__name__)
        model = (manifest or {}).get("Model", {})
        prefix = model["Symbol"].removesuffix(".json").removesuffix("-symbol")
        epoch = model["Parameters"].removesuffix(".params").rpartition("-")[2]
        symbol, arguments, auxiliary = mx.model.load_checkpoint(
            str(Path(model_dir, prefix)), int(epoch) if epoch.isdigit() else 0
        )
        inputs = self._signature["inputs"]
        shapes = [(item["data_name"], (1, *(axis or 1 for axis in item["data_shape"][1:]))) for item in inputs]
        self.mx_model = mx.mod.Module(
            symbol=symbol, context=self.ctx, data_names=[name for name, _ in shapes], label_names=None
        )
        self.mx_model.bind(for_training=False, data_shapes=shapes)
        self.mx_model.set_params(arguments, auxiliary, allow_missing=True, allow_extra=True)

    def _inference(self, data: Any) -> Any:
        check_input_shape(data, self._signature)
        mx = mxnet(type(self).__name__)
        self.mx_model.forward(mx.io.DataBatch([item.as_in_context(self.ctx) for item in data]))
        return self.mx_model.get_outputs()


class GluonImperativeBaseService(_LabelledService):
    """A gluon network, given by the subclass as `net` with its parameters in the file that the manifest names."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None,
        net: Any = None,
        gpu: int | None = None,
    ) -> None:
        super().__init__(model_name, model_dir, manifest, gpu)
        self.net = net
        parameters = (manifest or {}).get("Model", {}).get("Parameters")
        if net is not None and parameters:
            net.load_parameters(str(Path(model_dir, parameters)), ctx=self.ctx)

    def _inference(self, data: Any) -> Any:
        check_input_shape(data, self._signature)
        return self.net(data[0].as_in_context(self.ctx))
