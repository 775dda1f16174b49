"""Image classification in archives of the 0.x layout; part of the handler kit, needs mxnet when one is made."""

from __future__ import annotations

from typing import Any

from mms.model_service.mxnet_model_service import MXNetBaseService
from mms.utils.mxnet import image, ndarray


class MXNetVisionService(MXNetBaseService):
    """Pictures in, the five most probable labels out."""

    def _preprocess(self, data: Any) -> Any:
        prepared = []
        for place, picture in enumerate(data):
            height, width = self._signature["inputs"][place]["data_shape"][2:]
            prepared.append(image.transform_shape(image.resize(image.read(picture), width, height)))
        return prepared

    def _postprocess(self, data: Any) -> Any:
        return [ndarray.top_probability(row, self.labels, top=5) for row in data]
