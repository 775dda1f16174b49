"""Sentences for recurrent networks of fixed lengths; part of the handler kit, needs mxnet where arrays are made."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from mms.utils.mxnet.required import mxnet


def encode_sentences(
    sentences: Sequence[Sequence[str]],
    vocab: dict[str, int] | None = None,
    invalid_label: int = -1,
    invalid_key: str = "\n",
    start_label: int = 0,
) -> tuple[list[list[int]], dict[str, int]]:
    """Numbers for words, and the vocabulary.

    Without a vocabulary one is made, with each new word in turn; with one, unknown words become `invalid_label`.
    """
    grows = vocab is None
    known = {invalid_key: invalid_label} if vocab is None else vocab
    following = start_label
    encoded = []
    for sentence in sentences:
        for word in sentence:
            if grows and word not in known:
                following += following == invalid_label
                known[word] = following
                following += 1
        encoded.append([known.get(word, invalid_label) for word in sentence])
    return encoded, known


def pad_sentence(
    sentence: Sequence[int],
    buckets: Sequence[int],
    invalid_label: int = -1,
    data_name: str = "data",
    layout: str = "NT",
) -> Any:
    """A mxnet DataBatch of the sentence, filled up to the shortest of the (sorted) buckets that holds it.

    Raises ValueError where none does.
    """
    place = bisect.bisect_left(buckets, len(sentence))
    if place == len(buckets):
        raise ValueError(f"A sentence of {len(sentence)} words is longer than every bucket.")
    length = buckets[place]
    mx = mxnet("mms.utils.mxnet.nlp")
    padded = [*sentence, *[invalid_label] * (length - len(sentence))]
    shape = (1, length) if layout == "NT" else (length, 1)
    description = mx.io.DataDesc(name=data_name, shape=shape, layout=layout)
    array = mx.nd.array([padded], dtype="float32")
    return mx.io.DataBatch([array], pad=0, bucket_key=length, provide_data=[description])
