"""The built-in handler of archives that hold one .onnx file and no handler: JSON in, JSON out; runs only inside a worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson

from mms.context import Context
from mms.errors import BadInput, InvalidModel, MmsError
from mms.metrics.metrics_store import MetricsStore
from mms.service import Service
from mms.workers.loading import LoadOrder
from mms.workers.onnx_inputs import Array, InputSpec, random_row
from mms.workers.onnx_session import open_session
from mms.workers.payloads import decode_json

logger = logging.getLogger(__name__)

_TOLERANCE = 0.02  # of the largest value: joined runs add up in another order, which unlikely inputs can make plain


class _Prepared:
    """One request's arrays; `alone` where it came as one row without the batch axis."""

    __slots__ = ("alone", "arrays", "place", "rows")

    def __init__(self, place: int, arrays: dict[str, Array], rows: int, alone: bool) -> None:
        self.place = place
        self.arrays = arrays
        self.rows = rows
        self.alone = alone


class OnnxHandler:
    """Runs a session on batches: requests whose shapes agree are joined along the batch axis where the model truly has one."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.inputs = [InputSpec(value.name, value.type, value.shape) for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]
        self._rows_in = all(spec.scalar or spec.has_rows for spec in self.inputs)
        self.joins = self._can_join()

    # --- does it have a batch axis? ---

    def _can_join(self) -> bool:
        """Every non-scalar input and output has a free first axis, and two rows at once give what each gives alone."""
        tensors = [spec for spec in self.inputs if not spec.scalar]
        shapes = [value.shape for value in self._session.get_outputs()]
        if not tensors or not all(spec.free_rows for spec in tensors):
            return False
        if not all(shape and not isinstance(shape[0], int) for shape in shapes):
            return False
        return any(self._proven(free) for free in (8, 32, 224, 1))

    def _proven(self, free: int) -> bool:
        """The dry run, with `free` in the place of every other axis whose length the model leaves open."""
        generator = np.random.default_rng(0)
        first = {spec.name: random_row(spec, free, generator) for spec in self.inputs}
        second = {
            spec.name: first[spec.name] if spec.scalar else random_row(spec, free, generator) for spec in self.inputs
        }
        both = {
            spec.name: first[spec.name] if spec.scalar else np.concatenate((first[spec.name], second[spec.name]))
            for spec in self.inputs
        }
        try:
            joined = self._session.run(None, both)
            alone = [self._session.run(None, row) for row in (first, second)]
        except Exception as error:  # onnxruntime raises classes of its own; any of them means that it cannot be done
            logger.debug("The dry run with %d on open axes failed: %s", free, error)
            return False
        return all(_same(both_rows, *rows) for both_rows, *rows in zip(joined, *alone, strict=True))

    # --- a batch ---

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[Any]:
        """One answer a request: JSON bytes `{output: nested list}`, or the error that is this request's own."""
        answers: list[Any] = [None] * len(data)
        groups: dict[Any, list[_Prepared]] = {}
        for place, item in enumerate(data):
            try:
                prepared = self._prepare(place, item)
            except BadInput as error:
                answers[place] = error
                continue
            groups.setdefault(self._group(prepared), []).append(prepared)
        for members in groups.values():
            for prepared, answer in zip(members, self._run(members), strict=True):
                answers[prepared.place] = answer
                if not isinstance(answer, MmsError):
                    context.set_response_content_type(prepared.place, "application/json")
        return answers

    def _group(self, prepared: _Prepared) -> Any:
        """Requests with the same key may be joined."""
        if not self.joins:
            return prepared.place
        return tuple(
            prepared.arrays[spec.name].tobytes() if spec.scalar else prepared.arrays[spec.name].shape[1:]
            for spec in self.inputs
        )

    def _prepare(self, place: int, item: Mapping[str, Any]) -> _Prepared:
        values = self._named(item)
        arrays = {spec.name: spec.array(values[spec.name]) for spec in self.inputs}
        tensors = [spec for spec in self.inputs if not spec.scalar]
        alone = self._rows_in and bool(tensors) and all(arrays[spec.name].ndim == spec.rank - 1 for spec in tensors)
        if alone:
            for spec in tensors:
                arrays[spec.name] = arrays[spec.name][np.newaxis]
        for spec in self.inputs:
            spec.check_shape(arrays[spec.name])
        rows = {arrays[spec.name].shape[0] for spec in tensors} if self.joins else {1}
        if len(rows) > 1:
            raise BadInput(f"The inputs have different numbers of rows: {', '.join(map(str, sorted(rows)))}.")
        return _Prepared(place, arrays, rows.pop(), alone)

    def _named(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The request's values by input name: from the JSON body, or from parts named like the inputs."""
        wanted = [spec.name for spec in self.inputs]
        if "body" in item and not (len(item) > 1 and "body" not in wanted and set(wanted) <= set(item)):
            content = _json(item["body"], "body")
            if not isinstance(content, dict):
                if len(wanted) != 1:
                    raise BadInput(f"The body must be a JSON object with the inputs {_listed(wanted)}.")
                return {wanted[0]: content}
        else:
            content = {name: _json(value, name) for name, value in item.items() if name in wanted}
        missing = [name for name in wanted if name not in content]
        unknown = [name for name in content if name not in wanted]
        if missing or unknown:
            parts = [f"missing: {_listed(missing)}"] if missing else []
            parts += [f"unknown: {_listed(unknown)}"] if unknown else []
            raise BadInput(f"The inputs of this model are {_listed(wanted)}; {'; '.join(parts)}.")
        return content

    def _run(self, members: list[_Prepared]) -> list[Any]:
        if len(members) == 1:
            return [self._run_alone(members[0])]
        feed = {
            spec.name: members[0].arrays[spec.name]
            if spec.scalar
            else np.concatenate([member.arrays[spec.name] for member in members])
            for spec in self.inputs
        }
        rows = sum(member.rows for member in members)
        try:
            outputs = self._session.run(None, feed)
        except Exception:
            logger.warning("A joined run of %d requests failed; they are run one by one.", len(members), exc_info=True)
            return [self._run_alone(member) for member in members]
        if any(output.shape[:1] != (rows,) for output in outputs):
            return [self._run_alone(member) for member in members]
        answers, start = [], 0
        for member in members:
            end = start + member.rows
            answers.append(self._answer([output[start:end] for output in outputs], member))
            start = end
        return answers

    def _run_alone(self, member: _Prepared) -> Any:
        try:
            outputs = self._session.run(None, member.arrays)
        except Exception as error:
            if type(error).__name__ != "InvalidArgument":
                raise
            return BadInput(f"The model refuses the input: {' '.join(str(error).split())[:500]}")
        return self._answer(outputs, member)

    def _answer(self, outputs: Sequence[Any], member: _Prepared) -> bytes:
        content = {}
        for name, output in zip(self._outputs, outputs, strict=True):
            value = np.asarray(output)
            if member.alone and value.shape[:1] == (1,):
                value = value[0]
            content[name] = np.ascontiguousarray(value) if value.ndim and value.dtype.kind in "fiub" else value.tolist()
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _same(joined: Any, *rows: Any) -> bool:
    whole = np.asarray(joined)
    if whole.shape[:1] != (len(rows),):
        return False
    for place, row in enumerate(rows):
        single = np.asarray(row)
        if single.shape != (1, *whole.shape[1:]):
            return False
        if whole.dtype.kind != "f":
            if not np.array_equal(whole[place], single[0]):
                return False
        else:
            near = _TOLERANCE * float(np.nanmax(np.abs(single), initial=0.0))
            if not np.allclose(whole[place], single[0], rtol=0, atol=near, equal_nan=True):
                return False
    return True


def _json(value: Any, name: str) -> Any:
    """A part as JSON; one that the server has not decoded, for want of a content type, is decoded here."""
    if not isinstance(value, bytes | bytearray | str):
        return value
    try:
        return decode_json(value.encode() if isinstance(value, str) else bytes(value))
    except (ValueError, RecursionError) as error:
        if isinstance(value, str):
            return value  # a JSON string that has been decoded already, or plain text
        raise BadInput(f"The value of '{name}' is not valid JSON: {' '.join(str(error).split())[:500]}") from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def load_onnx(order: LoadOrder, manifest: dict[str, Any] | None) -> Service:
    """Load the one .onnx file of the archive. Raises InvalidModel where there is none or more than one."""
    folder = Path(order.model_dir)
    found = sorted(
        path
        for path in folder.rglob("*.onnx")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if len(found) != 1:
        raise InvalidModel(
            f"An archive without a handler must hold exactly one .onnx file; this one holds {len(found)}."
        )
    handler = OnnxHandler(open_session(found[0], folder, order))
    logger.info("%s: requests are %s.", found[0].name, "joined" if handler.joins else "run one by one")
    service = Service(order.model, order.model_dir, manifest, handler.handle, order.gpu_id, order.batch_size)
    service.context.metrics = MetricsStore({}, order.model)
    return service
