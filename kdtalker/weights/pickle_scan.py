"""Scan a pickle statically before it is read: no object is built, nothing is imported or called."""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from array import array
from collections.abc import Iterable
from mmap import mmap
from typing import IO, cast

# Nested tuples at most: Python hashes tuples recursively in C, and a stack overflow ends the process.
MAX_TUPLE_DEPTH = 500


def scan_pickle(content: IO[bytes] | mmap, max_opcodes: int, max_copied: int | None = None) -> set[str]:
    """Collect the names that a pickle imports by GLOBAL or INST, as `module.name` of Python 3, and stop behind it.

    content: an open file or a memory map, at the pickle's first byte. Raises ValueError (or what else its next byte
    stands for) where it is cut short or damaged, has more opcodes, uses a memo index that is larger than the number of
    opcodes before it (CPython allocates 16 bytes for each up to it), or nests tuples deeper than MAX_TUPLE_DEPTH.
    max_copied: limit of the bytes that its calls could copy, if each took the longest text or container in it.
    """
    names: set[str] = set()
    stack: list[int] = []  # nesting depth of tuples in each object on the stack
    marks: list[int] = []
    memo = array("H")
    calls = longest = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], content))):
        pops, is_marked, pushes, kind = _EFFECTS[opcode.code]
        if count >= max_opcodes:
            raise ValueError("too many opcodes")
        if kind == "push":
            longest = max(longest, len(argument)) if isinstance(argument, (str, bytes)) else longest
            stack.append(0)
        elif kind == "put":
            _memoize(memo, len(memo) if argument is None else int(argument), stack[-1], count)
        elif kind == "get":
            stack.append(memo[int(argument or 0)])
        elif kind == "mark":
            marks.append(len(stack))
        elif opcode.code == "0" and marks and marks[-1] == len(stack):  # POP removes a mark too
            marks.pop()
        else:
            if kind == "name":
                names.add(_in_python_3(str(argument)))
            start = (marks.pop() if is_marked else len(stack)) - pops
            if start < 0:
                raise ValueError("the stack is empty")
            longest = max(longest, 8 * (len(stack) - start))
            calls += opcode.name in _CALLS
            if max_copied is not None and calls * longest > max_copied:
                raise ValueError("calls could copy too much")
            depth = max(stack[start:], default=0) + (kind == "tuple")
            if depth > MAX_TUPLE_DEPTH:
                raise ValueError("tuples are nested too deep")
            stack[start:] = [depth] * pushes
    return names


def _memoize(memo: array[int], index: int, depth: int, last: int) -> None:
    """Store a depth in the memo, which grows up to the index `last`."""
    if not 0 <= index <= last:
        raise ValueError("memo index out of bounds")
    memo.extend([0] * (index + 1 - len(memo)))
    memo[index] = depth


_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}  # opcodes that call a function or a class


def _effect(opcode: pickletools.OpcodeInfo) -> tuple[int, bool, int, str]:
    """Return an opcode's effect on the stack: objects popped (below a mark, if any), whether it pops to a mark, objects
    pushed, and its kind."""
    before, name = opcode.stack_before, opcode.name
    is_marked = pickletools.markobject in before
    pops = before.index(pickletools.markobject) if is_marked else len(before)
    kinds = {"MARK": "mark", "MEMOIZE": "put", "GLOBAL": "name", "INST": "name"}
    kind = kinds.get(name, "put" if name.endswith("PUT") else "get" if name.endswith("GET") else "")
    if not kind and not before and len(opcode.stack_after) == 1:
        kind = "push"
    return pops, is_marked, len(opcode.stack_after), "tuple" if name.startswith("TUPLE") else kind


# Stack effect of every opcode, by its code.
_EFFECTS = {opcode.code: _effect(opcode) for opcode in pickletools.opcodes}


def _in_python_3(argument: str) -> str:
    """Translate "module name" of Python 2 or 3 to `module.name` of Python 3."""
    module, _, name = argument.partition(" ")
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def join_names(names: Iterable[str]) -> str:
    """Join up to four names for an error message; those that are long or unprintable are escaped and cut."""
    some = [name if len(name) <= 80 and name.isprintable() else ascii(name[:40]) for name in sorted(names)]
    return ", ".join(some[:4]) + (f" and {len(some) - 4} more" if len(some) > 4 else "")
