"""The functions are declared as bastide.h declares them, and options are divided as it says."""

import os
import re
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p

from bastide import Code, _library, _options

with open(os.environ["HEADER"], encoding="utf-8") as file:
    header = file.read()
code = re.sub(r"//.*|#.*", "", header)
code = re.sub(r"/\*.*?\*/", "", code, flags=re.S)
code = " ".join(code.split())

NUMBERS = {
    "int": c_int,
    "int32_t": c_int32,
    "int64_t": c_int64,
    "size_t": c_size_t,
    "uint16_t": c_uint16,
    "uint32_t": c_uint32,
    "uint64_t": c_uint64,
    "bastide_finalizer": _library.Finalizer,
    "bastide_token_function": _library.TokenFunction,
    "bastide_log_function": _library.LogFunction,
}


def ctypes_of(words: str):
    """The type of a declaration without its name."""
    words = words.replace("const ", "").replace("struct ", "").strip()
    stars, name = words.count("*"), words.replace("*", "").strip()
    if name == "char" and stars == 1:
        return c_char_p
    if name == "void" and stars == 0:
        return None
    if name == "bastide_statistics":
        return POINTER(_library.Statistics)
    if name in NUMBERS:
        return NUMBERS[name] if stars == 0 else POINTER(NUMBERS[name])
    # A handle, a context, or a place for a handle.
    return c_void_p if stars == 1 else POINTER(c_void_p)


declared = {}
for result, name, arguments in re.findall(r"([\w *]+?)\b(bastide_\w+)\(([^()]*)\)", code):
    result = result.split("}")[-1].split('{')[-1]
    kinds = [] if arguments.strip() == "void" else [re.sub(r"\w+$", "", word) for word in arguments.split(",")]
    declared[name] = (ctypes_of(result), [ctypes_of(kind) for kind in kinds])
assert len(declared) == len(_library.DECLARATIONS), set(declared) ^ set(_library.DECLARATIONS)
for name, expected in declared.items():
    assert _library.DECLARATIONS[name] == expected, (name, _library.DECLARATIONS[name], expected)

codes = {name: int(number) for name, number in re.findall(r"#define BASTIDE_ERROR_(\w+) (\d+)", header)}
assert codes == {code.name: code.value for code in Code}, codes

of_client = header.split("Of a client:")[1].split("Of connections")[0]
assert set(re.findall(r"`([a-z-]+)`", of_client)) == _options.CLIENT, of_client
print(f"{len(declared)} functions")
