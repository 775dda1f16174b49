"""Image classification with gluon networks in archives of the 0.x layout; part of the handler kit, needs mxnet when one is made."""

from __future__ import annotations

from typing import Any

from mms.model_service.mxnet_model_service import GluonImperativeBaseService
from mms.utils.mxnet import image, ndarray
from mms.utils.mxnet.required import mxnet


class GluonVisionService(GluonImperativeBaseService):
    """Pictures in, normalised as ImageNet's; the five most probable labels out."""

    def _preprocess(self, data: Any) -> Any:
        mx = mxnet(type(self).__name__)
        mean, deviation = mx.nd.array([0.485, 0.456, 0.406]), mx.nd.array([0.229, 0.224, 0.225])
        prepared = []
        for place, picture in enumerate(data):
            height, width = self._signature["inputs"][place]["data_shape"][2:]
            pixels = image.resize(image.read(picture), width, height).astype("float32") / 255
            prepared.append(image.transform_shape(image.color_normalize(pixels, mean, deviation)))
        return prepared

    def _inference(self, data: Any) -> Any:
        return super()._inference(data).softmax()

    def _postprocess(self, data: Any) -> Any:
        return [ndarray.top_probability(row, self.labels, top=5) for row in [data]]
