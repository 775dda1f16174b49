import json

from mms.api.json_text import json_text, status_text


def test_characters_that_mean_something_in_html_are_escaped() -> None:
    text = json_text({"message": 'it\'s <b> & "q" = \u00e9\u2028'})

    assert text == b'{\n  "message": "it\\u0027s \\u003cb\\u003e \\u0026 \\"q\\" \\u003d \xc3\xa9\\u2028"\n}\n'
    assert json.loads(text) == {"message": 'it\'s <b> & "q" = \u00e9\u2028'}


def test_a_status_is_pretty_printed_with_a_newline_at_the_end() -> None:
    assert status_text("Healthy") == b'{\n  "status": "Healthy"\n}\n'
