"""Files of many kinds, made on the spot: what the magika archive is asked about."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import marshal
import pickle
import random
import sqlite3
import struct
import sys
import tarfile
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

TEXTS = {
    "python": "import os\nimport sys\n\n\ndef main(path: str) -> int:\n    for name in os.listdir(path):\n"
    "        print(name, file=sys.stderr)\n    return 0\n\n\nif __name__ == '__main__':\n    sys.exit(main('.'))\n",
    "shell": '#!/bin/bash\nset -euo pipefail\nfor f in *.txt; do\n  if [ -f "$f" ]; then\n'
    '    cp "$f" /backup/\n  fi\ndone\n',
    "csv": "id,name,price,quantity\n" + "".join(f"{n},item {n},{n * 1.25:.2f},{n % 7}\n" for n in range(60)),
    "tsv": "id\tname\tprice\n" + "".join(f"{n}\titem {n}\t{n * 1.5}\n" for n in range(60)),
    "html": "<!DOCTYPE html>\n<html lang='en'><head><title>A page</title><meta charset='utf-8'></head>\n"
    "<body><h1>Hello</h1><p>Some <b>text</b>.</p><ul><li>one</li><li>two</li></ul></body></html>\n",
    "xml": '<?xml version="1.0" encoding="UTF-8"?>\n<orders><order id="1"><item sku="a">2</item></order>\n'
    '<order id="2"><item sku="b">5</item></order></orders>\n',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><circle cx="5" cy="5" r="4" fill="red"/></svg>\n',
    "css": "body { margin: 0; font-family: sans-serif; }\n"
    ".button:hover { color: #fff; background: #06c; }\n"
    "@media print { nav { display: none } }\n",
    "javascript": "const http = require('http');\nfunction handler(req, res) {\n  res.writeHead(200);\n"
    "  res.end('ok');\n}\nhttp.createServer(handler).listen(8080);\n",
    "typescript": "interface User { id: number; name: string }\n"
    "export function greet(user: User): string {\n  return `Hello, ${user.name}`;\n}\n",
    "c": "#include <stdio.h>\n#include <stdlib.h>\n\nint main(int argc, char **argv) {\n"
    '    printf("%d\\n", argc);\n    return EXIT_SUCCESS;\n}\n',
    "java": "package com.example;\n\nimport java.util.List;\n\npublic class Main {\n"
    "    public static void main(String[] args) {\n"
    "        System.out.println(List.of(args));\n    }\n}\n",
    "go": 'package main\n\nimport "fmt"\n\nfunc main() {\n\tfor i := 0; i < 3; i++ {\n\t\tfmt.Println(i)\n\t}\n}\n',
    "rust": "use std::collections::HashMap;\n\nfn main() {\n    let mut m: HashMap<String, i32> = HashMap::new();\n"
    '    m.insert("a".to_string(), 1);\n    println!("{:?}", m);\n}\n',
    "ruby": "require 'json'\n\nclass Greeter\n  def initialize(name)\n    @name = name\n  end\n\n"
    '  def greet\n    puts "Hello #{@name}"\n  end\nend\n',
    "php": "<?php\nnamespace App;\nfunction add(int $a, int $b): int {\n    return $a + $b;\n}\n"
    "echo add(1, 2), PHP_EOL;\n",
    "sql": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\n"
    "INSERT INTO users (name) VALUES ('a'), ('b');\n"
    "SELECT name, count(*) FROM users GROUP BY name ORDER BY 2 DESC;\n",
    "yaml": "version: 1\nservices:\n  web:\n    image: nginx\n    ports:\n      - 80:80\n"
    "    environment:\n      KEY: value\n",
    "toml": '[project]\nname = "thing"\nversion = "1.0"\ndependencies = ["a>=1"]\n\n[tool.thing]\nline = 120\n',
    "ini": "[server]\nhost = localhost\nport = 8080\n\n[client]\ntimeout = 5\nretries = 3\n",
    "markdown": "# A title\n\nSome *text* with a [link](https://example.org).\n\n## A list\n\n- one\n"
    "- two\n\n```python\nprint(1)\n```\n",
    "latex": "\\documentclass{article}\n\\usepackage{amsmath}\n\\begin{document}\n\\section{One}\n"
    "$E = mc^2$\n\\end{document}\n",
    "dockerfile": "FROM python:3.11-slim\nWORKDIR /app\nCOPY . .\nRUN pip install .\nEXPOSE 8080\n"
    'CMD ["mms", "serve"]\n',
    "makefile": "CC = gcc\nall: main.o\n\t$(CC) -o main main.o\nclean:\n\trm -f *.o main\n.PHONY: all clean\n",
    "diff": "--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@\n import os\n-print(1)\n+print(2)\n x = 3\n",
    "prose": "It was a quiet morning and nothing much had happened in the village since the bridge was mended. " * 4,
    "eml": "From: a@example.org\nTo: b@example.org\nSubject: Hello\nDate: Mon, 02 Jan 2023 10:00:00 +0000\n"
    "MIME-Version: 1.0\nContent-Type: text/plain\n\nHow are you?\n",
    "ics": "BEGIN:VCALENDAR\nVERSION:2.0\nBEGIN:VEVENT\nDTSTART:20230101T100000Z\n"
    "SUMMARY:Meeting\nEND:VEVENT\nEND:VCALENDAR\n",
    "batch": "@echo off\nsetlocal\nfor %%f in (*.txt) do (\n  copy %%f C:\\backup\\\n)\n"
    "if errorlevel 1 goto end\n:end\n",
    "jsonl": "".join(json.dumps({"id": n, "name": f"item {n}"}) + "\n" for n in range(30)),
}

EDGES = {
    "empty": b"",
    "one byte": b"a",
    "one byte that is no text": b"\xff",
    "seven bytes": b"abcdefg",
    "eight bytes": b"abcdefgh",
    "white space only": b" \t\r\n" * 500,
    "more white space than is looked at": b" " * 5000 + b"import os\nprint(os.name)\n",
    "few bytes in white space": b"\n\n   short   \n\n",
    "few bytes, no text": b"\x00\xfe\xff\x01",
    "code between white space": b"\n" * 100 + TEXTS["python"].encode() + b" " * 3000,
    "utf-16": TEXTS["prose"].encode("utf-16"),
    "latin-1": ("Größe und Maß, süße Äpfel und Öl. " * 20).encode("latin-1"),
    "zero bytes": bytes(3000),
    "a multi-byte letter across the end of the first block": b" " * 4095 + "é".encode() * 3,
}


def _zip(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("notes.txt")
        entry.size = len(TEXTS["prose"])
        archive.addfile(entry, io.BytesIO(TEXTS["prose"].encode()))
    return out.getvalue()


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + bytes((x * y) % 256 for x in range(32)) for y in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _bmp() -> bytes:
    pixels = bytes((n * 7) % 256 for n in range(32 * 32 * 3))
    return struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54) + (
        struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + pixels
    )


def _wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"".join(struct.pack("<h", (n * 331) % 20000 - 10000) for n in range(4000)))
    return out.getvalue()


def _pdf() -> bytes:
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
    ]
    body = b"%PDF-1.4\n"
    for number, text in enumerate(objects, 1):
        body += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    return body + b"xref\n0 4\n0000000000 65535 f \ntrailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n180\n%%EOF\n"


def _sqlite(folder: Path) -> bytes:
    path = folder / "made.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
    connection.executemany("INSERT INTO t (name) VALUES (?)", [(f"row {n}",) for n in range(50)])
    connection.commit()
    connection.close()
    return path.read_bytes()


def _array(save: str) -> bytes:
    out = io.BytesIO()
    getattr(np, save)(out, np.arange(500, dtype=np.float32))
    return out.getvalue()


def _onnx() -> bytes:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", value[:1], value[1:])
    return bytes(onnx.helper.make_model(graph).SerializeToString())


def files(folder: Path) -> dict[str, bytes]:
    """Kind to content; `folder` is for what can only be made on disk."""
    rng = random.Random(20)
    noise = rng.randbytes(20_000)
    binaries = {
        "json": json.dumps({"users": [{"id": n, "tags": ["a", "b"], "active": True} for n in range(40)]}).encode(),
        "png": _png(),
        "bmp": _bmp(),
        "gif": b"GIF89a\x20\x00\x20\x00\x80\x00\x00"
        + b"\x00" * 6
        + b",\x00\x00\x00\x00\x20\x00\x20\x00\x00"
        + noise[:300]
        + b";",
        "wav": _wav(),
        "pdf": _pdf(),
        "zip": _zip({"notes.txt": TEXTS["prose"].encode(), "data.csv": TEXTS["csv"].encode()}),
        "jar": _zip(
            {
                "META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n",
                "com/example/Main.class": b"\xca\xfe\xba\xbe" + noise[:400],
            }
        ),
        "tar": _tar(),
        "gzip": gzip.compress(TEXTS["csv"].encode()),
        "bzip2": bz2.compress(TEXTS["csv"].encode()),
        "xz": lzma.compress(TEXTS["csv"].encode()),
        "zlib": zlib.compress(TEXTS["csv"].encode()),
        "sqlite": _sqlite(folder),
        "elf": Path(sys.executable).resolve().read_bytes()[:1_500_000],
        "python byte code": b"\xa7\r\r\n" + bytes(12) + marshal.dumps(compile(TEXTS["python"], "x.py", "exec")),
        "pickle": pickle.dumps({"numbers": list(range(300)), "name": "thing"}),
        "npy": _array("save"),
        "npz": _array("savez"),
        "onnx": _onnx(),
        "wasm": b"\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a\x04\x01\x02\x00\x0b" + noise[:50],
        "random bytes": noise,
        "random letters": "".join(rng.choices("abcdefghijklmnopqrstuvwxyz \n", k=3000)).encode(),
        "over a megabyte": TEXTS["python"].encode() * 6_000,
    }
    return {name: text.encode() for name, text in TEXTS.items()} | binaries | EDGES
