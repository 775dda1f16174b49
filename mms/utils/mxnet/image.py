"""Pictures to and from mxnet arrays; part of the handler kit, needs mxnet when it is called."""

from __future__ import annotations

import base64
import importlib
import io
from typing import Any

from mms.utils.mxnet.required import mxnet

_WANTS = "mms.utils.mxnet.image"


def transform_shape(img_arr: Any, dim_order: str = "NCHW") -> Any:
    """A picture [height, width, channels] as a batch of one, `NCHW` or `NHWC`."""
    if dim_order not in ("NCHW", "NHWC"):
        raise ValueError(f"The order of dimensions must be NCHW or NHWC, not {dim_order}.")
    mx = mxnet(_WANTS)
    array = mx.nd.transpose(img_arr, (2, 0, 1)) if dim_order == "NCHW" else img_arr
    return mx.nd.expand_dims(array, axis=0)


def read(buf: Any, flag: int = 1, to_rgb: bool = True, out: Any = None) -> Any:
    """The picture in the bytes `buf`; `flag` 1 for colour, 0 for grey."""
    return mxnet(_WANTS).image.imdecode(buf, flag, to_rgb, out)


def write(img_arr: Any, flag: int = 1, format: str = "jpeg", dim_order: str = "CHW") -> bytes:
    """The picture as base64 text; `flag` 1 for colour, 0 for grey. Needs Pillow as well."""
    if dim_order not in ("CHW", "HWC"):
        raise ValueError(f"The order of dimensions must be CHW or HWC, not {dim_order}.")
    pillow = importlib.import_module("PIL.Image")
    pixels = img_arr.asnumpy().astype("uint8")
    if dim_order == "CHW":
        pixels = pixels.transpose((1, 2, 0))
    picture = pillow.fromarray(pixels, "RGB") if flag == 1 else pillow.fromarray(pixels.reshape(pixels.shape[:2]), "L")
    buffer = io.BytesIO()
    picture.save(buffer, format=format)
    return base64.b64encode(buffer.getvalue())


def resize(src: Any, new_width: int, new_height: int, interp: int = 2) -> Any:
    """The picture in another size."""
    return mxnet(_WANTS).image.imresize(src, new_width, new_height, interp)


def fixed_crop(src: Any, x0: int, y0: int, w: int, h: int, size: tuple[int, int] | None = None, interp: int = 2) -> Any:
    """The part of the picture at `x0`, `y0`, resized where `size` is given."""
    return mxnet(_WANTS).image.fixed_crop(src, x0, y0, w, h, size, interp)


def color_normalize(src: Any, mean: Any, std: Any = None) -> Any:
    """The picture less `mean`, over `std`."""
    return mxnet(_WANTS).image.color_normalize(src.astype("float32"), mean, std)
