"""Look through a pickle before anything reads it: no object is built, nothing is imported or called."""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from array import array
from collections.abc import Iterable
from mmap import mmap
from typing import IO, cast

DEEPEST = 500  # tuples in tuples: Python hashes them on the stack of C and ends the process where that is too small


def scan_pickle(content: IO[bytes] | mmap, most_opcodes: int, most_copied: int | None = None) -> set[str]:
    """Return the names that a pickle asks for by GLOBAL or INST, as `module.name` of Python 3, and stop behind it.

    content: an open file or a memory map, at the pickle's first byte. Raises ValueError (or what else its next byte
    stands for) where it is cut short or damaged, has more opcodes, uses a memo index that is larger than the number of
    opcodes before it (C Python allocates 16 bytes for each up to it), or nests tuples deeper than DEEPEST. most_copied:
    how many bytes its calls could copy at most, if each took the longest text or container in it.
    """
    names: set[str] = set()
    stack: list[int] = []  # of each object, how deep tuples are nested in it
    marks: list[int] = []
    memo = array("H")
    calls = longest = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], content))):
        pops, is_marked, pushes, kind = _EFFECTS[opcode.code]
        if count >= most_opcodes:
            raise ValueError("too many opcodes")
        if kind == "push":
            longest = max(longest, len(argument)) if isinstance(argument, (str, bytes)) else longest
            stack.append(0)
            continue
        if kind == "put":
            index = len(memo) if argument is None else int(argument)
            if not 0 <= index <= count:
                raise ValueError("memo index out of bounds")
            memo.extend([0] * (index + 1 - len(memo)))
            memo[index] = stack[-1]
            continue
        if kind == "get":
            stack.append(memo[int(argument or 0)])
            continue
        if kind == "mark":
            marks.append(len(stack))
            continue
        if kind == "name":
            names.add(_in_python_3(str(argument)))
        if opcode.code == "0" and marks and marks[-1] == len(stack):  # POP takes a mark too
            marks.pop()
            continue
        start = (marks.pop() if is_marked else len(stack)) - pops
        if start < 0:
            raise ValueError("the stack is empty")
        longest = max(longest, 8 * (len(stack) - start))
        calls += opcode.name in _CALLS
        if most_copied is not None and calls * longest > most_copied:
            raise ValueError("calls could copy too much")
        depth = max(stack[start:], default=0) + (kind == "tuple")
        if depth > DEEPEST:
            raise ValueError("tuples are nested too deep")
        stack[start:] = [depth] * pushes
    return names


_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}


def _effect(opcode: pickletools.OpcodeInfo) -> tuple[int, bool, int, str]:
    """Return how many objects it pops (below a mark, if any), whether it pops to a mark, how many it pushes, and its
    kind."""
    before, name = opcode.stack_before, opcode.name
    is_marked = pickletools.markobject in before
    pops = before.index(pickletools.markobject) if is_marked else len(before)
    kinds = {"MARK": "mark", "MEMOIZE": "put", "GLOBAL": "name", "INST": "name"}
    kind = kinds.get(name, "put" if name.endswith("PUT") else "get" if name.endswith("GET") else "")
    if not kind and not before and len(opcode.stack_after) == 1:
        kind = "push"
    return pops, is_marked, len(opcode.stack_after), "tuple" if name.startswith("TUPLE") else kind


_EFFECTS = {opcode.code: _effect(opcode) for opcode in pickletools.opcodes}


def _in_python_3(argument: str) -> str:
    module, _, name = argument.partition(" ")
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def listed(names: Iterable[str]) -> str:
    """Return the first of these names for a sentence, as far as they are short and can be printed."""
    some = [name if len(name) <= 80 and name.isprintable() else ascii(name[:40]) for name in sorted(names)]
    return ", ".join(some[:4]) + (f" and {len(some) - 4} more" if len(some) > 4 else "")
